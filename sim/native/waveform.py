"""Signals of an FST waveform as arrays, one value a cycle."""

import copy
from pathlib import Path
from typing import Any, Self

import numpy as np

from tilewright.extras import install
from tilewright.sim.toolchain import ToolchainError

_STEPS = 10
"""Time steps of a cycle in the files of `NativeSimulator.trace`."""


class Waveform:
    """A waveform that `tilewright.sim.native.simulator.NativeSimulator.trace` wrote.

    `waveform[name]` is the value of a signal in every cycle, as the clock edge that ends it sees
    it: bool for one bit, int64 up to 63 bits, Python integers beyond; all unsigned.

    Parameters
    ----------
    path : Path
    top : str
        Scope that names are relative to; dots lead to what is inside.

    Attributes
    ----------
    cycles : range
        Cycles of the simulation that arrays hold.

    Raises
    ------
    KeyError
        If there is no signal of a name.
    ToolchainError
        If pywellen is missing.

    Examples
    --------
    >>> from pathlib import Path
    >>> import tilewright as tw
    >>> with tw.Device("verilator", tw.preset("tiny"), trace=True) as device:  # doctest: +SKIP
    ...     device.transport.trace(Path("run.fst"))
    ...     result = device.run_program(program, regions)
    >>> tw.Waveform(Path("run.fst"))["irq"].sum()  # doctest: +SKIP
    """

    def __init__(self, path: Path, *, top: str = "TOP.tilewright") -> None:
        self.path = path
        self.top = top
        try:
            import pywellen
        except ImportError:
            raise ToolchainError(
                f"reading a waveform needs pywellen; type: {install('waves')}"
            ) from None
        file = pywellen.Waveform(str(path))
        self._variables = {variable.full_name: variable for variable in file.all_vars()}
        edges = [time for time, _ in self._variable("clk").signal]
        self.cycles = range(edges[0] // _STEPS, edges[-1] // _STEPS + 1)

    def cut(self, first: int, last: int) -> Self:
        """The cycles `first` … `last` − 1 of it, counted from its own first one."""
        part = copy.copy(self)
        part.cycles = self.cycles[first:last]
        return part

    def _variable(self, name: str) -> Any:
        try:
            return self._variables[f"{self.top}.{name}"]
        except KeyError:
            raise KeyError(f"{self.path.name} has no signal {self.top}.{name}") from None

    def __getitem__(self, name: str) -> np.ndarray:
        variable = self._variable(name)
        # (time, value) of each change: of inputs at the start of a cycle, of registers half way.
        times, values = zip(*variable.signal, strict=True)
        place = np.searchsorted(times, np.array(self.cycles) * _STEPS, side="right") - 1
        kind = object if variable.bitwidth > 63 else np.int64
        found = np.array(values, dtype=kind)[np.maximum(place, 0)]
        return found.astype(bool) if variable.bitwidth == 1 else found
