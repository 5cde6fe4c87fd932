"""Weights to integers: rounding to nearest, groups of 4 bits, GPTQ."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tilewright.hw.commands import GROUP_ROWS
from tilewright.sim.golden import expand_w4
from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize.gptq import gptq
from tilewright.sw.quantize.weights import Weights, nearest

F64 = npt.NDArray[np.float64]


def _problem(seed: int, k: int, n: int, samples: int = 400) -> tuple[F64, F64]:
    """Weights, and operands that are correlated and of uneven power as real ones are."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((k // 4, k)) + 0.3 * rng.standard_normal((k // 4, k))
    x = rng.standard_normal((samples, k // 4)) @ mix + 0.5 * rng.standard_normal((samples, k))
    x *= np.exp(rng.standard_normal(k))
    return rng.standard_normal((k, n)) / k**0.5, x


def _error(found: Weights, w: F64, x: F64) -> float:
    return float(np.square(x @ (found.weight * found.scale - w)).mean())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("k", [64, 80, 200])
@pytest.mark.parametrize("ordered", [False, True])
def test_gptq_beats_nearest(bits: int, k: int, ordered: bool) -> None:
    w, x = _problem(k + bits, k, 24)
    found = gptq(w, x.T @ x / len(x), bits, ordered=ordered)
    assert _error(found, w, x) < 0.7 * _error(nearest(w, bits), w, x)


@pytest.mark.parametrize("bits", [8, 16])
def test_without_correlation_gptq_is_nearest(bits: int) -> None:
    w, _ = _problem(3, 64, 10)
    found, want = gptq(w, np.eye(64), bits), nearest(w, bits)
    np.testing.assert_array_equal(found.weight, want.weight)
    np.testing.assert_array_equal(found.scale, want.scale)


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (16, 32639)])
def test_nearest(bits: int, limit: int) -> None:
    w, _ = _problem(4, 64, 10)
    found = nearest(w, bits)
    assert found.weight.dtype == (np.int8 if bits == 8 else np.int16)
    assert found.groups is None
    np.testing.assert_array_equal(np.abs(found.weight.astype(int)).max(axis=0), limit)
    assert (np.abs(found.weight * found.scale - w) <= found.scale * (0.5 + 1e-9)).all()


@pytest.mark.parametrize("k", [1, 31, 32, 33, 80])
@pytest.mark.parametrize("method", ["nearest", "gptq", "gptq ordered"])
def test_groups(k: int, method: str) -> None:
    """The last group may be short; the expanded weights are what the machine's loader makes."""
    rng = np.random.default_rng(k)
    w = rng.standard_normal((k, 7))
    moment = np.diag(1 + rng.random(k))
    found = nearest(w, 4) if method == "nearest" else gptq(w, moment, 4, ordered="o" in method)
    groups = found.groups
    assert groups is not None
    assert groups.w4.shape == (k, 7)
    assert groups.g.shape == (-(-k // GROUP_ROWS), 7)
    assert groups.w4.min() >= -8
    assert groups.w4.max() <= 7
    assert groups.g.max() <= 15
    rows = len(groups.g) * GROUP_ROWS
    padded = np.zeros((rows, 7), np.int8)
    padded[:k] = groups.w4
    np.testing.assert_array_equal(found.weight, expand_w4(padded, groups.g)[:k])
    error = np.abs(found.weight * found.scale - w).max(axis=0) / np.abs(w).max(axis=0)
    assert (error < 0.2).all()


def test_a_quiet_group_has_a_finer_step() -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((64, 6))
    w[:32] /= 10
    found = nearest(w, 4)
    assert found.groups is not None
    assert (found.groups.g[0] < found.groups.g[1]).all()
    assert np.abs(found.weight[:32] * found.scale - w[:32]).max() < 0.05


def test_silent_columns() -> None:
    """A column of zeros gives zeros, at every width and by both ways."""
    w, x = _problem(6, 64, 4)
    w[:, 2] = 0
    for bits in (4, 8, 16):
        for found in (nearest(w, bits), gptq(w, x.T @ x, bits)):
            assert not found.weight[:, 2].any()
            assert np.isfinite(found.scale).all()
            assert (found.scale > 0).all()


def test_refusals() -> None:
    w = np.ones((4, 2))
    with pytest.raises(ModelError, match=r"shape \(3, 3\), weights have K = 4"):
        gptq(w, np.eye(3), 8)
    with pytest.raises(ModelError, match="cannot be inverted"):
        gptq(w, -np.eye(4), 8)
    # Operands that were always zero are only damped away.
    assert np.isfinite(gptq(w, np.zeros((4, 4)), 8).scale).all()
