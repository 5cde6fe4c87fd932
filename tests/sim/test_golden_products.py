"""Matrix products and requantization against the independent vectors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sim.golden_vectors import same, vector
from tilewright.sim import golden
from tilewright.sim.golden import Fmt


@pytest.mark.parametrize("name", ["mmu8", "mms8"])
def test_matmul_bytes(name: str) -> None:
    acc = golden.matmul(vector(f"{name}_x"), vector(f"{name}_w"))
    assert acc.dtype == np.int32
    same(acc, f"{name}_acc")


def test_matmul_16x8() -> None:
    h, low = golden.matmul_16x8(vector("mm16x8_x"), vector("mm16x8_w"))
    same(h, "mm16x8_h")
    same(low, "mm16x8_l")
    same(golden.combine_16x8(h, low), "mm16x8_acc")


@pytest.mark.parametrize("name", ["mm16x16", "mm16x16k"])
def test_matmul_16x16(name: str) -> None:
    hh, mid, ll = golden.matmul_16x16(vector(f"{name}_x"), vector(f"{name}_w"))
    same(hh, f"{name}_hh")
    same(mid, f"{name}_mid")
    same(ll, f"{name}_ll")
    same(golden.combine_16x16(hh, mid, ll), f"{name}_acc")


@pytest.mark.parametrize("k", [1, 511, 515, 1024, 1025, 1536, 4096])
def test_matmul_batched_equals_integers(k: int) -> None:
    """The pieces of the floating-point product, with a batch axis, against int64."""
    rng = np.random.default_rng(k)
    x = rng.integers(-256, 256, (2, 3, k))
    w = rng.integers(-128, 128, (2, k, 5))
    x[0, 0], w[0, :, 0] = 255, 127
    assert np.array_equal(golden.matmul(x, w), np.matmul(x, w))


def test_matmul_refusals() -> None:
    with pytest.raises(ValueError, match="256"):
        golden.matmul(np.array([[256]]), np.array([[1]]))
    with pytest.raises(ValueError, match="weight 128"):
        golden.matmul(np.array([[1]]), np.array([[128]]))
    with pytest.raises(ValueError, match="4097"):
        golden.matmul(np.ones((1, 4097), np.int8), np.ones((4097, 1), np.int8))
    with pytest.raises(ValueError, match="K = 2"):
        golden.matmul(np.ones((1, 2), np.int8), np.ones((3, 1), np.int8))


def test_requant_row() -> None:
    m, e = vector("requant_row_m"), vector("requant_row_e")
    mult, sh, bias = (vector(f"requant_row_{n}") for n in ("M", "sh", "B"))
    t = golden.requant_row(vector("requant_row_acc"), m, e, mult, sh)
    same(t, "requant_row_t")
    same(golden.finish(t, bias, Fmt.S8), "requant_row_y8")
    same(golden.finish(t, bias, Fmt.S16), "requant_row_y16")
    # Hardware may saturate t to s32; the result must not change.
    clipped = np.clip(t, -(2**31), 2**31 - 1)
    same(golden.finish(clipped, bias, Fmt.S16), "requant_row_y16")


def test_requant_static() -> None:
    mult, sh, bias = (vector(f"requant_static_{n}") for n in ("M", "sh", "B"))
    t = golden.requant_static(vector("requant_static_acc"), mult, sh)
    same(t, "requant_static_t")
    same(golden.finish(t, bias, Fmt.S8), "requant_static_y8")
    same(golden.finish(t, bias, Fmt.S16), "requant_static_y16")
    same(golden.finish(t, bias, Fmt.SYM16), "requant_static_ysym")


def test_residual() -> None:
    names = ("acc", "M", "sh", "B", "r", "R", "sR")
    acc, mult, sh, bias, r, factor, shift = (vector(f"residual_{n}") for n in names)
    rterm, z = [], []
    for i in range(len(acc)):
        t = golden.requant_row(acc[i], vector("residual_m"), vector("residual_e"), mult[i], sh[i])
        rterm.append(golden.residual_term(r[i], factor[i], int(shift[i])))
        z.append(golden.finish(t, bias[i], Fmt.S16, rterm[-1]))
    same(np.stack(rterm), "residual_rterm")
    same(np.stack(z), "residual_z")


def test_requant_refuses_negative_shift() -> None:
    acc = np.ones((1, 1), np.int32)
    with pytest.raises(ValueError, match="shift -1"):
        golden.requant_row(acc, np.array([4]), np.array([9]), 40000, 8)
    with pytest.raises(ValueError, match="shift -1"):
        golden.requant_static(acc, 40000, 7)
    with pytest.raises(ValueError, match="mantissa 3"):
        golden.requant_row(acc, np.array([3]), np.array([0]), 40000, 9)
