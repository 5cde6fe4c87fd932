"""Cells: components emitted once as a Verilog module and placed many times.

Amaranth emits one module an instance; an array of R × C processing elements would grow the text
(and the time to make it) with R·C. A cell is converted by itself, and its users refer to it by
name, so that the text grows with R + C.
"""

from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out


class Unwarned:
    """A component of which some are only looked at: of equal cells one is converted and the others
    name it, and of the top a signature alone can be asked for.

    Amaranth warns of every component that is made and not elaborated, when it is deleted. Its
    category could be filtered for the whole process only, a user's own designs included; this
    attribute, private to Amaranth, silences the class alone.
    """

    _MustUse__silence = True


class Cell(Unwarned, wiring.Component):
    """A component that is a module of its own in the generated Verilog.

    Members of its signature are plain shapes. `cell_name` is unique to the class and its
    parameters.
    """

    cell_name: str = ""

    def cells(self) -> "list[Cell]":
        """Cells this one places."""
        return []


def place(
    m: Module, name: str, cell: Cell, /, *, reset: Value | int = 0, **connections: Any
) -> None:
    """Add an instance `name` of `cell`; every member of its signature is connected by name.

    `reset` clears it, and what it places, besides the domain's own reset.
    """
    members = cell.signature.members
    missing = set(members) ^ set(connections)
    if missing:
        raise ValueError(f"{cell.cell_name} {name}: connections {sorted(missing)} do not match")
    ports = {
        ("o_" if members[key].flow == Out else "i_") + key: value
        for key, value in connections.items()
    }
    m.submodules[name] = Instance(
        cell.cell_name, i_clk=ClockSignal("sync"), i_rst=ResetSignal("sync") | reset, **ports
    )


def collect(cells: list[Cell]) -> dict[str, Cell]:
    """Return all cells placed below `cells`, by name, users before the used."""
    found: dict[str, Cell] = {}
    for cell in cells:
        found[cell.cell_name] = cell
    for cell in cells:
        found.update(collect(cell.cells()))
    return found
