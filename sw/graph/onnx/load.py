"""ONNX to the internal graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx.defs
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.helper import tensor_dtype_to_np_dtype

from tilewright.sw.graph import ir
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.onnx import fused, pointwise, products, standard
from tilewright.sw.graph.onnx.draft import Draft
from tilewright.sw.graph.onnx.masks import sample_mask
from tilewright.sw.graph.onnx.read import MICROSOFT, STANDARD, Source, read, source_of
from tilewright.sw.graph.onnx.standard import Handler
from tilewright.sw.graph.onnx.values import Act, Known, Value

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)

_QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QLinearMatMul",
    "QGemm",
    "QAttention",
    "QEmbedLayerNormalization",
    "QOrderedMatMul",
)
_SAMPLES = (2, 3, 5, 7, 11, 13)
"""Sizes that stand for open dimensions: first the batch and the sequence."""
_AGAIN = (3, 131, 17, 19, 23, 29)
"""Sizes to read a graph with once more; the sequence is cut at the positions there are."""


def import_onnx(path: Path, outputs: Sequence[str] | None = None) -> ir.Graph:
    """Read an ONNX file into the internal graph.

    A whole encoder with or without a head, or a single product, softmax, GELU, LayerNorm or
    feed-forward block; unfused as exporters write them or fused as ONNX Runtime does. Operators are
    recognized by what they compute, names mean nothing.

    Parameters
    ----------
    path : Path
    outputs : sequence of str, optional
        Which of the file's outputs to import, or of the tensors inside, where not all of its
        outputs can be; all of them by default.

    Raises
    ------
    GraphError
        A file that cannot be read; an operator that is not supported, with its node and what it
        feeds; a graph that is quantized already; NaN in a weight; a graph whose meaning depends on
        the size of an open dimension.
    """
    return _import(read(path, outputs))


def import_model(model: ModelProto, outputs: Sequence[str] | None = None) -> ir.Graph:
    """The same of a model in memory."""
    return _import(source_of(model, outputs=outputs))


def _import(source: Source) -> ir.Graph:
    graph = _read_with(source, _SAMPLES)
    if all(isinstance(dim, int) for tensor in graph.inputs for dim in tensor.shape):
        return graph
    # What was computed from sample sizes must not depend on them: a window of attention, say.
    tables = [node for node in graph.nodes if isinstance(node, ir.LookUp)]
    batch, sequence, *others = _AGAIN
    sequence = min([sequence, *(node.longest for node in tables)])
    again = _read_with(source, (batch, sequence, *others))
    if (graph.outputs, len(graph.nodes)) != (again.outputs, len(again.nodes)):
        raise GraphError("the graph has other nodes where an open dimension has another size")
    for one, other in zip(graph.nodes, again.nodes, strict=True):
        if not one.equals(other):
            kind = type(one).__name__
            raise GraphError(f"{kind} {one.out}: depends on the size of an open dimension")
    return graph


def survey(path: Path) -> tuple[ir.Graph, tuple[str, ...]]:
    """What of a file can be read.

    Returns
    -------
    graph : Graph
        All that could be imported; its outputs are the last tensors on the way to those of the file
        that could.
    outputs : tuple of str
        Those of the file's outputs that can be imported.

    Raises
    ------
    GraphError
        As `import_onnx`, or if nothing at all can be read.
    """
    draft, inputs = _draft(read(path), _SAMPLES)
    makers = {name: node for node in draft.source.nodes for name in node.output}
    made, queue = dict[str, str](), list(draft.source.outputs)
    for name in queue:
        inner = _found(draft, name)
        if inner is not None:
            made[name] = inner
        elif name in makers:
            queue += (one for one in makers[name].input if one not in queue)
    return _graph(draft, inputs, made), tuple(name for name in draft.source.outputs if name in made)


def _read_with(source: Source, samples: tuple[int, ...]) -> ir.Graph:
    draft, inputs = _draft(source, samples)
    return _graph(draft, inputs, {name: _output(draft, name) for name in source.outputs})


def _draft(source: Source, samples: tuple[int, ...]) -> tuple[Draft, _Inputs]:
    draft = Draft(source)
    inputs = _Inputs(draft, samples)
    for name, array in source.constants.items():
        draft.values[name] = Known(array=array)
    for node in source.nodes:
        try:
            found = _values(draft, node)
        except GraphError as error:
            # Of no consequence unless an output depends on it.
            draft.failed.update(dict.fromkeys(node.output, error))
            continue
        for name, value in zip(node.output, found, strict=False):
            if name:
                draft.values[name] = replace(value, node=node) if isinstance(value, Act) else value
    return draft, inputs


def _graph(draft: Draft, inputs: _Inputs, made: dict[str, str]) -> ir.Graph:
    nodes = _needed(draft, list(made.values()))
    # An output that is a tensor seen through a cast or an axis keeps the name it has in the file.
    names = {inner: name for name, inner in reversed(made.items())}
    nodes = tuple(node.renamed(names) for node in nodes)
    outputs = tuple(dict.fromkeys(names.get(inner, inner) for inner in made.values()))
    return ir.Graph(inputs=inputs.used(nodes), outputs=outputs, nodes=nodes)


def _handler(node: NodeProto) -> Handler | None:
    if node.domain == MICROSOFT:
        return fused.MICROSOFT.get(node.op_type)
    if node.domain not in STANDARD:
        return None
    for table in (standard.HANDLERS, products.HANDLERS, pointwise.HANDLERS, fused.STANDARD):
        if node.op_type in table:
            return table[node.op_type]
    return None


def _values(draft: Draft, node: NodeProto) -> list[Value]:
    for name in node.input:
        if name in draft.failed:
            raise draft.failed[name]
    if node.op_type in _QUANTIZED:
        raise draft.fail(node, "is of a quantized graph: import the fp32 graph it was made from")
    inputs: list[Value | None] = []
    for name in node.input:
        if name and name not in draft.values:
            raise draft.fail(node, f"reads {name!r}, an output that is not supported")
        inputs.append(draft.values[name] if name else None)
    _check_form(draft, node)
    handler = _handler(node)
    numbers = all(isinstance(value, Known | None) for value in inputs)
    # The two operators that make an activation of numbers: rows of a table.
    if numbers and handler not in (standard.gather, fused.embed_layer_norm):
        first = inputs[0] if inputs else None
        if node.op_type in ("Identity", "Cast") and isinstance(first, Known) and first.origin:
            return [replace(known, origin=first.origin) for known in draft.fold(node, inputs)]
        return list(draft.fold(node, inputs))
    if handler is None:
        raise draft.fail(node)
    try:
        return handler(draft, node, inputs)
    except (ArithmeticError, LookupError, TypeError, ValueError, AssertionError) as error:
        # Inputs or attributes of values or sizes that the operator cannot have.
        raise draft.fail(node, "is malformed: its inputs or attributes do not fit") from error


def _check_form(draft: Draft, node: NodeProto) -> None:
    """Refuse an operator of ONNX whose inputs or attributes are not those of its definition."""
    domain = "" if node.domain in STANDARD else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, draft.source.opset, domain)
    except onnx.defs.SchemaError:
        return  # ONNX Runtime has operators of its own, and ONNX's before they were ONNX's.
    count, least, most = len(node.input), schema.min_input, schema.max_input
    if not least <= count <= most:
        span = (
            least if least == most else f"at least {least}" if count < least else f"at most {most}"
        )
        raise draft.fail(node, f"has the wrong number of inputs: expected {span}, got {count}")
    given = {one.name for one in node.attribute}
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in given:
            raise draft.fail(node, f"lacks its attribute {name!r}")


def _output(draft: Draft, name: str) -> str:
    if name in draft.failed:
        raise draft.failed[name]
    value = draft.values.get(name)
    node = next((one for one in draft.source.nodes if name in one.output), None)
    if not isinstance(value, Act) or node is None:
        raise GraphError(f"output {name}: is no activation, so there is nothing to compute")
    made = draft.plain(value, node)
    if made not in draft.nodes:
        raise GraphError(f"output {name}: is an input as it is, so there is nothing to compute")
    return made


def _found(draft: Draft, name: str) -> str | None:
    """The tensor behind a name; None where there is none."""
    try:
        return _output(draft, name)
    except GraphError:
        return None


def _needed(draft: Draft, outputs: list[str]) -> tuple[ir.Node, ...]:
    needed, kept = set(outputs), list[ir.Node]()
    for node in reversed(draft.nodes.values()):
        if node.out in needed:
            needed.update(name for name, _ in node.inputs())
            kept.append(node)
    return tuple(reversed(kept))


class _Inputs:
    """The graph's inputs: sample sizes and values going in, tensors coming out."""

    def __init__(self, draft: Draft, samples: tuple[int, ...]) -> None:
        self._draft = draft
        self._samples = samples
        self._shapes: dict[str, ir.Shape] = {}
        self._sizes: dict[str, int] = {}
        infos = draft.source.inputs
        tokens = [one for one in infos if one.type.tensor_type.elem_type in _INTEGERS]
        for one in (*tokens, *(one for one in infos if one not in tokens)):
            self._add(one, bool(tokens))

    def _add(self, info: ValueInfoProto, tokens: bool) -> None:
        name, kind = info.name, info.type.tensor_type
        if not info.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise GraphError(f"input {name}: must be a tensor of a known number of axes")
        if kind.elem_type not in (*_FLOATS, *_INTEGERS):
            dtype = TensorProto.DataType.Name(kind.elem_type)
            raise GraphError(f"input {name}: type {dtype} is not supported")
        real = kind.elem_type in _FLOATS
        # Beside token ids, reals of two axes can only be a mask.
        masks = tokens and real and len(kind.shape.dim) == 2
        if (not real or masks) and len(kind.shape.dim) != 2:
            raise GraphError(f"input {name}: ids, types and masks must be [batch, sequence]")
        shape: list[int | str] = []
        sample: list[int] = []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value"):
                size, given = dim.dim_value, dim.dim_value
            else:
                # Exporters name the same axis of two inputs differently.
                both = not real or masks
                given = ("batch", "sequence")[axis] if both else dim.dim_param or f"{name}.{axis}"
                size = self._size(given, dim.dim_param)
            if size < 1:
                raise GraphError(f"input {name}: an axis of {size} elements")
            shape.append(given)
            sample.append(size)
        self._shapes[name] = tuple(shape)
        if real and not masks:
            self._draft.values[name] = Act.plain(name, tuple(sample))
            return
        dtype = tensor_dtype_to_np_dtype(kind.elem_type)
        array = sample_mask(sample[0], sample[1]).astype(dtype)
        self._draft.values[name] = Known(array=array, sources=frozenset([name]), origin=name)

    def _size(self, name: str, alias: str) -> int:
        if name not in self._sizes:
            used = len(set(self._sizes.values()))
            fixed = {"batch": self._samples[0], "sequence": self._samples[1]}
            free = self._samples[2:][used % len(self._samples[2:])]
            self._sizes[name] = fixed.get(name, self._sizes.get(alias, free))
        if alias:
            self._sizes.setdefault(alias, self._sizes[name])
        return self._sizes[name]

    def used(self, nodes: tuple[ir.Node, ...]) -> tuple[ir.Tensor, ...]:
        """The inputs the nodes read, in the order of the file.

        Raises
        ------
        GraphError
            If one input is read as two things.
        """
        dtypes: dict[str, str] = {}
        for node in nodes:
            for name, dtype in node.inputs():
                if name in self._shapes and dtypes.setdefault(name, dtype) != dtype:
                    raise GraphError(f"input {name} is read as ids and as a mask")
        return tuple(
            ir.Tensor(name=one.name, shape=self._shapes[one.name], dtype=dtypes[one.name])
            for one in self._draft.source.inputs
            if one.name in dtypes
        )
