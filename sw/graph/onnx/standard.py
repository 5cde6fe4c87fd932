"""ONNX operators that move, select or average: what each makes of the values it reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from tilewright.sw.graph import ir
from tilewright.sw.graph.onnx.draft import Draft
from tilewright.sw.graph.onnx.pooling import summed, weighted
from tilewright.sw.graph.onnx.read import attributes
from tilewright.sw.graph.onnx.values import (
    GRID,
    Act,
    Array,
    Centred,
    Known,
    Length,
    Mean,
    Sum,
    Value,
    Variance,
    Weighted,
)

Inputs = list[Value | None]
Handler = Callable[[Draft, NodeProto, Inputs], list[Value]]


def act_of(draft: Draft, node: NodeProto, inputs: Inputs) -> Act:
    """The first input, which must be an activation."""
    if not inputs or not isinstance(inputs[0], Act):
        raise draft.fail(node, "needs an activation where it has a constant or a mask")
    return inputs[0]


def constant(draft: Draft, node: NodeProto, inputs: Inputs, index: int) -> Array | None:
    """An input that must be a constant; None where it is left out."""
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        return None
    if not isinstance(value, Known) or not value.constant:
        raise draft.fail(node, f"has an input {node.input[index]!r} that is no constant")
    return value.array


def axes_of(draft: Draft, node: NodeProto, inputs: Inputs, rank: int) -> list[int] | None:
    """Axes from the second input or the attribute, none negative."""
    given = constant(draft, node, inputs, 1)
    axes = attributes(node).get("axes") if given is None else given.reshape(-1).tolist()
    return None if axes is None else [axis_of(draft, node, axis, rank) for axis in axes]


def axis_of(draft: Draft, node: NodeProto, axis: int, rank: int) -> int:
    """An axis that counts from the first, of one that may count from the last."""
    if not -rank <= axis < rank:
        raise draft.fail(node, f"works on axis {axis} of {rank}")
    return axis % rank


def together(
    draft: Draft, node: NodeProto, a: tuple[int, ...], b: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape that two broadcast to."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise draft.fail(node, f"joins {list(a)} and {list(b)}, which do not broadcast") from None


# ---- what moves no number -----------------------------------------------------------------------


def same(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Identity, Dropout, Expand to the same shape, Cast between floats."""
    act = act_of(draft, node, inputs)
    if node.op_type == "Dropout":
        training = constant(draft, node, inputs, 2)
        if training is not None and training.any():
            raise draft.fail(node, "is in training mode")
    if node.op_type == "Cast" and attributes(node)["to"] not in _FLOATS:
        raise draft.fail(node, "turns an activation into no float, which is not supported")
    if node.op_type == "Expand":
        shape = constant(draft, node, inputs, 1)
        wide = None if shape is None else np.broadcast_shapes(tuple(shape.tolist()), act.shape)
        # The length of a row may be repeated for each of its elements: it broadcasts anyway.
        of_rows = wide is not None and isinstance(act.base, Length) and wide[:-1] == act.shape[:-1]
        if wide != act.shape and not of_rows:
            raise draft.fail(node, "repeats an activation, which is not supported")
    return [act]


_FLOATS = (1, 10, 11, 16)  # float, float16, double, bfloat16 of onnx.TensorProto


