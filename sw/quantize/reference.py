"""One quantized encoder layer, composed of golden functions as the machine composes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import golden
from sim.golden import Fmt
from sw.models.bert import merge_heads, split_heads
from sw.models.errors import ModelError
from sw.quantize.formats import I8, I16, U8, QEmbedding, QLayer, QLayerNorm, QLinear, Width

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class LayerTrace:
    """Every integer tensor of one layer's run, [S, width] unless said otherwise.

    `q` `k` `v` s8; `e8` u8 [heads, S, S]; `ctx` s16 Q7 of v's unit; `z1` `x1` s16; `h` s16 Q10
    before and `g` s16 after activation and smoothing; `z2` `y` s16.
    """

    q: I8
    k: I8
    v: I8
    e8: U8
    ctx: I16
    z1: I16
    x1: I16
    h: I16
    g: I16
    z2: I16
    y: I16


def linear(x: Ints, op: QLinear, residual: Ints | None = None) -> Ints:
    """A row-scaled product: feed, multiply, requantize; x s16 [S, K] -> s8 or s16 [S, N].

    Activation and smoothing are not applied (`activate`).

    Raises
    ------
    ModelError
        If a residual is missing, or given without a factor, or the operand has no row scale.
    """
    if (op.residual is None) != (residual is None):
        raise ModelError("residual and its factor must be given together")
    if not op.row_scaled:
        raise ModelError("only operands with a row scale are implemented")
    m, e = golden.row_scale(golden.row_max(x))
    acc = golden.matmul(golden.feed8(x, m, e), op.weight)
    t = golden.requant_row(acc, m, e, op.mult, op.shift)
    fmt = Fmt.S8 if op.out is Width.S8 else Fmt.S16
    if op.residual is None or residual is None:
        return golden.finish(t, op.bias, fmt)
    rterm = golden.residual_term(residual, op.residual.mult, op.residual.shift)
    return golden.finish(t, op.bias, fmt, rterm)


def activate(h: Ints, op: QLinear) -> I16:
    """The activation behind a product, and its smoothing: s16 Q10 -> s16."""
    y: Ints = h if op.act is None else golden.activation(h, op.act)
    if op.smooth is not None:
        y = golden.smooth(y, op.smooth.mult, op.smooth.shift)
    return y.astype(np.int16, copy=False)


def norm(z: Ints, op: QLayerNorm) -> I16:
    """LayerNorm, s16 [S, N] -> s16 [S, N]."""
    s1, s2 = golden.row_sums(z)
    r, k = golden.rsqrt_row(s1, s2, z.shape[-1], op.eps)
    y = golden.layernorm_apply(z, s1, r, k, op.gamma, op.beta, op.shift, op.fraction)
    return y.astype(np.int16, copy=False)


def attention(layer: QLayer, q: Ints, k: Ints, v: Ints, length: int) -> tuple[U8, I16]:
    """Attention weights u8 [heads, S, S] and context s16 [S, hidden] of s8 q, k, v."""
    qh, kh, vh = (split_heads(t, layer.heads) for t in (q, k, v))
    scores = golden.matmul(qh, kh.swapaxes(-1, -2))
    valid = golden.valid_columns(len(q), len(q), length=length)
    top = golden.softmax_max(scores, valid)
    e8 = golden.softmax_exp(scores, top, valid, layer.softmax.mult, layer.softmax.shift)
    n, recip = golden.reciprocal(golden.softmax_den(e8))
    ctx = merge_heads(golden.context(golden.matmul(e8, vh), n, recip))
    return e8, ctx.astype(np.int16, copy=False)


def trace_layer(layer: QLayer, x: Ints, length: int | None = None) -> LayerTrace:
    """Run one layer and keep every tensor.

    Parameters
    ----------
    layer : QLayer
    x : [S, hidden], s16
        In `layer.input`'s format.
    length : int, optional
        Valid tokens, the first ones; all by default. Rows beyond it are computed but mean nothing.

    Raises
    ------
    ModelError
        If x has another width, or the length lies outside 0 ... S.
    """
    if x.ndim != 2 or x.shape[1] != layer.hidden:
        raise ModelError(f"input of shape {x.shape}, must be [S, {layer.hidden}]")
    length = len(x) if length is None else length
    if not 0 <= length <= len(x):
        raise ModelError(f"length {length} outside 0 ... {len(x)}")
    q, k, v = (linear(x, op).astype(np.int8, copy=False) for op in (layer.q, layer.k, layer.v))
    e8, ctx = attention(layer, q, k, v, length)
    z1 = linear(ctx, layer.o, x).astype(np.int16, copy=False)
    x1 = norm(z1, layer.ln1)
    h = linear(x1, layer.ffn1).astype(np.int16, copy=False)
    g = activate(h, layer.ffn1)
    z2 = linear(g, layer.ffn2, x1).astype(np.int16, copy=False)
    y = norm(z2, layer.ln2)
    return LayerTrace(q=q, k=k, v=v, e8=e8, ctx=ctx, z1=z1, x1=x1, h=h, g=g, z2=z2, y=y)


def run_layer(layer: QLayer, x: Ints, length: int | None = None) -> I16:
    """One layer: x s16 [S, hidden] in `layer.input` -> y s16 [S, hidden] in `layer.output`."""
    return trace_layer(layer, x, length).y


def run_embedding(embedding: QEmbedding, ids: Ints) -> I16:
    """Input of layer 0: ids [S] -> s16 [S, hidden]."""
    return norm(embedding.look_up(ids), embedding.ln)
