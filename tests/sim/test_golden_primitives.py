"""Tables, primitives, row scale and feeder against the independent vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.sim.golden_vectors import same, vector
from tilewright.hw import tables
from tilewright.sim import golden
from tilewright.sim.golden import Fmt


def test_tables() -> None:
    same(tables.EXP2, "tab_exp2")
    same(tables.RSQRT, "tab_rsqrt")
    same(tables.GELU.values, "tab_gelu")
    same(tables.SILU.values, "tab_silu")
    same(tables.TANH.values, "tab_tanh")
    same([tables.INVERSE_MANTISSA[m] for m in (4, 5, 6, 7)], "tab_F")


@pytest.mark.parametrize("table", tables.ACTIVATIONS.values(), ids=lambda t: t.name)
def test_activation_table_shape(table: tables.ActivationTable) -> None:
    assert len(table.values) == table.segments + 1
    assert table.hi - table.lo == table.segments << table.lg
    assert not table.values.flags.writeable


def test_tables_do_not_hang_on_libm() -> None:
    """No entry is so near a rounding tie that another libm could give another integer."""
    exact = [65535 * 2.0 ** (-i / 64) for i in range(64)]
    exact += [65536 * math.sqrt(64 / i) for i in range(64, 257)]
    for bound, f in ((8, math.tanh), (16, lambda x: x / (1 + math.exp(-x)))):
        exact += [1024 * f(-bound + j / 8) for j in range(16 * bound + 1)]
    exact += [512 * (j / 8 - 8) * (1 + math.erf((j / 8 - 8) / math.sqrt(2))) for j in range(129)]
    margin = min(abs(x - math.floor(x) - 0.5) for x in exact)
    assert margin > 1e-4, margin


def test_rsh() -> None:
    same(golden.rsh(vector("rsh_x"), vector("rsh_s")), "rsh_y")


@pytest.mark.parametrize(("fmt", "name"), [("S8", "y8"), ("S16", "y16"), ("SYM16", "ysym")])
def test_saturate(fmt: str, name: str) -> None:
    y = golden.saturate(vector("sat_x"), Fmt[fmt])
    assert y.dtype == Fmt[fmt].dtype
    same(y, f"sat_{name}")


def test_balanced_bytes() -> None:
    h, low = golden.balanced_bytes(vector("bytes_x"))
    same(h, "bytes_h")
    same(low, "bytes_l")


def test_expand_w4() -> None:
    same(golden.expand_w4(vector("w4_w4"), vector("w4_g")), "w4_w8")


def test_row_scale() -> None:
    m, e = golden.row_scale(vector("row_scale_a"))
    same(m, "row_scale_m")
    same(e, "row_scale_e")


def test_row_scale_is_the_largest_that_fits() -> None:
    """The rule's own words, by search, at every magnitude where the pair changes and around."""
    m, e = golden.row_scale(np.arange(32769))
    turn = np.flatnonzero(np.diff(m.astype(int) + 8 * e.astype(int)))
    for a in sorted({0, 32768, *turn.tolist(), *(turn + 1).tolist()}):
        fits = [
            (mm * 2.0**-ee, mm, ee)
            for mm in (4, 5, 6, 7)
            for ee in range(10)
            if int(golden.rsh(a * mm, ee + 2)) <= 127
        ]
        assert (int(m[a]), int(e[a])) == max(fits)[1:], a


def test_feed8() -> None:
    x = vector("feed8_x")
    m, e = golden.row_scale(golden.row_max(x))
    same(m, "feed8_m")
    same(e, "feed8_e")
    same(golden.feed8(x, m, e), "feed8_x8")


def test_feed8_forced() -> None:
    x8 = golden.feed8(vector("feed8f_x"), vector("feed8f_m"), vector("feed8f_e"))
    same(x8, "feed8f_x8")


def test_floor_log2_exact() -> None:
    powers = np.int64(1) << np.arange(62)
    assert golden.floor_log2(powers).tolist() == list(range(62))
    assert golden.floor_log2(powers[1:] - 1).tolist() == list(range(61))
    assert golden.bit_length(np.array([0, 1, 2, 3, 4])).tolist() == [0, 1, 2, 2, 3]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="shift -1"):
        golden.rsh(np.array([1]), -1)
    with pytest.raises(ValueError, match="62"):
        golden.rsh(np.array([1]), 62)
    with pytest.raises(ValueError, match="32640"):
        golden.balanced_bytes(np.array([32640]))
    with pytest.raises(ValueError, match="32769"):
        golden.row_scale(np.array([32769]))
    with pytest.raises(ValueError, match="16"):
        golden.expand_w4(np.zeros((32, 1), np.int8), np.full((1, 1), 16, np.uint8))
    with pytest.raises(TypeError, match="float64"):
        golden.rsh(np.array([1.5]), 1)
