"""Where the signals of a netlist are written: file and line, from the `src` notes of Amaranth.

The generated Verilog carries none of them, as it is the same wherever it is made. So the cells in
question are converted once more, notes and all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from amaranth.back import rtlil

from tilewright.hw.cells import collect
from tilewright.hw.config import Config
from tilewright.hw.core import Tilewright
from tilewright.hw.names import TOP_NAME

_SOURCE = re.compile(r'^ *attribute \\src "([^"]*)"$')
_DECLARED = re.compile(
    r"^ *(?:module \\(?P<module>\S+)|wire (?:.* )?\\(?P<wire>\S+)"
    r"|cell \\(?P<kind>\S+) \\(?P<cell>\S+))$"
)
_OWN = re.compile(r"/tilewright/(hw/.*)$")
_BIT = re.compile(r"\[\d+\]$")


@dataclass
class _Module:
    source: str = ""
    signals: dict[str, str] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)


def _short(source: str) -> str:
    """A file of the generator and a line, by its path in the project; "" for one of a library."""
    match = _OWN.search(source)
    return "" if match is None else match[1]


def read_sources(text: str) -> dict[str, _Module]:
    """Signals and cells of RTLIL, by module."""
    found: dict[str, _Module] = {}
    module, source = _Module(), ""
    for line in text.splitlines():
        if match := _SOURCE.match(line):
            source = _short(match[1])
        elif match := _DECLARED.match(line):
            if match["module"]:
                module = found[match["module"]] = _Module(source)
            elif match["wire"]:
                module.signals[match["wire"]] = source
            else:
                module.cells[match["cell"]] = match["kind"]
            source = ""
        elif not line.lstrip().startswith("attribute"):
            # What a note stood before is none of these.
            source = ""
    return found


class Sources:
    """Files and lines of a machine's signals; cells are converted as they are asked for."""

    def __init__(self, config: Config) -> None:
        top = Tilewright(config)
        self._cells = {TOP_NAME: top, **collect(top.cells())}
        self._read = cache(self._convert)

    def _convert(self, name: str) -> Mapping[str, _Module]:
        return read_sources(rtlil.convert(self._cells[name], name=name, emit_src=True))

    def _module(self, name: str) -> _Module | None:
        owner = name if name in self._cells else name.partition(".")[0]
        return self._read(owner).get(name) if owner in self._cells else None

    def find(self, module: str, signal: str) -> str:
        """Where a signal of a unit is written: "hw/dma/fetch.py:31".

        What no file of the generator names, such as a memory's words or the registers of a queue,
        is where the module around it is.
        """
        found = self._module(module)
        if found is None:
            return ""
        plain = _BIT.sub("", signal)
        if source := found.signals.get(plain):
            return source
        words = plain.split(".")
        for length in range(1, len(words)):
            kind = found.cells.get(".".join(words[:length]))
            if kind is not None and (inner := self.find(kind, ".".join(words[length:]))):
                return inner
        return found.source
