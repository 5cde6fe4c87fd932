"""ONNX operators of each element: curves, and the sums and products that mean more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from tilewright.sw.graph import ir
from tilewright.sw.graph.onnx.draft import Draft
from tilewright.sw.graph.onnx.pooling import mask_tokens, share
from tilewright.sw.graph.onnx.products import mask_scores
from tilewright.sw.graph.onnx.read import attributes, f32
from tilewright.sw.graph.onnx.standard import Handler, Inputs, act_of, constant, together
from tilewright.sw.graph.onnx.values import (
    GRID,
    Act,
    Array,
    Centred,
    Known,
    Length,
    Mean,
    Scores,
    Sum,
    TokenSum,
    Value,
    Variance,
)
from tilewright.sw.graph.onnx.view import View
from tilewright.sw.graph.run import padded_positions
from tilewright.sw.models.functions import erf

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Max": np.maximum,
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Erf": erf,
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Exp": np.exp,
    "Relu": lambda x: np.maximum(x, 0),
    "Neg": np.negative,
}


def unary(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """A function of each element."""
    act = inputs[0]
    assert isinstance(act, Act)  # an operator with constants only is folded
    with np.errstate(all="ignore"):
        return [draft.curved(act, _UNARY[node.op_type](act.samples), node)]


def clip(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Clip by constants."""
    act = act_of(draft, node, inputs)
    options = attributes(node)
    low, high = (
        constant(draft, node, inputs, i + 1) if len(node.input) > i + 1 else options.get(name)
        for i, name in enumerate(("min", "max"))
    )
    curve = np.clip(act.samples, -np.inf if low is None else low, np.inf if high is None else high)
    return [draft.curved(act, curve.reshape(GRID.shape), node)]


