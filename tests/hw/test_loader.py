"""The weight loader in front of a scratchpad that refuses, and its transposer."""

import pytest

from tests.hw.shapes import identify, shape
from tilewright.hw.systolic.matmul import ISSUE_TO_ARRAY
from tilewright.sim.testbenches.units.cell import run_cell

SHAPES = [shape(4, 4), shape(8, 16), shape(16, 4, weight_bits=4)]


@pytest.mark.parametrize(
    ("config", "simulator", "commands"),
    [
        *((config, "icarus", 10) for config in SHAPES),
        pytest.param(shape(8, 8), "verilator", 60, marks=pytest.mark.slow),
        pytest.param(shape(4, 32), "verilator", 60, marks=pytest.mark.slow),
        pytest.param(shape(32, 4), "verilator", 60, marks=pytest.mark.slow),
    ],
    ids=identify,
)
def test_loader(config, simulator, commands, tmp_path):
    run_cell(
        config,
        "tilewright_weight_loader",
        module="loader",
        simulator=simulator,
        folder=tmp_path,
        tests=["tiles", "pace"],
        feeder_latency=ISSUE_TO_ARRAY,
        commands=commands,
    )


@pytest.mark.parametrize("config", SHAPES[1:], ids=identify)
def test_transposer(config, tmp_path):
    run_cell(
        config,
        "tilewright_transposer",
        module="loader",
        simulator="icarus",
        folder=tmp_path,
        tests=["transposer"],
    )
