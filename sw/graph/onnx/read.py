"""ONNX files: read with their external data, checked, functions inlined, dead nodes dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, numpy_helper

from tilewright.sw.graph.errors import GraphError

STANDARD = ("", "ai.onnx")
MICROSOFT = "com.microsoft"
"""Domain of the operators ONNX Runtime fuses to."""
_OLDEST = 7
"""Operator set from which on shapes broadcast as they do today."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An ONNX graph.

    Attributes
    ----------
    nodes : tuple of NodeProto
        Those the outputs depend on, in order.
    constants : dict of str to ndarray
        Initializers.
    inputs : tuple of ValueInfoProto
        What must be fed.
    outputs : tuple of str
    opset : int
        Of the standard operators.
    """

    nodes: tuple[NodeProto, ...]
    constants: dict[str, npt.NDArray[Any]]
    inputs: tuple[ValueInfoProto, ...]
    outputs: tuple[str, ...]
    opset: int

    def readers(self, name: str) -> list[NodeProto]:
        """Nodes that read a tensor."""
        return [node for node in self.nodes if name in node.input]


def title(node: NodeProto) -> str:
    """An operator and its node, for messages."""
    kind = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
    return f"{kind} {node.name or next(iter(node.output), '')!r}"


def read(path: Path, outputs: Sequence[str] | None = None) -> Source:
    """Read a file, or what some of its outputs (or of the tensors inside) need.

    Raises
    ------
    GraphError
        Missing, truncated or foreign file, missing external data, a graph that is not valid.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise GraphError(f"cannot read {path}: no such file") from error
    except Exception as error:  # protobuf's, the checker's and NumPy's have no common base
        raise GraphError(f"cannot read {path}: {first_line(error)}") from error
    return source_of(model, str(path), outputs)


def source_of(
    model: ModelProto, name: str = "the model", outputs: Sequence[str] | None = None
) -> Source:
    """The same of a model in memory; `name` is for messages."""
    if not model.HasField("graph") or not model.graph.output:
        raise GraphError(f"{name} is no ONNX model: it has no graph with an output")
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        raise GraphError(f"cannot read {name}: {first_line(error)}") from error
    if model.graph.sparse_initializer:
        raise GraphError(f"{name}: sparse initializers are not supported")
    opset = next((one.version for one in model.opset_import if one.domain in STANDARD), 0)
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST <= opset <= newest:
        raise GraphError(f"{name}: operator set {opset}: must be {_OLDEST} to {newest}")
    _check_names(model.graph, name)
    has = tuple(one.name for one in model.graph.output)
    made = {one for node in model.graph.node for one in node.output}
    for one in outputs or ():
        if one not in {*has, *made}:
            raise GraphError(f"{name} has no output {one!r}; it has {', '.join(has)}")
    outputs = tuple(outputs or has)
    inputs = tuple(one for one in model.graph.input if one.name not in constants)
    nodes = _needed(model, outputs)
    _check(nodes, {*constants, *(one.name for one in inputs)}, outputs, name)
    return Source(nodes=nodes, constants=constants, inputs=inputs, outputs=outputs, opset=opset)


def _check_names(graph: GraphProto, name: str) -> None:
    """Refuse what is made twice, used or not, and sizes that are none."""
    made = set[str]()
    # An initializer may give an input its default.
    inputs = [
        one.name for one in graph.input if one.name not in {i.name for i in graph.initializer}
    ]
    outputs = [one for node in graph.node for one in node.output if one]
    for one in (*(i.name for i in graph.initializer), *inputs, *outputs):
        if one in made:
            raise GraphError(f"{name}: {one!r} is made twice")
        made.add(one)
    shapes = {one.name: list(one.dims) for one in graph.initializer}
    for value in (*graph.input, *graph.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    for one, shape in shapes.items():
        if min(shape, default=0) < 0:
            raise GraphError(f"{name}: {one!r} has a dimension of {min(shape)}")


def _needed(model: ModelProto, outputs: tuple[str, ...]) -> tuple[NodeProto, ...]:
    needed, kept = set(outputs), list[NodeProto]()
    for node in reversed(model.graph.node):
        if needed.intersection(filter(None, node.output)):
            needed.update(node.input)
            kept.append(node)
    return tuple(reversed(kept))


def _check(
    nodes: tuple[NodeProto, ...], known: set[str], outputs: tuple[str, ...], name: str
) -> None:
    made = set(known)
    for node in nodes:
        for one in filter(None, node.input):
            if one not in made:
                raise GraphError(f"{name}: {title(node)} reads {one!r}, which nothing before makes")
        for attribute in node.attribute:
            if attribute.type in (attribute.GRAPH, attribute.GRAPHS):
                raise GraphError(f"{name}: operator {title(node)} with a subgraph is not supported")
        made.update(node.output)
    for one in outputs:
        if one not in made:
            raise GraphError(f"{name}: nothing makes the output {one!r}")


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes of a node; strings as str, tensors as arrays."""
    out: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        out[attribute.name] = value
    return out


def f32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A contiguous fp32 copy of what is exact or rounded in it."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