def binary(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """A sum, difference, product, quotient or power."""
    if len(inputs) != 2:
        raise draft.fail(node, f"of {len(inputs)} operands is not supported")
    a, b = inputs
    if a is None or b is None:
        raise draft.fail(node, "lacks an operand")
    found = _SPECIAL.get(node.op_type, _nothing)(draft, node, a, b)
    if found is None and isinstance(a, Act) and isinstance(b, Act):
        if a.base == b.base and a.view == b.view:
            found = _curve(draft, node, a, a.samples, b.samples)
    elif found is None and isinstance(a, Act) and isinstance(b, Known) and _element(a, b):
        found = _curve(draft, node, a, a.samples, b.scalar)
    elif found is None and isinstance(b, Act) and isinstance(a, Known) and _element(b, a):
        found = _curve(draft, node, b, a.scalar, b.samples)
    if found is None:
        raise draft.fail(node)
    return [found]


def _nothing(draft: Draft, node: NodeProto, a: Value, b: Value) -> Act | None:
    return None


def _element(act: Act, number: Known) -> bool:
    """Whether a number of one element leaves an activation's shape as it is."""
    return number.scalar is not None and number.array.ndim <= len(act.shape)


def _curve(draft: Draft, node: NodeProto, act: Act, a: Any, b: Any) -> Act:
    with np.errstate(all="ignore"):
        return draft.curved(act, _BINARY[node.op_type](a, b), node)


def _apart(a: Value, b: Value) -> tuple[Act, Known] | None:
    """An activation and a constant, in whichever order."""
    if isinstance(a, Act) and isinstance(b, Known):
        return a, b
    if isinstance(b, Act) and isinstance(a, Known):
        return b, a
    return None


def _vector(act: Act, known: Known) -> Array | None:
    """A constant of one value for each column of an activation's rows."""
    width = act.of[-1] if act.of else 0
    flat = known.array.reshape(-1)
    fits = known.constant and flat.shape == (width,) == known.array.shape[-1:]
    return f32(flat) if fits and act.view.is_rows(act.of) else None


def add(draft: Draft, node: NodeProto, a: Value, b: Value) -> Act | None:
    """A bias, LayerNorm's beta, a mask, embeddings, a residual sum."""
    if isinstance(a, Act) and isinstance(b, Act):
        return _add_acts(draft, node, a, b)
    pair = _apart(a, b)
    if pair is None:
        return None
    act, known = pair
    if isinstance(act.base, Scores) and known.array.size > 1:
        return mask_scores(draft, node, act, act.base, known)
    if isinstance(act.base, Sum) and act.curve is None:
        return _add_rows(draft, node, act, act.base, known)
    return add_vector(draft, node, act, known)


def add_vector(draft: Draft, node: NodeProto, act: Act, known: Known, out: str = "") -> Act | None:
    """A bias behind a product, or beta behind a LayerNorm."""
    made, vector = draft.made(act), _vector(act, known)
    out = out or node.output[0]
    if vector is None:
        return None
    if isinstance(made, ir.Linear) and made.b is None:
        return draft.emit(replace(made, out=out, b=vector), act.of).seen(act.view)
    if isinstance(made, ir.LayerNorm) and not made.beta.any():
        return draft.emit(replace(made, out=out, beta=vector), act.of).seen(act.view)
    return None


def _add_rows(draft: Draft, node: NodeProto, act: Act, total: Sum, known: Known) -> Act | None:
    """Positions or a constant token type, added to rows of the vocabulary."""
    *_, sequence, hidden = total.shape
    if known.array.shape[-1:] != (hidden,):
        return None
    if known.table is not None and known.index is not None:
        index = np.broadcast_to(known.index, total.shape[:-1])
        if known.constant and not index.any() and (sequence > 1 or total.position is not None):
            # Every token has type 0; or task 0, where types are another table.
            kind = known.table if total.type is None else total.type + known.table[:1]
            return replace(act, base=replace(total, type=kind))
        if total.position is None:
            position, padding = _positions(draft, node, total, known.table, index, known.sources)
            return replace(act, base=replace(total, position=position, padding=padding))
        raise draft.fail(node, "adds positions twice")
    if not known.constant:
        return None
    # Exporters with fixed shapes fold the look-up away: what is left are its rows.
    rows = np.broadcast_to(known.array, total.shape)
    if not (rows == rows[:1]).all():
        return None
    table = rows.reshape(-1, sequence, hidden)[0]
    if total.type is None and (table == table[:1]).all():
        return replace(act, base=replace(total, type=table[:1]))
    if total.position is None:
        return replace(act, base=replace(total, position=table))
    return None


def _positions(
    draft: Draft,
    node: NodeProto,
    total: Sum,
    table: Array,
    index: Array,
    sources: frozenset[str],
) -> tuple[Array, int | None]:
    """The table of positions that counts as `ir.LookUp` does, and the padding it leaves out."""
    first = int(index[0, 0])
    if not sources and first >= 0 and (index == first + np.arange(index.shape[-1])).all():
        return table[first:], None
    for ids in (part[1] for part in total.parts):
        known = draft.values[ids]
        if sources == {ids} and isinstance(known, Known):
            # Samples of ids are 0 and 1: any other padding leaves out none of them.
            for padding in (0, 1, first - 1):
                if padding >= 0 and (index == padded_positions(known.array, padding)).all():
                    return table, padding
    raise draft.fail(
        node, "adds positions that count neither all tokens nor those that are no padding"
    )


def _add_acts(draft: Draft, node: NodeProto, a: Act, b: Act) -> Act | None:
    if isinstance(a.base, Sum) and isinstance(b.base, Sum):
        return _add_sums(draft, node, a, a.base, b.base)
    if not isinstance(a.base, str) or not isinstance(b.base, str) or a.base == b.base:
        return None
    if a.curve is not None or b.curve is not None:
        return None
    return add_tensors(draft, node, a, b)


def add_tensors(draft: Draft, node: NodeProto, a: Act, b: Act, out: str = "") -> Act:
    """The sum of two tensors in the same view."""
    name = out or node.output[0]
    if a.view == b.view and a.of == b.of:
        made = ir.Add(out=name, a=draft.rows(a, node), b=draft.rows(b, node))
        return draft.emit(made, a.of).seen(a.view)
    if View.of(a.of) != a.view or View.of(b.of) != b.view:
        raise draft.fail(node, f"adds {list(a.shape)} and {list(b.shape)} of different layouts")
    shape = together(draft, node, a.of, b.of)
    return draft.emit(ir.Add(out=name, a=draft.plain(a, node), b=draft.plain(b, node)), shape)


def _add_sums(draft: Draft, node: NodeProto, act: Act, a: Sum, b: Sum) -> Act:
    twice = (a.position is not None and b.position is not None) or (
        a.type is not None and b.type is not None
    )
    if a.shape != b.shape or twice:
        raise draft.fail(node, "adds embeddings that do not fit")
    total = Sum(
        parts=(*a.parts, *b.parts),
        position=b.position if a.position is None else a.position,
        type=b.type if a.type is None else a.type,
        padding=b.padding if a.padding is None else a.padding,
        shape=a.shape,
    )
    return replace(act, base=total)


def sub(draft: Draft, node: NodeProto, a: Value, b: Value) -> Act | None:
    """A row less its mean."""
    if not isinstance(a, Act) or not isinstance(b, Act) or not isinstance(b.base, Mean):
        return None
    if isinstance(a.base, Sum):
        a = replace(a, base=draft.tensor(a.base, node))
    fits = a.base == b.base.x and a.curve is None and b.curve is None
    if not fits or b.view != a.view.with_width(a.of, 1):
        return None
    return replace(a, base=Centred(x=b.base.x, shape=a.of))


def div(draft: Draft, node: NodeProto, a: Value, b: Value) -> Act | None:
    """A row over its deviation or its length; a sum of tokens over their number."""
    if isinstance(a, Act) and isinstance(a.base, TokenSum) and isinstance(b, Known):
        with np.errstate(all="ignore"):
            inverse = replace(b, array=1 / b.array)
        return share(draft, node, a, a.base, inverse)
    found = _normalized(draft, node, a, b, inverse=False)
    return found or _unit(draft, node, a, b, inverse=False)


def mul(draft: Draft, node: NodeProto, a: Value, b: Value) -> Act | None:
    """A row times the reciprocal of its deviation or length; LayerNorm's gamma; masked tokens."""
    for first, second in ((a, b), (b, a)):
        found = _normalized(draft, node, first, second, inverse=True)
        found = found or _unit(draft, node, first, second, inverse=True)
        if found is not None:
            return found
    pair = _apart(a, b)
    if pair is None:
        return None
    act, known = pair
    if isinstance(act.base, TokenSum):
        return share(draft, node, act, act.base, known)
    if not known.constant:
        return mask_tokens(draft, node, act, known)
    made, vector = draft.made(act), _vector(act, known)
    if vector is None or not isinstance(made, ir.LayerNorm):
        return None
    if made.beta.any() or (made.gamma != 1).any():
        return None
    return draft.emit(replace(made, out=node.output[0], gamma=vector), act.of).seen(act.view)


def _normalized(draft: Draft, node: NodeProto, a: Value, b: Value, *, inverse: bool) -> Act | None:
    if not isinstance(a, Act) or not isinstance(a.base, Centred) or a.curve is not None:
        return None
    if not isinstance(b, Act) or not isinstance(b.base, Variance) or a.base.x != b.base.x:
        return None
    eps = b.root(inverse=inverse)
    if eps is None or b.view != a.view.with_width(a.of, 1):
        return None
    one, zero = np.ones(a.of[-1], np.float32), np.zeros(a.of[-1], np.float32)
    norm = ir.LayerNorm(out=node.output[0], x=a.base.x, gamma=one, beta=zero, eps=eps)
    return draft.emit(norm, a.of).seen(a.view)


def _unit(draft: Draft, node: NodeProto, a: Value, b: Value, *, inverse: bool) -> Act | None:
    if not isinstance(a, Act) or not isinstance(b, Act) or not isinstance(b.base, Length):
        return None
    if a.base != b.base.x or a.curve is not None or not b.is_length(inverse=inverse):
        return None
    if b.view != a.view.with_width(a.of, 1):
        return None
    return draft.emit(ir.UnitLength(out=node.output[0], x=b.base.x), a.of).seen(a.view)


_SPECIAL = {"Add": add, "Sub": sub, "Mul": mul, "Div": div}

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_BINARY, binary),
    "Clip": clip,
}
"""Operators by name."""
