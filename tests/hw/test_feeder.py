"""The activation feeder against golden feed8, and the row scale for every magnitude."""

import pytest

from tests.hw.shapes import VECTORS, identify, shape
from tilewright.sim.testbenches.units.cell import run_cell


def test_lane(tmp_path):
    run_cell(
        shape(4, 4),
        "tilewright_feeder_lane",
        module="feeder",
        simulator="icarus",
        folder=tmp_path,
        tests=["lane"],
        vectors=VECTORS,
    )


@pytest.mark.parametrize(
    ("config", "simulator", "step"),
    [
        (shape(16, 4), "icarus", 331),
        (shape(4, 16), "icarus", 331),
        pytest.param(shape(32, 8), "verilator", 1, marks=pytest.mark.slow),
        pytest.param(shape(4, 4), "verilator", 97, marks=pytest.mark.slow),
    ],
    ids=identify,
)
def test_feeder(config, simulator, step, tmp_path):
    run_cell(
        config,
        "tilewright_feeder",
        module="feeder",
        simulator=simulator,
        folder=tmp_path,
        tests=["feeder"],
        step=step,
    )


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_row_scale(simulator, tmp_path):
    run_cell(
        shape(4, 4),
        "tilewright_row_scale",
        module="feeder",
        simulator=simulator,
        folder=tmp_path,
        tests=["row_scale"],
    )
