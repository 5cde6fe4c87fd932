"""ONNX products, softmax and masks: linear functions, scores, contexts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from tilewright.sw.graph import ir
from tilewright.sw.graph.onnx import masks
from tilewright.sw.graph.onnx.draft import Draft
from tilewright.sw.graph.onnx.pooling import mask_tokens, token_sum
from tilewright.sw.graph.onnx.read import attributes, f32
from tilewright.sw.graph.onnx.standard import (
    Handler,
    Inputs,
    act_of,
    constant,
    together,
)
from tilewright.sw.graph.onnx.values import Act, Array, Known, NotNumber, Scores, Value
from tilewright.sw.graph.onnx.view import View


def linear(
    draft: Draft, node: NodeProto, x: Value, w: Array, b: Array | None, out: str = ""
) -> Act:
    """A product with constant weights [K, N]."""
    if w.ndim != 2:
        raise draft.fail(node, f"has weights of shape {list(w.shape)}: must be a matrix")
    name = draft.rows(x, node)
    assert isinstance(x, Act)  # what `rows` says
    n = w.shape[1]
    if b is not None and b.size != 1 and (b.size, b.shape[-1]) != (n, n):
        raise draft.fail(node, f"has a bias of shape {list(b.shape)}: must have {n} values")
    bias = None if b is None else f32(np.broadcast_to(b.reshape(-1), (n,)))
    made = draft.emit(
        ir.Linear(out=out or node.output[0], x=name, w=f32(w), b=bias), (*x.of[:-1], n)
    )
    return made.seen(x.view.with_width(x.of, n))


def gemm(draft: Draft, node: NodeProto, inputs: Inputs, out: str = "") -> list[Value]:
    """Gemm with constant weights, or of two activations."""
    options = attributes(node)
    x, other = act_of(draft, node, inputs), inputs[1]
    alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
    if options.get("transA", 0):
        x = x.seen(x.view.transpose([1, 0]))
    bias = constant(draft, node, inputs, 2)
    if isinstance(other, Act):
        if bias is not None or alpha != 1:
            raise draft.fail(node, "of two activations has a bias or a factor")
        if options.get("transB", 0):
            other = other.seen(other.view.transpose([1, 0]))
        return [product(draft, node, x, other)]
    weights = constant(draft, node, inputs, 1)
    if weights is None:
        raise draft.fail(node)
    weights = weights.T if options.get("transB", 0) else weights
    weights = weights if alpha == 1 else weights * np.float32(alpha)
    if bias is not None and beta != 1:
        bias = bias * np.float32(beta)
    return [linear(draft, node, x, weights, bias, out)]


def matmul(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """MatMul with constant weights, of two activations, or of a mask and tokens."""
    first, other = inputs
    if isinstance(first, Known) and not first.constant and isinstance(other, Act):
        return [token_sum(draft, node, first, other)]
    x = act_of(draft, node, inputs)
    if isinstance(other, Act):
        return [product(draft, node, x, other)]
    weights = constant(draft, node, inputs, 1)
    if weights is None:
        raise draft.fail(node)
    return [linear(draft, node, x, weights, None)]


def product(draft: Draft, node: NodeProto, a: Act, b: Act) -> Act:
    """A product of two activations: scores, a context, or neither."""
    if isinstance(a.base, Scores) and a.base.normal:
        return _context(draft, node, a, a.base, b)
    slopes = (a.slope, b.slope)
    if not isinstance(a.base, str) or not isinstance(b.base, str) or None in slopes:
        raise draft.fail(node, "multiplies what is no activation of the machine")
    heads = a.view.heads(a.of)
    if heads is not None and heads == b.view.heads(b.of, swapped=True) and a.of == b.of:
        scale = math.prod(slope for slope in slopes if slope is not None)
        shape = (*a.of[:-2], heads, a.of[-2], a.of[-2])
        scores = Scores(q=a.base, k=b.base, heads=heads, scale=scale, shape=shape)
        view = View.of(shape).reshape((*a.shape[:-1], b.shape[-1]))
        if view is not None:
            return Act(base=scores, of=shape, view=view)
    if min(len(a.shape), len(b.shape)) < 2:
        raise draft.fail(node, f"multiplies {list(a.shape)} and {list(b.shape)}: must be matrices")
    plain = draft.plain(a, node)
    transposed = b.view != View.of(b.of)
    if transposed:
        rank = len(b.shape)
        b = b.seen(b.view.transpose([*range(rank - 2), rank - 1, rank - 2]))
    made = ir.MatMul(out=node.output[0], a=plain, b=draft.plain(b, node), transposed=transposed)
    columns = b.of[-2] if transposed else b.of[-1]
    return draft.emit(made, (*together(draft, node, a.of[:-2], b.of[:-2]), a.of[-2], columns))


def _context(draft: Draft, node: NodeProto, a: Act, weights: Scores, v: Act) -> Act:
    in_order = a.view.flat == View.of(weights.shape).flat
    if a.curve is not None or v.curve is not None or not in_order or not isinstance(v.base, str):
        raise draft.fail(node, "is no part of an attention")
    if v.view.heads(v.of) != weights.heads:
        raise draft.fail(node, f"takes values that are not in {weights.heads} heads")
    made = ir.Attention(
        out=node.output[0],
        q=weights.q,
        k=weights.k,
        v=v.base,
        mask=weights.mask,
        heads=weights.heads,
        scale=weights.scale,
    )
    out = draft.emit(made, v.of)
    *lead, rows, width = v.of
    rank = len(lead)
    split_ = out.view.reshape((*lead, rows, weights.heads, width // weights.heads))
    assert split_ is not None  # heads divide the width
    turned = split_.transpose([*range(rank), rank + 1, rank, rank + 2])
    view = turned.reshape((*a.shape[:-1], v.shape[-1]))
    if view is None:
        raise draft.fail(node)
    return out.seen(view)


# ---- softmax ------------------------------------------------------------------------------------


def softmax(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Softmax over the last axis."""
    act = act_of(draft, node, inputs)
    axis = attributes(node).get("axis", -1 if draft.source.opset >= 13 else 1)
    if axis not in (-1, len(act.shape) - 1):
        raise draft.fail(node, f"works on axis {axis}, only the last is supported")
    if isinstance(act.base, Scores) and not act.base.normal:
        slope = act.slope
        if slope is None or not act.view.is_rows(act.of):
            raise draft.fail(act.node or node)
        scores = replace(act.base, scale=act.base.scale * slope, normal=True)
        return [replace(act, base=scores, curve=None)]
    name = draft.rows(act, node)
    return [draft.emit(ir.Softmax(out=node.output[0], x=name), act.of).seen(act.view)]


