"""What the driver needs of a backend.

Accesses happen in the order of the calls: what `write_memory` was given is in memory before a later
`write32` starts a run, and `read_memory` after `wait` sees what the machine wrote. Memory may be
written while a run is under way.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tilewright.sim.trace import Span


@runtime_checkable
class Transport(Protocol):
    """Registers, memory and the interrupt of one machine.

    Attributes
    ----------
    name : str
        Of the backend.
    memory_range : (int, int)
        First byte and size of the memory the driver may use.
    """

    name: str
    memory_range: tuple[int, int]

    def read32(self, address: int) -> int:
        """Read the register at a byte offset."""

    def write32(self, address: int, value: int) -> None:
        """Write the register at a byte offset."""

    def read_memory(self, address: int, length: int) -> npt.NDArray[np.uint8]:
        """Copy bytes out of the memory."""

    def write_memory(self, address: int, data: npt.ArrayLike) -> None:
        """Copy an array's bytes into the memory."""

    def wait(self, cycles: int, progress: Callable[[int], None] | None = None) -> bool:
        """Wait for the interrupt, at most `cycles`; whether it is there, at once if it already is.

        `progress` is told now and then how many have passed.
        """

    def reset(self) -> None:
        """Assert the hardware's reset; memory stays."""

    def close(self) -> None:
        """Give the machine back."""


@runtime_checkable
class Recorder(Protocol):
    """What a transport may be besides: one that records what commands did and when."""

    def spans(self) -> tuple[Span, ...]:
        """Commands of the last run in program order; empty where nothing was recorded."""
