"""The VECTOR unit: random commands behind refused ports, and those of a real MiniLM layer."""

import pytest

from tests.hw.recordings import arrays_of, config
from tests.hw.shapes import identify, shape
from tilewright.hw.config import ACTIVATION_FUNCTIONS
from tilewright.hw.memories.row_table import SCALE_LATENCY
from tilewright.sim.testbenches.units.cell import run_cell

SHAPES = [
    shape(4, 4, 1),
    shape(4, 8, 8, functions=("tanh",)),
    shape(16, 4, 4, functions=()),
]


def run(machine, simulator, folder, tests, **more):
    run_cell(
        machine,
        "tilewright_vector",
        module="vector",
        simulator=simulator,
        folder=folder,
        tests=tests,
        scale_latency=SCALE_LATENCY,
        **more,
    )


@pytest.mark.parametrize("machine", SHAPES, ids=identify)
def test_icarus(machine, tmp_path):
    run(machine, "icarus", tmp_path, ["random_commands", "short_groups"], commands=14)


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine",
    [*SHAPES, shape(8, 16, 16), shape(8, 8, 4, functions=ACTIVATION_FUNCTIONS), shape(4, 32, 2)],
    ids=identify,
)
def test_verilator(machine, tmp_path):
    run(machine, "verilator", tmp_path, ["random_commands", "short_groups"], commands=400)


def test_minilm(tmp_path):
    arrays = arrays_of(("VECTOR", "ROW"))
    run(config(), "verilator", tmp_path, ["replay"], arrays=arrays)
