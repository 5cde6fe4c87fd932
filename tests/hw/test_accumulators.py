"""The accumulators: read-modify-write at its least distance, the vector unit's port."""

import pytest

from tests.hw.shapes import identify, shape
from tilewright.hw.memories.accumulator import Accumulators
from tilewright.sim.testbenches.units.cell import run_cell


def test_column(tmp_path):
    config = shape(64, 4)  # the widest sums, so that s32 wraps soon
    run_cell(
        config,
        Accumulators(config).column.cell_name,
        module="accumulators",
        simulator="icarus",
        folder=tmp_path,
        tests=["column"],
        cycles=4000,
    )


@pytest.mark.parametrize(
    ("config", "simulator", "cycles"),
    [
        (shape(4, 4), "icarus", 2500),
        (shape(8, 16, acc_banks=2), "icarus", 2000),
        pytest.param(shape(16, 32), "verilator", 20_000, marks=pytest.mark.slow),
    ],
    ids=identify,
)
def test_columns(config, simulator, cycles, tmp_path):
    run_cell(
        config,
        "tilewright_accumulators",
        module="accumulators",
        simulator=simulator,
        folder=tmp_path,
        tests=["columns", "maxima"],
        cycles=cycles,
    )
