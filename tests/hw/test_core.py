"""The whole core in RTL against the instruction-set simulator: random programs, all of memory."""

import numpy as np
import pytest

from hw.config import Config, preset_config
from hw.registers import CONTROL_START, COUNTERS, REGISTERS, STATUS_DONE
from sim.native.simulator import BusOptions, NativeSimulator
from sim.random_program import KINDS, RandomProgram, random_program
from sw.driver.simulators import simulator_library
from tests.mismatch import assert_same_memory

PAGE = 4096
CYCLES = 2_000_000

ODD = {
    "8x16": "rows=8 columns=16 lanes=16 axi_data_width=64 sp_depth=256",
    "16x4l1": "rows=16 columns=4 lanes=1 axi_data_width=128 sp_depth=256 queue_depth=2",
    "4x8wide": "rows=4 columns=8 lanes=8 axi_data_width=256 sp_depth=256 queue_depth=1 "
    "functions=gelu,silu,tanh acc_banks=2 acc_depth=64",
    "8x8w4": "rows=8 columns=8 lanes=2 weight_bits=4 sp_banks=4 sp_depth=512 axi_outstanding=1 "
    "axi_max_burst=1 axi_addr_width=33",
    "16x16": "rows=16 columns=16 lanes=8 axi_data_width=128 sp_depth=256",
}


def odd(name: str) -> Config:
    return preset_config("tiny").with_settings([f"name=c{name}", *ODD[name].split()])


def write(sim: NativeSimulator, name: str, value: int) -> None:
    sim.write32(REGISTERS[name].address, value & 0xFFFFFFFF)


def read64(sim: NativeSimulator, name: str) -> int:
    low, high = (sim.read32(REGISTERS[f"{name}_{half}"].address) for half in ("LO", "HI"))
    return high << 32 | low


def run_in_rtl(config: Config, program: RandomProgram, bus: BusOptions) -> np.ndarray:
    """DRAM after the run; every unit's counters add up to the run's cycles."""
    size = -(-max(len(program.memory), PAGE) // PAGE) * PAGE
    with NativeSimulator(simulator_library(config), bus=bus, memory=((0, size),)) as sim:
        sim.write_memory(0, program.memory)
        for region, (base, limit) in program.regions.items():
            for name, value in (("BASE", base), ("LIMIT", limit)):
                write(sim, f"{name}{region}_LO", value)
                write(sim, f"{name}{region}_HI", value >> 32)
        for index, value in enumerate(program.scalars):
            write(sim, f"SCALAR{index}", value)
        write(sim, "PROGRAM_OFFSET", program.program_offset)
        write(sim, "PROGRAM_COUNT", len(program.commands))
        write(sim, "WATCHDOG", 20_000)
        write(sim, "IRQ_ENABLE", 1)
        write(sim, "CONTROL", CONTROL_START)
        assert sim.run(CYCLES, until_interrupt=True), f"not done after {CYCLES} cycles"
        assert sim.read32(REGISTERS["STATUS"].address) == STATUS_DONE
        assert sim.read32(REGISTERS["COMMANDS"].address) == len(program.commands)
        cycles = read64(sim, "CYCLES")
        for unit, reasons in COUNTERS.items():
            counted = sum(read64(sim, f"COUNT_{unit}_{reason}".upper()) for reason in reasons)
            assert counted == cycles, f"counters of {unit}"
        return sim.read_memory(0, len(program.memory))


def check(config: Config, kind: str, seeds: range) -> None:
    for seed in seeds:
        for corner in (False, True):
            program = random_program(config, seed, kind=kind, commands=10, corner=corner)
            bus = BusOptions(
                latency=(1, 50) if seed % 2 else 30,
                back_pressure=0.2 if seed % 3 == 0 else 0.0,
                interleave=bool(seed % 2),
                seed=seed,
                outstanding=config.axi_outstanding,
                max_burst=config.axi_max_burst,
            )
            got = run_in_rtl(config, program, bus)
            assert_same_memory(program, got)


@pytest.mark.parametrize("kind", KINDS)
def test_tiny(kind):
    check(preset_config("tiny"), kind, range(8))


def test_odd_array():
    check(odd("8x16"), "mixed", range(8))


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd(name):
    for kind in KINDS:
        check(odd(name), kind, range(10, 20))
