"""A lane of the vector unit against the independent vectors and the formula."""

import pytest

from tests.hw.shapes import VECTORS, shape
from tilewright.hw.config import ACTIVATION_FUNCTIONS
from tilewright.hw.vector import lane
from tilewright.sim.testbenches.units.cell import run_cell

CONFIG = shape(4, 4, functions=ACTIVATION_FUNCTIONS)
STAGES = {
    "acc": 0,
    "operand": 0,
    "pre_multiplier": lane.STAGE_PRE,
    "f1": lane.STAGE_F1,
    "row_multiplier": lane.STAGE_MULTIPLIER,
    "row_shift": lane.STAGE_SHIFT,
    "keep": lane.STAGE_MASK,
    "multiplier": lane.STAGE_MULTIPLIER,
    "shift": lane.STAGE_SHIFT,
    "bias": lane.STAGE_BIAS,
    "affine": lane.STAGE_AFFINE,
    "channel": lane.STAGE_CHANNEL,
}


def run(simulator, folder, tests, config=CONFIG, norms=(), combinations=0):
    run_cell(
        config,
        "tilewright_lane",
        module="lane",
        simulator=simulator,
        folder=folder,
        tests=tests,
        latency=lane.LANE_LATENCY,
        stages=STAGES,
        vectors=VECTORS,
        norms=norms,
        combinations=combinations,
    )


def test_icarus(tmp_path):
    tests = ["combinations", "requantize"]
    run("icarus", tmp_path, tests, shape(4, 4, functions=("silu",)), combinations=60)


def test_verilator(tmp_path):
    tests = ["combinations", "requantize", "softmax_and_context", "norms", "activations"]
    run("verilator", tmp_path, tests, norms=["layernorm96", "rmsnorm96"], combinations=200)


@pytest.mark.slow
def test_all(tmp_path):
    norms = ["layernorm384", "layernorm768", "layernorm1024", "layernorm4096"]
    norms += ["rmsnorm1024", "rmsnorm4096"]
    run("verilator", tmp_path, ["combinations", "norms"], norms=norms, combinations=1 << 20)
