"""Products of arrays of any shape: exact, and equal to the golden functions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sw.arrays import BOUNDS, TINY, TYPES, draw
from tilewright.hw.config import Config
from tilewright.sim import golden
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.operations.matmul import K_MAX
from tilewright.sw.driver import Device, arrays
from tilewright.sw.errors import UserError
from tilewright.sw.program import InputError


def exact(a, b):
    """The product in Python's own integers' width."""
    return np.matmul(a.astype(np.int64), b.astype(np.int64))


def check_matmul(device, a, b):
    y = device.matmul(a, b)
    wide = a.dtype == np.int16 or b.dtype != np.int8 or a.shape[-1] > K_MAX
    assert y.dtype == (np.int64 if wide else np.int32)
    np.testing.assert_array_equal(y, exact(a, b))
    return y


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 40),
    k=st.integers(1, 60),
    n=st.integers(1, 40),
    a=st.sampled_from(TYPES),
    b=st.sampled_from(TYPES),
    which=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_matmul_of_any_shape(machines, m, k, n, a, b, which, seed):
    rng = np.random.default_rng(seed)
    check_matmul(machines[which], draw(rng, a, m, k), draw(rng, b, k, n))


@pytest.mark.parametrize(
    ("a", "b"), [("int8", "int8"), ("uint8", "int8"), ("int16", "int8"), ("int16", "int16")]
)
def test_matmul_is_the_golden_product(checked, a, b):
    rng = np.random.default_rng(7)
    x, w = draw(rng, a, 21, 77), draw(rng, b, 77, 10)
    # Above 32639 the golden bytes end; the driver goes on.
    x, w = x.clip(max=min(32639, x.max())), w.clip(max=min(32639, w.max()))
    y = checked.matmul(x, w)
    if b == "int16":
        expected: np.ndarray = golden.combine_16x16(*golden.matmul_16x16(x, w))
    elif a == "int16":
        expected = golden.combine_16x8(*golden.matmul_16x8(x, w))
    else:
        expected = golden.matmul(x, w)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("a", "b"), [("int8", "int8"), ("uint8", "int8"), ("int16", "int16")])
def test_largest_sums(checked, a, b):
    """Every product at its extreme, over the longest K of a program and one more."""
    for k in (4096, 4097):
        for low, high in ((BOUNDS[a][0], BOUNDS[b][0]), (BOUNDS[a][1] - 1, BOUNDS[b][0])):
            check_matmul(checked, np.full((2, k), low, a), np.full((k, 3), high, b))


def test_long_sums_are_added_on_the_host(machines):
    rng = np.random.default_rng(11)
    a, b = draw(rng, "uint8", 3, K_MAX + 5), draw(rng, "int8", K_MAX + 5, 2)
    assert check_matmul(machines[-1], a, b).dtype == np.int64


@pytest.mark.parametrize("kinds", [("int8", "int8"), ("int16", "int16")])
def test_matmul_larger_than_the_scratchpad(checked, kinds):
    rng = np.random.default_rng(12)
    a, b = draw(rng, kinds[0], 131, 300), draw(rng, kinds[1], 300, 205)
    assert a.size * a.itemsize + b.size * b.itemsize > TINY.sp_bytes
    assert a.shape[0] * b.shape[1] > TINY.acc_words * TINY.columns
    check_matmul(checked, a, b)


def test_pieces(checked, monkeypatch):
    """What is too large for one program is put together from several."""
    for name, size in (("PIECE_ROWS", 7), ("PIECE_COLUMNS", 5), ("PIECE_K", 11)):
        monkeypatch.setattr(arrays, name, size)
    rng = np.random.default_rng(13)
    check_matmul(checked, draw(rng, "int16", 17, 25), draw(rng, "int16", 25, 12))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((4, 5), (5,)),
        ((2, 3, 4, 5), (5, 6)),
        ((2, 3, 4, 5), (3, 5, 6)),
        ((4, 5), (2, 5, 6)),
        ((2, 1, 4, 5), (1, 3, 5, 2)),
        ((5,), (2, 5, 6)),
        ((2, 4, 5), (2, 5, 0)),
        ((0, 5), (5, 3)),
        ((4, 0), (0, 3)),
        ((0, 4, 5), (5, 6)),
        ((0, 4, 5), (0, 5, 6)),
    ],
)
def test_shapes_are_numpys(checked, a, b):
    rng = np.random.default_rng(14)
    x, w = draw(rng, "int8", *a), draw(rng, "int8", *b)
    y = checked.matmul(x, w)
    np.testing.assert_array_equal(y, exact(x, w))
    assert y.shape == exact(x, w).shape


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (
            np.zeros((2, 3)),
            np.zeros((3, 2), np.int8),
            "a: expected an array of int8, .* got float64",
        ),
        (
            np.zeros((2, 3), np.int8),
            np.zeros((3, 2), int),
            "b: expected an array of int8, .* got int64",
        ),
        (np.zeros((2, 3), np.int8), np.zeros((2, 3), np.int8), r"shapes \(2, 3\) and \(2, 3\)"),
        (np.int8(3), np.zeros((2, 3), np.int8), r"shapes \(\) and \(2, 3\)"),
        (np.zeros((2, 4, 3), np.int8), np.zeros((3, 3, 2), np.int8), r"batches \(2,\) and \(3,\)"),
    ],
)
def test_products_that_are_refused(checked, a, b, text):
    with pytest.raises(InputError, match=text) as caught:
        checked.matmul(a, b)
    assert isinstance(caught.value, UserError)


def test_narrow_weights():
    config = Config.from_dict({**TINY.to_dict(), "name": "narrow", "weight_bits": 4})
    rng = np.random.default_rng(15)
    with Device("iss", config, check=True) as device:
        b = rng.integers(-8, 8, (20, 9)).astype(np.int8)
        check_matmul(device, draw(rng, "int16", 7, 20), b)
        with pytest.raises(InputError, match="weight_bits = 4 of narrow holds -8 to 7"):
            device.matmul(draw(rng, "int8", 7, 20), b * 2)
        with pytest.raises(CompileError, match="16-bit b needs weight_bits 8, it is 4"):
            device.matmul(draw(rng, "int8", 7, 20), b.astype(np.int16))


@pytest.mark.parametrize(("a", "b"), [(a, b) for a in TYPES for b in ("int8", "int16")])
def test_matmul_in_rtl(rtl, a, b):
    rng = np.random.default_rng(51)
    for m, k, n in ((1, 1, 1), (3, 7, 5), (18, 50, 33), (70, 9, 4)):
        check_matmul(rtl, draw(rng, a, m, k), draw(rng, b, k, n))
    assert rtl.read("CYCLES") > 0
