"""The whole core in RTL against the instruction-set simulator: random programs, all of memory."""

import pytest

from tests.random_runs import check_in_rtl
from tilewright.hw.config import Config, preset_config
from tilewright.sim.native.simulator import BusOptions
from tilewright.sim.random_program import KINDS, random_program
from tilewright.sw.driver.simulators import simulator_library

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
            check_in_rtl(simulator_library(config), program, bus)


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
