"""A random program and all that a run of it needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilewright.hw.config import Config
from tilewright.hw.encoding import Command
from tilewright.sim.iss import IssMachine


@dataclass
class RandomProgram:
    """A program with all that a run of it needs.

    Attributes
    ----------
    config : Config
    name : str
        Kind, seed and distribution: what makes it again.
    commands : list of Command
        BEGIN and END included.
    memory : uint8 [n]
        DRAM from address 0 before the run, the program in it.
    regions : dict of region to (base, limit)
    program_offset : int
    scalars : list of int
    expected : uint8 [n]
        DRAM after the run, by the instruction-set simulator.
    """

    config: Config
    name: str
    commands: list[Command]
    memory: npt.NDArray[np.uint8]
    regions: dict[int, tuple[int, int]]
    program_offset: int
    scalars: list[int]
    expected: npt.NDArray[np.uint8] = field(repr=False)

    def machine(self, memory: npt.NDArray[np.uint8], *, check: bool = False) -> IssMachine:
        """A simulator with registers set and a memory attached."""
        machine = IssMachine(self.config, memory, check=check)
        for region, (base, limit) in self.regions.items():
            machine.set_region(region, base, limit)
        machine.scalars = list(self.scalars)
        return machine

    def run(self, *, check: bool = False) -> npt.NDArray[np.uint8]:
        """Run it from its bytes on a fresh simulator and return DRAM."""
        memory = self.memory.copy()
        machine = self.machine(memory, check=check)
        machine.run(offset=self.program_offset, count=len(self.commands))
        return memory
