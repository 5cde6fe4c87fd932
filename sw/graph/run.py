"""What a graph computes, in fp32 NumPy: the reference for whatever runs it elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.graph import ir
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.models import functions

Values = dict[str, npt.NDArray[Any]]

_KINDS = {"f32": "f", "i64": "iu", "bool": "bui"}
_DTYPES = {"f32": np.float32, "i64": np.int64, "bool": np.bool_}


def run_fp32(graph: ir.Graph, inputs: Mapping[str, npt.NDArray[Any]]) -> Values:
    """Evaluate a graph.

    Parameters
    ----------
    graph : Graph
    inputs : mapping
        Arrays by the names of the graph's inputs.

    Returns
    -------
    dict
        The outputs by name, float32.

    Raises
    ------
    GraphError
        A missing input, a wrong type or shape, ids outside a table; NaN or infinity, in an input or
        in a result that fp32 does not hold. Minus infinity may mask scores of a softmax.
    """
    return evaluate(graph, inputs, run_node)


def evaluate(
    graph: ir.Graph,
    inputs: Mapping[str, npt.NDArray[Any]],
    compute: Callable[[ir.Node, Values], npt.NDArray[Any]],
) -> Values:
    """Evaluate a graph node by node with the caller's arithmetic; else as `run_fp32`."""
    values: Values = {}
    sizes: dict[str, int] = {}
    for tensor in graph.inputs:
        if tensor.name not in inputs:
            raise GraphError(f"input {tensor} is missing")
        array = np.asarray(inputs[tensor.name])
        if array.dtype.kind not in _KINDS[tensor.dtype]:
            raise GraphError(f"input {tensor} is given as {array.dtype}")
        fits = array.ndim == len(tensor.shape)
        for dim, size in zip(tensor.shape, array.shape, strict=False):
            fits &= size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        if not fits:
            raise GraphError(f"input {tensor} is given with shape {list(array.shape)}")
        with np.errstate(over="ignore"):
            values[tensor.name] = array.astype(_DTYPES[tensor.dtype], copy=False)
        _check(graph, tensor.name, f"input {tensor}", values)
    for node in graph.nodes:
        # What leaves the range of fp32 is told by the check, as an error.
        with np.errstate(all="ignore"):
            values[node.out] = compute(node, values)
        _check(graph, node.out, f"{type(node).__name__} {node.out}", values)
    return {name: values[name] for name in graph.outputs}


def _check(graph: ir.Graph, name: str, title: str, values: Values) -> None:
    """Refuse NaN and infinity, but for minus infinity where it masks scores."""
    array = values[name]
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    masked = np.isneginf(array)
    if np.isfinite(array[~masked]).all() and _masks(graph, name):
        return
    raise GraphError(f"{title} holds {'NaN' if np.isnan(array).any() else 'infinity'}")


def _masks(graph: ir.Graph, name: str) -> bool:
    """Whether a tensor is only scores of a softmax, or added to them."""
    return name not in graph.outputs and all(
        isinstance(node, ir.Softmax) or (isinstance(node, ir.Add) and _masks(graph, node.out))
        for node in graph.readers(name)
    )


def padded_positions(ids: npt.NDArray[Any], padding: int) -> npt.NDArray[Any]:
    """Positions that count the ids that are no padding, along the last axis; see `ir.LookUp`."""
    real = ids != padding
    return padding + np.cumsum(real, axis=-1) * real


@singledispatch
def run_node(node: ir.Node, v: Values) -> npt.NDArray[Any]:
    """One node in fp32, on the values there are."""
    raise NotImplementedError(type(node).__name__)


@run_node.register
def _(node: ir.LookUp, v: Values) -> npt.NDArray[Any]:
    ids = v[node.ids]
    types = np.zeros_like(ids) if node.types is None else v[node.types]
    length = ids.shape[-1]
    if length > node.longest:
        raise GraphError(f"{node.out}: {length} tokens: must be at most {node.longest}")
    for name, index, table in (("ids", ids, node.word), ("types", types, node.type)):
        if index.size and not (index.min() >= 0 and index.max() < len(table)):
            raise GraphError(f"{node.out}: {name} must be 0 to {len(table) - 1}")
    position = np.arange(length) if node.padding is None else padded_positions(ids, node.padding)
    out: npt.NDArray[Any] = node.word[ids] + node.position[position] + node.type[types]
    return out


@run_node.register
def _(node: ir.Linear, v: Values) -> npt.NDArray[Any]:
    product: npt.NDArray[Any] = v[node.x] @ node.w
    return product if node.b is None else product + node.b


@run_node.register
def _(node: ir.MatMul, v: Values) -> npt.NDArray[Any]:
    b = v[node.b]
    out: npt.NDArray[Any] = v[node.a] @ (b.swapaxes(-1, -2) if node.transposed else b)
    return out


@run_node.register
def _(node: ir.Softmax, v: Values) -> npt.NDArray[Any]:
    return functions.softmax(scores_of(node, v))


def scores_of(node: ir.Softmax, v: Values) -> npt.NDArray[Any]:
    """The input of a softmax, which must not be masked throughout."""
    x = v[node.x]
    if np.isneginf(x).all(axis=-1).any():
        raise GraphError(f"Softmax {node.out}: a row holds nothing but -inf, so it has no softmax")
    return x


@run_node.register
def _(node: ir.Activation, v: Values) -> npt.NDArray[Any]:
    return functions.HOST_FUNCTIONS[node.function](v[node.x])


@run_node.register
def _(node: ir.LayerNorm, v: Values) -> npt.NDArray[Any]:
    return functions.layer_norm(v[node.x], node.gamma, node.beta, node.eps)


@run_node.register
def _(node: ir.Add, v: Values) -> npt.NDArray[Any]:
    out: npt.NDArray[Any] = v[node.a] + v[node.b]
    return out


@run_node.register
def _(node: ir.Attention, v: Values) -> npt.NDArray[Any]:
    mask = None if node.mask is None else v[node.mask]
    q, k, w = v[node.q], v[node.k], v[node.v]
    return functions.attention(q, k, w, heads=node.heads, scale=node.scale, mask=mask)


@run_node.register
def _(node: ir.Select, v: Values) -> npt.NDArray[Any]:
    return np.take(v[node.x], node.index, axis=node.axis)


@run_node.register
def _(node: ir.TokenMean, v: Values) -> npt.NDArray[Any]:
    x = v[node.x]
    return functions.token_mean(
        x, np.ones(x.shape[:-1], np.bool_) if node.mask is None else v[node.mask]
    )


@run_node.register
def _(node: ir.UnitLength, v: Values) -> npt.NDArray[Any]:
    return functions.unit_length(v[node.x])
