"""Functions of an encoder in fp32 NumPy: activations, softmax, LayerNorm, mean pooling."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

MASKED = np.float32(-1e30)
"""Score of a token that is not attended to."""

QUICK_GELU = 1.702
"""``x * sigmoid(1.702 x)`` is ``silu(1.702 x) / 1.702``."""


def table_of(function: str) -> str:
    """The hardware's table that serves a function: its own but for the other forms of GELU.

    The tanh form differs from erf's by less than the table's error; quick GELU is SiLU scaled.
    """
    return {"gelu_tanh": "gelu", "quick_gelu": "silu"}.get(function, function)


_ERF_STEPS = 256
_ERF_EDGE = 6
_ERF_X = np.arange(-_ERF_EDGE * _ERF_STEPS, _ERF_EDGE * _ERF_STEPS + 1) / _ERF_STEPS
_ERF_Y = np.array([math.erf(x) for x in _ERF_X.tolist()])
_ERF_D = 2 / math.sqrt(math.pi) * np.exp(-(_ERF_X**2)) / _ERF_STEPS


def erf(x: npt.NDArray[np.floating]) -> F64:
    """Error function by cubic Hermite interpolation, error below 1e-11 (NumPy has none)."""
    position = (np.clip(x.astype(np.float64), -_ERF_EDGE, _ERF_EDGE) + _ERF_EDGE) * _ERF_STEPS
    i = np.minimum(position.astype(np.int64), len(_ERF_X) - 2)
    t = position - i
    y0, y1, d0, d1 = _ERF_Y[i], _ERF_Y[i + 1], _ERF_D[i], _ERF_D[i + 1]
    slope = y1 - y0
    out: F64 = y0 + t * (d0 + t * (3 * slope - 2 * d0 - d1 + t * (d0 + d1 - 2 * slope)))
    return out


def gelu(x: F32) -> F32:
    """GELU in its erf form, ``x / 2 * (1 + erf(x / sqrt 2))``."""
    return (0.5 * x * (1 + erf(x / np.float32(math.sqrt(2))))).astype(np.float32)


def gelu_tanh(x: F32) -> F32:
    """GELU in its tanh form, ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))``.

    Source: Hendrycks and Gimpel, 2016.
    """
    # Powers in float64: fp32 overflows from 7e12 on.
    wide = x.astype(np.float64)
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    return (0.5 * wide * (1 + np.tanh(inner))).astype(np.float32)


def silu(x: F32) -> F32:
    """``x / (1 + exp(-x))``."""
    half = x / 2
    out: F32 = half * (1 + np.tanh(half))
    return out


def quick_gelu(x: F32) -> F32:
    """``x / (1 + exp(-1.702 x))``."""
    factor = np.float32(QUICK_GELU)
    out: F32 = silu(x * factor) / factor
    return out


def tanh(x: F32) -> F32:
    """Hyperbolic tangent."""
    out: F32 = np.tanh(x)
    return out


def relu(x: F32) -> F32:
    """``max(x, 0)``."""
    return np.maximum(x, np.float32(0))


FUNCTIONS: dict[str, Callable[[F32], F32]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": silu,
    "tanh": tanh,
}
"""Activation functions by name."""

HOST_FUNCTIONS = {**FUNCTIONS, "relu": relu}
"""Those of heads, which run on the host: the hardware has no table of ``relu``."""


def softmax(x: F32) -> F32:
    """Softmax over the last axis."""
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    out: F32 = weights / weights.sum(axis=-1, keepdims=True)
    return out


def layer_norm(x: F32, gamma: F32, beta: F32, eps: float) -> F32:
    """LayerNorm over the last axis: x [..., N], gamma and beta [N]."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    # A row whose variance overflows would turn to beta without a word.
    variance = np.where(np.isfinite(variance), variance, np.float32(np.nan))
    out: F32 = centred / np.sqrt(variance + np.float32(eps)) * gamma + beta
    return out


def split_heads(x: npt.NDArray, heads: int) -> npt.NDArray:
    """[..., S, hidden] -> [..., heads, S, head_dim]."""
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


def merge_heads(x: npt.NDArray) -> npt.NDArray:
    """[..., heads, S, head_dim] -> [..., S, hidden]."""
    joined = x.swapaxes(-2, -3)
    return joined.reshape(*joined.shape[:-2], -1)


def attention(q: F32, k: F32, v: F32, *, heads: int, scale: float, mask: Bool | None = None) -> F32:
    """Scaled dot-product attention in heads: q, k, v [..., S, hidden] -> [..., S, hidden].

    Parameters
    ----------
    scale : float
        Factor of the scores, normally 1 / sqrt(head_dim).
    mask : [..., S], optional
        Valid tokens; padding is not attended to.
    """
    qh, kh, vh = (split_heads(t, heads) for t in (q, k, v))
    scores = qh @ kh.swapaxes(-1, -2) * np.float32(scale)
    if mask is not None:
        scores = np.where(mask[..., None, None, :], scores, MASKED)
    return merge_heads(softmax(scores) @ vh)


def mean_pool(y: F32, mask: Bool) -> F32:
    """Mean over valid tokens, scaled to length 1: y [..., S, hidden], mask [..., S]."""
    return unit_length(token_mean(y, mask))


def token_mean(y: F32, mask: Bool) -> F32:
    """Mean over valid tokens: y [..., S, hidden], mask [..., S] -> [..., hidden]."""
    weight = mask[..., None].astype(np.float32)
    out: F32 = (y * weight).sum(axis=-2) / np.maximum(weight.sum(axis=-2), 1)
    return out


def unit_length(x: F32) -> F32:
    """Vectors over their lengths, [..., hidden]."""
    out: F32 = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return out
