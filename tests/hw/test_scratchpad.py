"""The scratchpad under traffic on all ports."""

import pytest

from tests.hw.shapes import identify, shape
from tilewright.sim.testbenches.units.cell import run_cell


@pytest.mark.parametrize(
    ("config", "simulator", "cycles"),
    [
        (shape(4, 4, 1), "icarus", 1800),
        (shape(4, 8, 8, sp_banks=8), "icarus", 1800),
        # Banks so large that each is several memories.
        (shape(16, 16, 4, sp_depth=16384), "verilator", 1800),
        pytest.param(shape(16, 16, 2, sp_banks=8), "verilator", 40_000, marks=pytest.mark.slow),
        pytest.param(shape(8, 32, 32), "verilator", 40_000, marks=pytest.mark.slow),
    ],
    ids=identify,
)
def test_traffic(config, simulator, cycles, tmp_path):
    run_cell(
        config,
        "tilewright_scratchpad",
        module="scratchpad",
        simulator=simulator,
        folder=tmp_path,
        cycles=cycles,
    )
