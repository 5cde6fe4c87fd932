"""Yosys: from the generated Verilog to a netlist and its cell counts, unit by unit."""

import gzip
import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tilewright.hw.config import Config
from tilewright.hw.generate import generate_verilog
from tilewright.hw.names import TOP_NAME
from tilewright.synth.targets import LATCHES, Resources, Target
from tilewright.synth.tools import SynthesisError, need, run_python
from tilewright.synth.units import Unit, units

_CODE = "import sys; from pyosys import libyosys as y; y.run_pass('script synth.ys', y.Design())"
_LATCH_COUNT = re.compile(r"^(\d+) objects\.$", re.MULTILINE)

Keep = Callable[[str, Callable[[Path], None]], Path]

_VERILOG, _LATCHES, _CELLS = "unit.v", "latches.txt", "cells.json"
_NETLIST, _PACKED = "netlist.json", "netlist.json.gz"
_MODULES = '"modules": {'


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
    netlist : Path
    units : list of UnitCells
        Top first, each one before those it places.
    cells : dict
        Cell type → number in the whole netlist.
    resources : Resources
        Of the whole netlist.
    netlists : dict
        Module of each unit → its own netlist, packed.
    """

    config: Config
    target: Target
    netlist: Path
    units: list[UnitCells]
    cells: dict[str, int]
    resources: Resources
    netlists: dict[str, Path] = field(default_factory=dict, repr=False)

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


def unit_name(module: str) -> str:
    """The name of a unit by its module's: what all have in common is left out."""
    return module.removeprefix(TOP_NAME).lstrip("._") or "top"


def _counts(text: str, module: str, modules: Collection[str]) -> tuple[dict[str, int], ...]:
    """Cells of a unit's own, and the units it places, of the text of `stat -json`."""
    document, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    cells: dict[str, int] = {}
    placed: dict[str, int] = {}
    for kind, count in document["modules"][f"\\{module}"]["num_cells_by_type"].items():
        kind = kind.removeprefix("\\")
        if kind == "$scopeinfo":  # a note on the hierarchy, not a cell
            continue
        (placed if kind in modules else cells)[kind] = int(count)
    return cells, placed


def read_counts(texts: Mapping[str, str], target: Target) -> list[UnitCells]:
    """Return the units by the reports of Yosys' `stat -json`, by module; top first."""
    counts = {module: _counts(text, module, texts) for module, text in texts.items()}
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
            unit=unit_name(module),
            parent=parents[module],
            count=copies[module],
            cells=counts[module][0],
            resources=target.resources(counts[module][0]),
        )
        for module in walk(TOP_NAME)
    ]


def _script(unit: Unit, target: Target) -> str:
    latches = " ".join(f"t:{name}" for name in LATCHES)
    top = f"\\{unit.module}"
    return (
        f"read_verilog {_VERILOG}\n"
        f"hierarchy -check -top {top}\n"
        "proc\n"
        f"tee -q -o {_LATCHES} select -count {latches}\n"
        f"{target.command} -top {top}\n"
        f"tee -q -o {_CELLS} stat -json -top {top}\n"
        # In the whole netlist it is not the top.
        + ("" if unit.module == TOP_NAME else f"setattr -mod -unset top {top}\n")
        + f"select {top}\n"
        f"write_json -selected {_NETLIST}\n"
    )


def _build(unit: Unit, target: Target, folder: Path, *, log: Path, timeout: float | None) -> None:
    """Synthesise a unit in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _VERILOG).write_text(unit.text, encoding="utf-8")
    (folder / "synth.ys").write_text(_script(unit, target), encoding="utf-8")
    run_python(_CODE, [], name="Yosys", folder=folder, log=log, timeout=timeout)
    count = _LATCH_COUNT.search((folder / _LATCHES).read_text(encoding="utf-8"))
    if count is None or int(count[1]) != 0:
        raise SynthesisError(f"Yosys inferred latches in {unit.module}; its log is {log}")
    # A twentieth of the size: an array's is hundreds of megabytes.
    netlist = folder / _NETLIST
    with netlist.open("rb") as plain, gzip.open(folder / _PACKED, "wb", 4) as packed:
        shutil.copyfileobj(plain, packed)
    netlist.unlink()


def _join(folders: Iterable[Path], netlist: Path) -> None:
    """Write the netlist of a machine: the modules of its units in one document."""
    with netlist.open("w", encoding="utf-8") as file:
        for number, folder in enumerate(folders):
            with gzip.open(folder / _PACKED, "rt", encoding="utf-8") as packed:
                text = packed.read()
            begin = text.index(_MODULES) + len(_MODULES)
            file.write(text[:begin] if number == 0 else ",")
            file.write(text[begin : text.rindex("}", 0, text.rindex("}"))].rstrip())
        file.write("\n  }\n}\n")


def synthesize(
    config: Config,
    target: Target,
    folder: Path,
    *,
    keep: Keep | None = None,
    netlist: bool = True,
    whole: bool = False,
    timeout: float | None = None,
    tell: Callable[[str, int, int], None] | None = None,
) -> Synthesis:
    """Generate the Verilog of a configuration, run Yosys on its units and count the cells.

    `folder` is made if need be and gets the Verilog, the netlist as JSON, a log of each unit made,
    and unless something else keeps them a folder for each: Verilog, script, netlist, counts.

    Parameters
    ----------
    keep : callable, optional
        Given a unit's key and what builds it into a folder, gives a folder where that is done: so
        that a unit that several machines have is synthesised once.
    netlist : bool
        Write the netlist: of a large array it is hundreds of megabytes.
    whole : bool
        Take the machine as one unit: Yosys sees across all of them, which takes longer and keeps
        nothing for another machine.
    timeout : float, optional
        Seconds that all may take.
    tell : callable, optional
        Told each unit, its number and how many there are, before it is made.

    Raises
    ------
    ToolMissingError
        Without pyosys.
    SynthesisError
        When Yosys fails, takes too long, or infers a latch.
    OSError
        When the folder cannot be written.
    """
    need("pyosys", "pyosys")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    verilog = generate_verilog(config, prefix=TOP_NAME)
    (folder / f"{TOP_NAME}.v").write_text(verilog, encoding="utf-8")
    end = None if timeout is None else time.monotonic() + timeout

    def build(unit: Unit, place: Path) -> None:
        log = folder / f"yosys-{unit_name(unit.module)}.log"
        left = None if end is None else max(1.0, end - time.monotonic())
        _build(unit, target, place, log=log, timeout=left)

    parts = [Unit(module=TOP_NAME, text=verilog)] if whole else units(config, verilog)
    places: dict[str, Path] = {}
    for number, unit in enumerate(parts):
        name = unit_name(unit.module)
        if tell is not None:
            tell(name, number, len(parts))
        if keep is None:
            places[unit.module] = folder / "units" / name
            build(unit, places[unit.module])
        else:
            key = unit.key(_script(unit, target), version("pyosys"))
            places[unit.module] = keep(key, partial(build, unit))
    path = folder / _NETLIST
    if netlist:
        _join(places.values(), path)
    counted = read_counts(
        {name: (place / _CELLS).read_text(encoding="utf-8") for name, place in places.items()},
        target,
    )
    cells: dict[str, int] = {}
    for one in counted:
        for kind, count in one.cells.items():
            cells[kind] = cells.get(kind, 0) + count * one.count
    return Synthesis(
        config=config,
        target=target,
        netlist=path,
        units=counted,
        cells=cells,
        resources=target.resources(cells),
        netlists={module: place / _PACKED for module, place in places.items()},
    )
