"""The units of a machine: parts that are synthesised apart, each once.

They stay apart in the netlist, so that their cells are counted unit by unit, and nothing is lost:
their ports are registers or thin logic, and no unit is empty without its neighbour. What Yosys
makes of a unit depends on its own text and on the ports of those it places: machines that differ
elsewhere share it.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.hw.cells import Cell
from tilewright.hw.config import Config
from tilewright.hw.core import Tilewright
from tilewright.hw.names import TOP_NAME

_MODULE = re.compile(
    r"^(?:\(\*.*\*\)\n)*module (?P<name>\\\S+|\w+)\s*\(.*?^endmodule$", re.MULTILINE | re.DOTALL
)
_HEADER = re.compile(r"^module [^;]*;\n", re.MULTILINE)
_PORT = re.compile(r"^  (?:input|output) [^;]*;\n", re.MULTILINE)
_PLACED = re.compile(r"^  (\\\S+|\w+) +(?:\\\S+ |\w+) \($", re.MULTILINE)

# Banks and columns of the memories stay with their crossbars.
_SPLIT = ("tilewright_matmul", "tilewright_vector")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A module of the generated Verilog to be synthesised by itself.

    Parameters
    ----------
    module : str
    text : str
        Its Verilog with all that it is made of; units that it places are black boxes.
    """

    module: str
    text: str

    def key(self, *more: str) -> str:
        """Return what tells it, and `more`, from all others: 24 digits."""
        return hashlib.sha256("\n".join((self.module, self.text, *more)).encode()).hexdigest()[:24]


def kept_modules(config: Config) -> list[str]:
    """Modules of the units: those the top places, and those that some of these place."""

    def names(cells: Iterable[Cell], depth: int) -> list[str]:
        found = []
        for cell in cells:
            found.append(cell.cell_name)
            if depth:
                found += names(cell.cells(), depth - 1)
        return found

    top = Tilewright(config).cells()
    split = [cell for cell in top if cell.cell_name in _SPLIT]
    apart = names((cell for cell in top if cell not in split), 0) + names(split, 1)
    return list(dict.fromkeys([f"{TOP_NAME}.dma", *apart]))


def units(config: Config, verilog: str) -> list[Unit]:
    """Return the units of a machine's Verilog, the top first."""
    modules = {match["name"].lstrip("\\"): match[0] for match in _MODULE.finditer(verilog)}
    kept = [TOP_NAME, *kept_modules(config)]

    def text(unit: str) -> str:
        names: list[str] = [unit]
        boxes: list[str] = []
        for name in names:
            for match in _PLACED.finditer(modules[name]):
                placed = match[1].lstrip("\\")
                others = boxes if placed in kept else names
                if placed in modules and placed not in others:
                    others.append(placed)
        parts = [modules[name] for name in names] + [_black_box(modules[name]) for name in boxes]
        return "\n".join(parts) + "\n"

    return [Unit(module=name, text=text(name)) for name in kept]


def _black_box(module: str) -> str:
    header = _HEADER.search(module)
    assert header is not None
    return f"(* blackbox *)\n{header[0]}{''.join(_PORT.findall(module))}endmodule"
