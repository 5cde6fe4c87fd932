"""Yosys: from the generated Verilog to a netlist and its cell counts, unit by unit."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hw.cells import Cell
from hw.config import Config
from hw.core import TOP_NAME, Tilewright
from hw.generate import generate_verilog
from synth.targets import LATCHES, Resources, Target
from synth.tools import SynthesisError, need, run_python

_CODE = "import sys; from pyosys import libyosys as y; y.run_pass('script synth.ys', y.Design())"
_LATCH_COUNT = re.compile(r"^(\d+) objects\.$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class UnitCells:
    """Cells of one module of the netlist, without those of the units it places.

    Parameters
    ----------
    module : str
        The module's name in Verilog.
    unit : str
        The same without what all names have in common.
    parent : str or None
        Module that places it (the first one, for what stands in several places).
    count : int
        How often it stands in the netlist.
    cells : dict
        Cell type → number, in one copy.
    resources : Resources
        Of one copy.
    """

    module: str
    unit: str
    parent: str | None
    count: int
    cells: dict[str, int]
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """A netlist and what it takes.

    Parameters
    ----------
    netlist, log : Path
    units : list of UnitCells
        Top first, each one before those it places.
    cells : dict
        Cell type → number in the whole netlist.
    resources : Resources
        Of the whole netlist.
    """

    config: Config
    target: Target
    netlist: Path
    log: Path
    units: list[UnitCells]
    cells: dict[str, int]
    resources: Resources

    def unit(self, name: str) -> UnitCells:
        """Return a unit by its name; KeyError without one."""
        return {unit.unit: unit for unit in self.units}[name]

    def below(self, name: str) -> Resources:
        """Resources of all copies of a unit with all that they place."""
        unit = self.unit(name)
        total = unit.resources.times(unit.count)
        for other in self.units:
            if other.parent == unit.module:
                total += self.below(other.unit)
        return total


def kept_modules(config: Config) -> list[str]:
    """Modules that stay apart in the netlist: the units the top places, and those they place.

    The units are counted apart for it, and nothing is lost: their ports are registers or thin
    logic, and no unit is empty without its neighbour.
    """

    def names(cells: Iterable[Cell], depth: int) -> list[str]:
        found = []
        for cell in cells:
            found.append(cell.cell_name)
            if depth:
                found += names(cell.cells(), depth - 1)
        return found

    top = Tilewright(config).cells()
    # Banks and columns of the memories stay with their crossbars.
    split = [cell for cell in top if cell.cell_name in _SPLIT]
    apart = names((cell for cell in top if cell not in split), 0) + names(split, 1)
    return list(dict.fromkeys([f"{TOP_NAME}.dma", *apart]))


_SPLIT = ("tilewright_matmul", "tilewright_vector")


def _unit_name(module: str) -> str:
    return module.removeprefix(TOP_NAME).lstrip("._") or "top"


def _counts(text: str) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """Module → (cells of its own, modules it places) of the text of `stat -json`."""
    document, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    modules = {name.removeprefix("\\"): entry for name, entry in document["modules"].items()}
    result = {}
    for name, entry in modules.items():
        cells: dict[str, int] = {}
        placed: dict[str, int] = {}
        for kind, count in entry.get("num_cells_by_type", {}).items():
            kind = kind.removeprefix("\\")
            if kind == "$scopeinfo":  # a note on the hierarchy, not a cell
                continue
            (placed if kind in modules else cells)[kind] = int(count)
        result[name] = (cells, placed)
    return result


def read_counts(text: str, target: Target) -> list[UnitCells]:
    """Return the units of a report of Yosys' `stat -json`, top first."""
    counts = _counts(text)
    parents: dict[str, str | None] = {TOP_NAME: None}
    copies = {TOP_NAME: 1}
    order = [TOP_NAME]
    # Units stand in a tree of a few levels; one that two others place is not there.
    for module in order:
        for name, count in counts[module][1].items():
            if name in parents:
                raise SynthesisError(f"{name} is placed by {parents[name]} and by {module}")
            parents[name] = module
            copies[name] = count * copies[module]
            order.append(name)

    def walk(module: str) -> list[str]:
        below = sorted(name for name in order if parents[name] == module)
        return [module, *(deep for name in below for deep in walk(name))]

    return [
        UnitCells(
            module=module,
            unit=_unit_name(module),
            parent=parents[module],
            count=copies[module],
            cells=counts[module][0],
            resources=target.resources(counts[module][0]),
        )
        for module in walk(TOP_NAME)
    ]


def synthesize(
    config: Config, target: Target, folder: Path, *, timeout: float | None = None
) -> Synthesis:
    """Generate the Verilog of a configuration, run Yosys on it and count the cells.

    `folder` is made if need be and gets the Verilog, the script, the netlist as JSON, the counts
    and the log.

    Raises
    ------
    ToolMissingError
        Without pyosys.
    SynthesisError
        When Yosys fails, takes longer than `timeout` seconds, or infers a latch.
    OSError
        When the folder cannot be written.
    """
    need("pyosys", "pyosys")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{TOP_NAME}.v").write_text(generate_verilog(config), encoding="utf-8")
    latches = " ".join(f"t:{name}" for name in LATCHES)
    kept = " ".join(f"\\{name}" for name in kept_modules(config))
    (folder / "synth.ys").write_text(
        f"read_verilog {TOP_NAME}.v\n"
        f"hierarchy -check -top {TOP_NAME}\n"
        "proc\n"
        f"tee -q -o latches.txt select -count {latches}\n"
        f"setattr -mod -set keep_hierarchy 1 {kept}\n"
        f"{target.command} -top {TOP_NAME} -json netlist.json\n"
        f"tee -q -o cells.json stat -json -top {TOP_NAME}\n",
        encoding="utf-8",
    )
    log = folder / "yosys.log"
    run_python(_CODE, [], name="Yosys", folder=folder, log=log, timeout=timeout)
    count = _LATCH_COUNT.search((folder / "latches.txt").read_text(encoding="utf-8"))
    if count is None or int(count[1]) != 0:
        raise SynthesisError(f"Yosys inferred latches; its log is {log}")
    units = read_counts((folder / "cells.json").read_text(encoding="utf-8"), target)
    cells: dict[str, int] = {}
    for unit in units:
        for kind, number in unit.cells.items():
            cells[kind] = cells.get(kind, 0) + number * unit.count
    return Synthesis(
        config=config,
        target=target,
        netlist=folder / "netlist.json",
        log=log,
        units=units,
        cells=cells,
        resources=target.resources(cells),
    )
