"""Random legal programs: what one command class can do, its result visible in DRAM.

A program loads a part of the scratchpad (the arena), gives accumulators, scale rows and statistics
rows values, runs random commands of a kind over it, and stores all of the arena and what can be
made visible of the other memories: accumulators and scale rows exactly, statistics as saturated
views. Commands of different units are ordered by tokens only where they touch the same words, so
that units overlap as much as the program allows. Comparing all of DRAM after a run with
`RandomProgram.expected` compares two machines.
"""

from tilewright.sim.random_program.generate import KINDS, random_program
from tilewright.sim.random_program.program import RandomProgram

__all__ = ["KINDS", "RandomProgram", "random_program"]
