"""The MATMUL unit with its accumulators: hazards, long K, back-pressure, operands of MiniLM."""

import pytest

from tests.hw.recordings import arrays_of, config
from tests.hw.shapes import identify, shape
from tests.hw.wrappers import MatmulBench
from tilewright.hw.generate import cell_verilog
from tilewright.hw.memories.row_table import SCALE_LATENCY
from tilewright.sim.testbenches.units.cell import run_cell

SHAPES = [shape(4, 4, acc_depth=16), shape(8, 4, weight_bits=4), shape(4, 8)]
WIDE = [shape(16, 4), shape(8, 16), shape(8, 8), shape(4, 32)]


def run(machine, simulator, folder, tests, **more):
    cell = MatmulBench(machine)
    run_cell(
        machine,
        cell.cell_name,
        text=cell_verilog(cell),
        module="matmul",
        simulator=simulator,
        folder=folder,
        tests=tests,
        scale_latency=SCALE_LATENCY,
        **more,
    )


@pytest.mark.parametrize("machine", SHAPES, ids=identify)
def test_icarus(machine, tmp_path):
    run(machine, "icarus", tmp_path, ["random_commands", "hazards"], commands=5)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [*SHAPES, *WIDE], ids=identify)
def test_verilator(machine, tmp_path):
    tests = ["random_commands", "hazards", "long_k"]
    run(machine, "verilator", tmp_path, tests, commands=60, signs=2)


def test_long_k(tmp_path):
    run(shape(4, 4), "icarus", tmp_path, ["long_k"], signs=1)


def test_minilm(tmp_path):
    run(config(), "icarus", tmp_path, ["replay"], arrays=arrays_of(("MATMUL",)))
