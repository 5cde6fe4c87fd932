"""The row unit: division, reciprocal square root, scale rows in and out."""

import pytest

from tests.hw.shapes import VECTORS, identify, shape
from tilewright.sim.testbenches.units.cell import run_cell

NORMS = [
    *(f"layernorm{n}" for n in (96, 384, 768, 1024, 4096)),
    *(f"rmsnorm{n}" for n in (96, 1024, 4096)),
]


@pytest.mark.parametrize(
    ("config", "simulator", "rows"),
    [
        (shape(8, 4, row_engines=1), "icarus", 120),
        (shape(4, 4, row_engines=3), "icarus", 60),
        pytest.param(shape(4, 16), "verilator", 4000, marks=pytest.mark.slow),
    ],
    ids=identify,
)
def test_row_unit(config, simulator, rows, tmp_path):
    run_cell(
        config,
        "tilewright_row_unit",
        module="row_unit",
        simulator=simulator,
        folder=tmp_path,
        vectors=VECTORS,
        norms=NORMS,
        rows=rows,
    )
