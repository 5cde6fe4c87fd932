"""Means over tokens: a mask or shares that weigh them, their sum, their number that divides it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from tilewright.sw.graph import ir
from tilewright.sw.graph.onnx import masks
from tilewright.sw.graph.onnx.draft import Draft
from tilewright.sw.graph.onnx.read import attributes
from tilewright.sw.graph.onnx.values import Act, Known, TokenSum, Weighted


def mask_tokens(draft: Draft, node: NodeProto, act: Act, mask: Known) -> Act:
    """Tokens [B, S, hidden], each times what a mask has for it."""
    if len(act.shape) != 3:
        raise draft.fail(node, "weighs what is not [batch, sequence, hidden]")
    wide = np.broadcast_to(mask.array, act.shape)
    if (wide != wide[..., :1]).any():
        raise draft.fail(node, "weighs the columns of a token differently")
    return weighted(draft, node, act, replace(mask, array=wide[..., 0].astype(np.float64)))


def weighted(draft: Draft, node: NodeProto, act: Act, weights: Known) -> Act:
    """Tokens of an activation [B, S, hidden], each times its one of weights [B, S].

    Of tokens that have weights already, both count.
    """
    if isinstance(act.base, Weighted) and act.curve is None:
        old = act.base.weights
        both = Known(array=old.array * weights.array, sources=old.sources | weights.sources)
        return replace(act, base=replace(act.base, weights=both))
    base = Weighted(x=draft.plain(act, node), weights=weights, shape=act.of)
    return Act.plain(base, act.of)


def summed(draft: Draft, node: NodeProto, act: Act) -> Act:
    """The sum over the tokens of an activation that has weights."""
    base = act.base
    assert isinstance(base, Weighted)  # callers have looked
    batch, _, hidden = act.of
    out = Act.plain(
        TokenSum(x=base.x, weights=base.weights, shape=(batch, hidden)), (batch, hidden)
    )
    out = averaged(draft, node, out)
    return out.seen(out.view.unsqueeze([1])) if attributes(node).get("keepdims", 1) else out


def token_sum(draft: Draft, node: NodeProto, mask: Known, x: Act) -> Act:
    """Weights [B, 1, S] times tokens [B, S, hidden]."""
    batch, tokens, hidden = x.shape
    weights = replace(mask, array=mask.array.reshape(batch, tokens).astype(np.float64))
    base = TokenSum(x=draft.plain(x, node), weights=weights, shape=(batch, hidden))
    out = averaged(draft, node, Act.plain(base, (batch, hidden)))
    return out.seen(out.view.unsqueeze([1]))


def share(draft: Draft, node: NodeProto, act: Act, base: TokenSum, factor: Known) -> Act | None:
    """A sum of tokens times a factor of each row."""
    rows = np.broadcast_to(factor.array, act.shape).reshape(act.of)
    if act.curve is not None or (rows != rows[:, :1]).any():
        return None
    weights = Known(
        array=base.weights.array * rows[:, :1], sources=base.weights.sources | factor.sources
    )
    return averaged(draft, node, replace(act, base=replace(base, weights=weights)))


def averaged(draft: Draft, node: NodeProto, act: Act) -> Act:
    """A sum of tokens, as the mean that it is if its weights make it one."""
    base = act.base
    assert isinstance(base, TokenSum)  # callers have looked
    try:
        mask, mean = masks.averaged(base.weights)
    except ValueError as error:
        raise draft.fail(node, str(error)) from error
    if not mean:
        return act
    made = draft.emit(ir.TokenMean(out=node.output[0], x=base.x, mask=mask), act.of)
    return made.seen(act.view)
