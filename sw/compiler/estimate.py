"""What a program will take: the cycle model, as the compiler asks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.hw.config import Config
from tilewright.hw.encoding import Command
from tilewright.sim.cycles import predict


@dataclass(frozen=True)
class Estimate:
    """What the model says of a program.

    Attributes
    ----------
    cycles : int
    busy : dict of str to int
        Busy cycles of each unit.
    """

    cycles: int
    busy: dict[str, int]

    def __add__(self, other: Estimate) -> Estimate:
        """One behind the other."""
        busy = {unit: count + other.busy.get(unit, 0) for unit, count in self.busy.items()}
        return Estimate(self.cycles + other.cycles, busy)


def estimate(program: Iterable[Command], config: Config) -> Estimate:
    """Cycles of a program on the memory figures are given for.

    Scalars of masks do not matter to time, so the program is taken with all of them 0.
    """
    found = predict(program, config)
    return Estimate(
        found.cycles, {unit: reasons["busy"] for unit, reasons in found.counters.items()}
    )
