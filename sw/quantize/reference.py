"""One quantized encoder layer, composed of golden functions as the machine composes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.hw.commands import SYM16_MAX
from tilewright.sim import golden
from tilewright.sim.golden import Fmt
from tilewright.sim.golden.products import K_MAX
from tilewright.sw.models.bert import merge_heads, split_heads
from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize.formats import (
    I16,
    U8,
    EdgeFormat,
    HostEmbedding,
    Ints,
    QEmbedding,
    QLayer,
    QLayerNorm,
    QLinear,
)

FORMATS = {EdgeFormat.S8: Fmt.S8, EdgeFormat.S16: Fmt.S16, EdgeFormat.SYM16: Fmt.SYM16}
"""The golden functions' names of the formats."""


@dataclass(frozen=True, kw_only=True)
class LayerTrace:
    """Every integer tensor of one layer's run, [S, width] unless said otherwise.

    `q` `k` `v` s8, or s16 in a layer of 16-bit attention; `e8` u8 [heads, S, S]; `ctx` s16, Q7 of
    v's unit (Q0 of 16-bit v); `z1` `x1` s16; `h` s16 Q10
    before and `g` s16 after activation and smoothing; `z2` `y` s16.
    """

    q: Ints
    k: Ints
    v: Ints
    e8: U8
    ctx: I16
    z1: I16
    x1: I16
    h: I16
    g: I16
    z2: I16
    y: I16


def linear(x: Ints, op: QLinear, residual: Ints | None = None) -> Ints:
    """A product: feed, multiply, requantize; x s16 [S, K] -> s8 or s16 [S, N].

    Activation and smoothing are not applied (`activate`).

    Raises
    ------
    ModelError
        If a residual is missing, or given without a factor.
    ValueError
        If a 16-bit operand leaves +-32639 (other than -32768).
    """
    if (op.residual is None) != (residual is None):
        raise ModelError("residual and its factor must be given together")
    if op.row_scaled:
        m, e = golden.row_scale(golden.row_max(x))
        acc = golden.matmul(golden.feed8(x, m, e), op.weight)
        t = golden.requant_row(acc, m, e, op.mult, op.shift)
    else:
        t = golden.requant_static(product16(x, op.weight), op.mult, op.shift)
    fmt = FORMATS[op.out]
    if op.residual is None or residual is None:
        return golden.finish(t, op.bias, fmt)
    rterm = golden.residual_term(residual, op.residual.mult, op.residual.shift)
    return golden.finish(t, op.bias, fmt, rterm)


def product16(x: Ints, w: Ints) -> Ints:
    """A 16-bit operand [..., S, K] times s8 or s16 weights [..., K, N], int64.

    What `golden.combine_16x8` and `combine_16x16` make of the byte products, in one product:
    sums below 2^42 are exact in float64.

    Raises
    ------
    ValueError
        If a value has no balanced bytes, or K is above 4096.
    """
    k = x.shape[-1]
    if k > K_MAX:
        raise ValueError(f"K = {k}: must be at most {K_MAX}")
    for name, value in (("operand", x), ("weight", w)):
        if value.size and int(value.max()) > SYM16_MAX:
            raise ValueError(f"{name} {int(value.max())}: must be at most {SYM16_MAX}")
    acc: Ints = np.matmul(x.astype(np.float64), w.astype(np.float64)).astype(np.int64)
    return acc


def activate(h: Ints, op: QLinear) -> I16:
    """The activation behind a product, and its smoothing: s16 Q10 -> s16."""
    y: Ints = h if op.act is None else golden.activation(h, op.act)
    if op.smooth is not None:
        y = golden.smooth(y, op.smooth.mult, op.smooth.shift, FORMATS[op.act_out])
    return y.astype(np.int16, copy=False)


def norm(z: Ints, op: QLayerNorm) -> I16:
    """LayerNorm, s16 [S, N] -> s16 [S, N]."""
    s1, s2 = golden.row_sums(z)
    r, k = golden.rsqrt_row(s1, s2, z.shape[-1], op.eps)
    y = golden.layernorm_apply(
        z, s1, r, k, op.gamma, op.beta, op.shift, op.fraction, FORMATS[op.out]
    )
    return y.astype(np.int16, copy=False)


def attention(layer: QLayer, q: Ints, k: Ints, v: Ints, length: int) -> tuple[U8, I16]:
    """Attention weights u8 [heads, S, S] and context s16 [S, hidden] of s8 or s16 q, k, v."""
    qh, kh, vh = (split_heads(t, layer.heads) for t in (q, k, v))
    kt = kh.swapaxes(-1, -2)
    wide = layer.attention_bits == 16
    scores = product16(qh, kt) if wide else golden.matmul(qh, kt)
    valid = golden.valid_columns(len(q), len(q), length=length)
    top = golden.softmax_max(scores, valid)
    e8 = golden.softmax_exp(scores, top, valid, layer.softmax.mult, layer.softmax.shift)
    n, recip = golden.reciprocal(golden.softmax_den(e8))
    # The attention weights are bytes already: of 16-bit operands only v is split.
    o = product16(e8, vh) if wide else golden.matmul(e8, vh)
    ctx = merge_heads(golden.context(o, n, recip, v16=wide, fmt=FORMATS[layer.context]))
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
        raise ModelError(f"input of shape {x.shape}: must be [S, {layer.hidden}]")
    length = len(x) if length is None else length
    if not 0 <= length <= len(x):
        raise ModelError(f"length {length}: must be 0 to {len(x)}")
    q, k, v = (linear(x, op) for op in (layer.q, layer.k, layer.v))
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


def enter(embedding: QEmbedding | HostEmbedding, z: I16) -> I16:
    """Input of layer 0 from what the host looked up, both s16 [S, hidden]."""
    return z if embedding.ln is None else norm(z, embedding.ln)


def run_embedding(embedding: QEmbedding | HostEmbedding, ids: Ints) -> I16:
    """Input of layer 0: ids [S] -> s16 [S, hidden]."""
    return enter(embedding, embedding.look_up(ids))