def is_nan(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """IsNaN of a softmax: nowhere, since every row has a valid token."""
    act = act_of(draft, node, inputs)
    if not isinstance(act.base, Scores) or not act.base.normal or act.curve is not None:
        raise draft.fail(node)
    return [replace(act, base=NotNumber(scores=act.base, shape=act.base.shape))]


def where(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """A mask that chooses between scores and minus infinity; the guard against an empty row."""
    condition, yes, no = inputs
    for kept, other in ((yes, no), (no, yes)):
        # Tokens that a mask does not choose become 0.
        zero = isinstance(other, Known) and other.scalar == 0
        if isinstance(condition, Known) and isinstance(kept, Act) and zero:
            on = condition.array.astype(np.bool_) == (kept is yes)
            return [mask_tokens(draft, node, kept, replace(condition, array=on))]
    if isinstance(condition, Act) and isinstance(condition.base, NotNumber):
        guarded = condition.base.scores
        if isinstance(no, Act) and no.base == guarded and no.view == condition.view:
            return [no]
    if isinstance(condition, Known) and isinstance(yes, Act) and isinstance(yes.base, Scores):
        low = no.scalar if isinstance(no, Known) else None
        if low is not None and low <= -masks.LARGE:
            return [_masked(draft, node, yes, yes.base, condition, masks.chosen)]
    if isinstance(condition, Known) and isinstance(no, Act) and isinstance(no.base, Scores):
        low = yes.scalar if isinstance(yes, Known) else None
        if low is not None and low <= -masks.LARGE:
            inverse = replace(condition, array=~condition.array.astype(np.bool_))
            return [_masked(draft, node, no, no.base, inverse, masks.chosen)]
    raise draft.fail(node)


def _masked(
    draft: Draft, node: NodeProto, act: Act, scores: Scores, mask: Known, meaning: Any
) -> Act:
    slope = act.slope
    if scores.normal or scores.mask is not None or slope is None:
        raise draft.fail(node, "masks what is no product of queries and keys")
    # A mask knows batch, heads, rows and columns.
    shape = scores.shape if len(scores.shape) == 4 else (1, *scores.shape)
    try:
        name = meaning(mask, shape, act.shape)
    except ValueError as error:
        raise draft.fail(node, str(error)) from error
    found = replace(scores, scale=scores.scale * slope, mask=name)
    return replace(act, base=found, curve=None)


def mask_scores(draft: Draft, node: NodeProto, act: Act, scores: Scores, mask: Known) -> Act:
    """Scores with a mask added."""
    return _masked(draft, node, act, scores, mask, masks.added)


HANDLERS: dict[str, Handler] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Softmax": softmax,
    "IsNaN": is_nan,
    "Where": where,
}
"""Operators by name."""