def shape(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Shape of an activation."""
    sizes = act_of(draft, node, inputs).shape
    options = attributes(node)
    return [Known(array=np.array(sizes[options.get("start", 0) : options.get("end")], np.int64))]


def reshape(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Reshape and Flatten."""
    act = act_of(draft, node, inputs)
    sizes = act.shape
    if node.op_type == "Flatten":
        axis = attributes(node).get("axis", 1) % (len(sizes) + 1)
        wanted = [math.prod(sizes[:axis]), math.prod(sizes[axis:])]
    else:
        given = constant(draft, node, inputs, 1)
        if given is None:
            given = np.array(attributes(node)["shape"])
        wanted = given.tolist()
        if not attributes(node).get("allowzero", 0):
            wanted = [sizes[i] if size == 0 else size for i, size in enumerate(wanted)]
        if -1 in wanted:
            others = math.prod(size for size in wanted if size != -1)
            wanted[wanted.index(-1)] = math.prod(sizes) // max(others, 1)
    view = act.view.reshape(wanted)
    if view is None:
        raise draft.fail(node, f"makes {wanted} of {list(sizes)}, which is not supported")
    return [act.seen(view)]


def transpose(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Transpose."""
    act = act_of(draft, node, inputs)
    rank = len(act.shape)
    return [act.seen(act.view.transpose(attributes(node).get("perm", range(rank)[::-1])))]


def squeeze(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Squeeze and Unsqueeze."""
    act = act_of(draft, node, inputs)
    rank = len(act.shape)
    if node.op_type == "Unsqueeze":
        given = constant(draft, node, inputs, 1)
        axes = attributes(node)["axes"] if given is None else given.reshape(-1).tolist()
        full = rank + len(axes)
        return [act.seen(act.view.unsqueeze([axis_of(draft, node, one, full) for one in axes]))]
    found = axes_of(draft, node, inputs, rank)
    if found is None:
        found = [axis for axis, size in enumerate(act.shape) if size == 1]
    return [act.seen(act.view.squeeze(found))]


# ---- slices -------------------------------------------------------------------------------------


def _select(draft: Draft, node: NodeProto, act: Act, axis: int, index: int, number: int) -> Act:
    """One slice along an axis, that axis kept with size 1; `number` is that of the output."""
    name = draft.plain(act, node)
    size = act.of[axis]
    if axis < len(act.of) - 2 or not -size <= index < size:
        raise draft.fail(node, f"takes index {index} of axis {axis}, which is not supported")
    kept = tuple(part for i, part in enumerate(act.of) if i != axis)
    if size == 1 and axis == len(act.of) - 2:
        # The sample has one token, but so need not the graph.
        raise draft.fail(node, "selects one of one token")
    out = ir.Select(
        out=f"{node.output[number]}", x=name, axis=axis - len(act.of), index=index % size
    )
    made = draft.emit(out, kept)
    return made.seen(made.view.unsqueeze([axis]))


def gather(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Rows of an embedding table, or one slice of an activation."""
    data, index = inputs
    axis = attributes(node).get("axis", 0)
    if isinstance(data, Known) and isinstance(index, Known):
        table = data.array
        real = data.constant and table.ndim == 2 and table.dtype.kind not in "iub" and axis == 0
        if real and index.origin is not None:
            hidden = table.shape[1]
            found = Sum(parts=((table, index.origin),), shape=(*index.array.shape, hidden))
            return [Act.plain(found, found.shape)]
        known = draft.fold(node, inputs)
        if real:
            # The index may say more of positions than a table of equal rows does.
            return [replace(known[0], sources=index.sources, table=table, index=index.array)]
        return list(known)
    act = act_of(draft, node, inputs)
    where = constant(draft, node, inputs, 1)
    if where is None or where.size != 1:
        raise draft.fail(node, "takes more than one slice of an activation")
    axis = axis_of(draft, node, axis, len(act.shape))
    made = _select(draft, node, act, axis, int(where.reshape(-1)[0]), 0)
    return [made.seen(made.view.squeeze([axis])) if where.ndim == 0 else made]


def cut(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Slice."""
    act = act_of(draft, node, inputs)
    options = attributes(node)
    parts = [
        constant(draft, node, inputs, i + 1)
        if len(node.input) > 1
        else np.array(options[name])
        if name in options
        else None
        for i, name in enumerate(("starts", "ends", "axes", "steps"))
    ]
    starts, ends, axes, steps = parts
    if starts is None or ends is None:
        raise draft.fail(node)
    rank = len(act.shape)
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = axis_of(draft, node, i if axes is None else int(axes[i]), rank)
        first, last, step = slice(start, end, None if steps is None else int(steps[i])).indices(
            act.shape[axis]
        )
        if (first, last, step) == (0, act.shape[axis], 1):
            continue
        if (last - first, step) != (1, 1):
            raise draft.fail(node, "takes more than one slice of an activation")
        act = _select(draft, node, act, axis, first, 0)
    return [act]


def split(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Split into slices of one."""
    act = act_of(draft, node, inputs)
    axis = axis_of(draft, node, attributes(node).get("axis", 0), len(act.shape))
    if len(node.output) != act.shape[axis]:
        raise draft.fail(node, "cuts an activation into slices of more than one")
    return [_select(draft, node, act, axis, i, i) for i in range(len(node.output))]


# ---- sums and means -----------------------------------------------------------------------------


def mean(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """ReduceMean over the last axis: the two means of a LayerNorm; or over the tokens."""
    act = act_of(draft, node, inputs)
    axes = axes_of(draft, node, inputs, len(act.shape))
    if axes == [1] and len(act.of) == 3:
        batch, tokens, _ = act.of
        share = Known(array=np.full((batch, tokens), 1 / tokens))
        return [summed(draft, node, weighted(draft, node, act, share))]
    if axes != [len(act.shape) - 1] or not attributes(node).get("keepdims", 1):
        raise draft.fail(node, "takes a mean over other axes than the last or the tokens")
    shape_ = (*act.of[:-1], 1)
    if isinstance(act.base, Centred) and act.squared:
        base: Any = Variance(x=act.base.x, shape=shape_)
    else:
        base = Mean(x=draft.rows(act, node), shape=shape_)
    return [Act(base=base, of=shape_, view=act.view.with_width(act.of, 1))]


def total(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """ReduceSum over the tokens, or of squares over the last axis; ReduceSumSquare, ReduceL2."""
    act = act_of(draft, node, inputs)
    axes = axes_of(draft, node, inputs, len(act.shape))
    if node.op_type == "ReduceSum" and isinstance(act.base, Weighted) and axes == [1]:
        return [summed(draft, node, act)]
    squares = node.op_type == "ReduceSum"
    if axes != [len(act.shape) - 1] or (squares and not act.squared):
        raise draft.fail(node, "sums neither tokens that a mask chose nor the squares of a row")
    if squares:
        act = act.curved(GRID)
    shape_ = (*act.of[:-1], 1)
    base = Length(x=draft.rows(act, node), squared=node.op_type != "ReduceL2", shape=shape_)
    out = Act(base=base, of=shape_, view=act.view.with_width(act.of, 1))
    if attributes(node).get("keepdims", 1):
        return [out]
    return [out.seen(out.view.squeeze([len(out.shape) - 1]))]


def unit(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """LpNormalization: rows over their lengths."""
    act, options = act_of(draft, node, inputs), attributes(node)
    axis = axis_of(draft, node, options.get("axis", -1), len(act.shape))
    if axis != len(act.shape) - 1 or options.get("p", 2) != 2:
        raise draft.fail(node, "normalizes otherwise than rows to length 1")
    made = draft.emit(ir.UnitLength(out=node.output[0], x=draft.rows(act, node)), act.of)
    return [made.seen(act.view)]


HANDLERS: dict[str, Handler] = {
    "Identity": same,
    "Dropout": same,
    "Cast": same,
    "Expand": same,
    "Shape": shape,
    "Reshape": reshape,
    "Flatten": reshape,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": squeeze,
    "Gather": gather,
    "Slice": cut,
    "Split": split,
    "ReduceMean": mean,
    "ReduceSum": total,
    "ReduceSumSquare": total,
    "ReduceL2": total,
    "LpNormalization": unit,
}
"""Operators by name."""
