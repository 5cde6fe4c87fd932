"""Softmax, context, activations and norms against the independent vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.sim.golden_vectors import same, vector
from tilewright.sim import golden


def test_softmax() -> None:
    acc = vector("softmax_acc")
    e8, den = [], []
    for i in range(len(acc)):
        valid = golden.valid_columns(
            *acc[i].shape,
            length=int(vector("softmax_length")[i]),
            causal=bool(vector("softmax_causal")[i]),
            row0=int(vector("softmax_row0")[i]),
        )
        top = golden.softmax_max(acc[i], valid)
        ms, shs = int(vector("softmax_Ms")[i]), int(vector("softmax_shs")[i])
        e8.append(golden.softmax_exp(acc[i], top, valid, ms, shs))
        den.append(golden.softmax_den(e8[-1]))
    same(np.stack(e8), "softmax_e8")
    same(np.stack(den), "softmax_den")


def test_softmax_long() -> None:
    acc = vector("softmaxlong_acc")
    ms, shs = (int(x) for x in vector("softmaxlong_Ms_shs"))
    valid = golden.valid_columns(*acc.shape, length=acc.shape[1])
    e8 = golden.softmax_exp(acc, golden.softmax_max(acc, valid), valid, ms, shs)
    same(e8, "softmaxlong_e8")
    same(golden.softmax_den(e8), "softmaxlong_den")


def test_softmax_batched() -> None:
    """A leading head axis gives what the heads give one by one."""
    acc = vector("softmax_acc")[16:20]
    valid = golden.valid_columns(16, 64, length=50)
    whole = golden.softmax_exp(acc, golden.softmax_max(acc, valid), valid, 40000, 24)
    for i, one in enumerate(acc):
        part = golden.softmax_exp(one, golden.softmax_max(one, valid), valid, 40000, 24)
        assert np.array_equal(whole[i], part)


def test_context() -> None:
    n, recip = golden.reciprocal(vector("context_den"))
    same(n, "context_n")
    same(recip, "context_R")
    same(golden.context(vector("context_o"), n, recip), "context_ctx")


def test_context_v16() -> None:
    n, recip = golden.reciprocal(vector("context16_den"))
    same(golden.context(vector("context16_o"), n, recip, v16=True), "context16_ctx")


@pytest.mark.parametrize("name", ["gelu", "silu", "tanh"])
def test_activation(name: str) -> None:
    same(golden.activation(vector("act_x"), name), f"{name}_y")


@pytest.mark.parametrize(("name", "bound"), [("gelu", 0.0018), ("silu", 0.0017), ("tanh", 0.0021)])
def test_activation_error(name: str, bound: float) -> None:
    """Largest error over all s16 inputs, as the contract states it (to its two digits)."""
    x = np.arange(-32768, 32768)
    real = {
        "gelu": lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))),
        "silu": lambda v: v / (1 + math.exp(-v)),
        "tanh": math.tanh,
    }[name]
    want = np.array([real(v / 1024) for v in x.tolist()])
    assert np.abs(golden.activation(x, name) / 1024 - want).max() < bound + 0.00005


def test_activation_unknown() -> None:
    with pytest.raises(ValueError, match="relu"):
        golden.activation(np.zeros(1, np.int16), "relu")


def test_smooth() -> None:
    x, factor = vector("smooth_x"), vector("smooth_G")
    rows = [golden.smooth(x[i], factor, int(s)) for i, s in enumerate(vector("smooth_sG"))]
    same(np.stack(rows), "smooth_g")


NORMS = [f"layernorm{n}" for n in (96, 384, 768, 1024, 4096)]
NORMS += [f"rmsnorm{n}" for n in (96, 1024, 4096)]


@pytest.mark.parametrize("name", NORMS)
def test_norm(name: str) -> None:
    z, g16, b32 = (vector(f"{name}_{part}") for part in ("z", "g16", "b32"))
    sg, q, eps_q = (int(vector(f"{name}_{part}")[0]) for part in ("sg", "Q", "eps_q"))
    n = z.shape[1]
    rms = name.startswith("rms")
    s1, s2 = golden.row_sums(z)
    if rms:
        s1 = np.zeros_like(s1)
    same(s1, f"{name}_S1")
    same(s2, f"{name}_S2")
    same(golden.row_variance(s1, s2, n, eps_q), f"{name}_V")
    r, k = golden.rsqrt_row(s1, s2, n, eps_q)
    same(r, f"{name}_r")
    same(k, f"{name}_k")
    assert golden.xhat_fraction_bits(n) == q
    same(golden.normalize_rows(z, s1, r, k), f"{name}_xhat")
    same(golden.layernorm_apply(z, s1, r, k, g16, b32, sg), f"{name}_y")
    same(golden.layernorm(z, g16, b32, sg, eps_q, rms=rms), f"{name}_y")


def test_norm_refuses_width() -> None:
    with pytest.raises(ValueError, match="4097"):
        golden.xhat_fraction_bits(4097)
    with pytest.raises(ValueError, match="V = 0"):
        golden.rsqrt_variance(np.array([0]))
