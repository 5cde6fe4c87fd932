"""Random programs on the RTL: started, watched and counted by the driver."""

from pathlib import Path

import numpy as np

from tests.mismatch import assert_same_memory
from tilewright.hw.commands import COMMAND_BYTES, PROGRAM_REGION
from tilewright.sim.native.simulator import BusOptions, NativeSimulator
from tilewright.sim.random_program import RandomProgram
from tilewright.sw.driver.machine import Launch, Machine, RunResult

PAGE = 4096
CYCLES = 5_000_000
WATCHDOG = 20_000


def run_in_rtl(
    library: Path, program: RandomProgram, bus: BusOptions, *, runs: int = 1
) -> tuple[np.ndarray, list[RunResult]]:
    """DRAM after the last run, and the result of each; the units' counters add up to its cycles."""
    size = -(-len(program.memory) // PAGE) * PAGE
    start = program.regions[PROGRAM_REGION][0] + program.program_offset
    launch = Launch(
        program=program.memory[start:][: COMMAND_BYTES * len(program.commands)].tobytes(),
        windows={n: (base, limit - base) for n, (base, limit) in program.regions.items()},
        offset=program.program_offset,
        scalars=dict(enumerate(program.scalars)),
        watchdog=WATCHDOG,
        timeout=CYCLES,
    )
    results = []
    with NativeSimulator(library, bus=bus, memory=((0, size),)) as simulator:
        machine = Machine(program.config, simulator)
        for _ in range(runs):
            simulator.write_memory(0, program.memory)
            machine.launch(launch)
            result = machine.finish(launch)
            assert result.commands == len(program.commands)
            for unit, reasons in result.counters.items():
                assert sum(reasons.values()) == result.cycles, f"counters of {unit}"
            results.append(result)
        return simulator.read_memory(0, len(program.memory)), results


def check_in_rtl(library: Path, program: RandomProgram, bus: BusOptions) -> None:
    """Run it; all of DRAM must be what the instruction-set simulator made of it."""
    got, _ = run_in_rtl(library, program, bus)
    assert_same_memory(program, got)
