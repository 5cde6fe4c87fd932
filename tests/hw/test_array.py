"""The systolic array and its element against NumPy."""

import pytest

from tests.hw.shapes import identify, shape
from tilewright.sim.testbenches.units.cell import run_cell

CASES = [
    (shape(4, 4), "icarus"),
    (shape(8, 16), "icarus"),
    (shape(16, 4, weight_bits=4), "icarus"),
    pytest.param(shape(32, 32), "verilator", marks=pytest.mark.slow),
    pytest.param(shape(4, 64, weight_bits=2), "verilator", marks=pytest.mark.slow),
    pytest.param(shape(4, 4), "verilator", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("config", "simulator"), CASES, ids=identify)
def test_sums(config, simulator, tmp_path):
    run_cell(
        config,
        "tilewright_array",
        module="array",
        simulator=simulator,
        folder=tmp_path,
        tests=["sums"],
        tiles=24,
    )


@pytest.mark.parametrize("bits", [8, 3])
def test_element(bits, tmp_path):
    config = shape(16, 4, weight_bits=bits)
    run_cell(
        config,
        f"tilewright_pe_w{bits}_p{config.psum_bits}",
        module="array",
        simulator="icarus",
        folder=tmp_path,
        tests=["element"],
    )
