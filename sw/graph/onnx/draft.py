"""An internal graph in the making: its nodes so far, and how stages become nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, ValueInfoProto
from onnx.helper import make_graph
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tilewright.sw.graph import ir
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.onnx.read import STANDARD, Source, f32, first_line, title
from tilewright.sw.graph.onnx.values import (
    Act,
    Array,
    Known,
    Length,
    Scores,
    Sum,
    TokenSum,
    Value,
    Weighted,
    function_of,
)
from tilewright.sw.graph.onnx.view import View


class Draft:
    """Values by name, the nodes they came to, and why there is none where there is none.

    Parameters
    ----------
    source : Source
        Where the nodes come from; for its operator set and for messages.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values: dict[str, Value] = {}
        self.nodes: dict[str, ir.Node] = {}
        self.failed: dict[str, GraphError] = {}
        self._sums: dict[Sum, str] = {}

    def fail(self, node: NodeProto, why: str = "is not supported") -> GraphError:
        """The error that names an operator, its node, and what it feeds."""
        fed = [title(one) for name in node.output if name for one in self.source.readers(name)]
        where = f"feeds {fed[0]}" if fed else "makes an output"
        return GraphError(f"operator {title(node)} ({where}) {why}")

    def emit(self, node: ir.Node, shape: tuple[int, ...]) -> Act:
        """Add a node of the internal graph whose output has the given sample shape."""
        if node.out in self.nodes:
            raise GraphError(f"tensor {node.out!r} is made twice")
        self.nodes[node.out] = node
        return Act.plain(node.out, shape)

    def made(self, act: Act) -> ir.Node | None:
        """The node behind an activation that is a tensor without a curve."""
        if act.curve is not None or not isinstance(act.base, str):
            return None
        return self.nodes.get(act.base)

    def rows(self, act: Value, node: NodeProto) -> str:
        """The tensor behind an activation, to work on its rows; its view may permute them.

        Raises
        ------
        GraphError
            Naming the operator that is not supported: the one that made the activation, if that
            came to no tensor, else the one that reads it.
        """
        if isinstance(act, Known):
            raise self.fail(node, "needs an activation where it has a constant or a mask")
        for kind, why in _UNFINISHED.items():
            if isinstance(act.base, kind):
                raise self.fail(act.node or node, why)
        if act.curve is not None or not isinstance(act.base, str | Sum):
            raise self.fail(act.node or node)
        if not act.view.is_rows(act.of):
            raise self.fail(node, "works on another axis than the last")
        return self.tensor(act.base, node) if isinstance(act.base, Sum) else act.base

    def plain(self, act: Value, node: NodeProto) -> str:
        """The tensor an activation is, its axes as they are.

        Raises
        ------
        GraphError
            Naming the operator that is not supported.
        """
        if isinstance(act, Act) and isinstance(act.base, Scores):
            act = self.product(act, act.base, node)
        if isinstance(act, Act) and act.curve is None and act.view != View.of(act.of):
            raise self.fail(act.node or node)
        return self.rows(act, node)

    def tensor(self, total: Sum, node: NodeProto) -> str:
        """The look-up that a sum of embedding rows is."""
        if total in self._sums:
            return self._sums[total]
        # The vocabulary is the longest table.
        parts = sorted(total.parts, key=lambda part: -len(part[0]))
        if len(parts) > 2:
            raise self.fail(node, f"adds {len(parts)} embeddings of inputs, 2 at most are known")
        word, ids = parts[0]
        hidden = word.shape[1]
        kind, types = parts[1] if len(parts) == 2 else (total.type, None)
        if types is not None and kind is not None and total.type is not None:
            # A second table of which every token has row 0: that of tasks.
            kind = kind + total.type[:1]
        if total.position is None:
            raise self.fail(node, "normalizes an embedding without positions")
        name = f"{node.output[0]}.embedding"
        none = np.zeros((1, hidden), np.float32)
        look_up = ir.LookUp(
            out=name,
            ids=ids,
            types=types,
            word=f32(word),
            position=f32(total.position),
            type=none if kind is None else f32(kind),
            padding=total.padding,
        )
        self.emit(look_up, total.shape)
        self._sums[total] = name
        return name

    def product(self, act: Act, scores: Scores, node: NodeProto) -> Act:
        """Scores that are no part of an attention as the product (and softmax) they are."""
        slope = act.slope
        if scores.heads != 1 or scores.mask or slope is None or slope * scores.scale != 1:
            raise self.fail(act.node or node, "is no part of an attention")
        name = f"{scores.q}@{scores.k}"
        # One head: the axis of the heads has size 1, so the view is that of the product itself.
        shape = (*scores.shape[:-3], *scores.shape[-2:])
        if name not in self.nodes:
            self.emit(ir.MatMul(out=name, a=scores.q, b=scores.k, transposed=True), shape)
        if scores.normal:
            name, inner = f"softmax({name})", name
            if name not in self.nodes:
                self.emit(ir.Softmax(out=name, x=inner), shape)
        flat = Act.plain(name, shape)
        view = flat.view.reshape(act.shape)
        in_order = act.view.flat == Act.plain(scores, scores.shape).view.flat
        if view is None or not in_order:
            raise self.fail(act.node or node)
        return flat.seen(view)

    def curved(self, act: Act, curve: Array, node: NodeProto) -> Act:
        """An activation with a curve; a curve that is an activation function becomes a node."""
        function = function_of(curve)
        if function is None or not isinstance(act.base, str):
            return act.curved(curve)
        made = self.emit(ir.Activation(out=node.output[0], x=act.base, function=function), act.of)
        return made.seen(act.view)

    def fold(self, node: NodeProto, inputs: list[Value | None]) -> list[Known]:
        """Evaluate an operator whose inputs are all numbers."""
        known = [value for value in inputs if isinstance(value, Known)]
        if node.domain not in STANDARD:
            raise self.fail(node)
        feeds = {
            name: value.array
            for name, value in zip(node.input, inputs, strict=True)
            if isinstance(value, Known)
        }
        try:
            found = _evaluate(node, feeds, self.source.opset)
        except Exception as error:  # whatever the reference implementation raises
            raise self.fail(node, f"cannot be evaluated: {first_line(error)}") from error
        sources = frozenset[str]().union(*(value.sources for value in known))
        if _is_fixed(node, known):
            sources = frozenset()
        return [Known(array=np.asarray(array), sources=sources) for array in found]


def _is_fixed(node: NodeProto, inputs: list[Known]) -> bool:
    """Whether a result does not depend on the samples it is made from.

    A shape does not, nor what is gathered from equal numbers: token types by their positions.
    """
    if node.op_type in ("Gather", "GatherElements"):
        data = inputs[0]
        return (
            data.constant and data.array.size > 0 and bool((data.array == data.array.flat[0]).all())
        )
    return node.op_type in ("Shape", "Size")


_UNFINISHED: dict[type, str] = {
    Weighted: "weighs tokens otherwise than for a mean over them, which is not supported",
    TokenSum: "sums tokens otherwise than for a mean over them, which is not supported",
    Length: "is the length of rows, which are not divided by it, which is not supported",
}
"""Stages that need more operators to be something, and what is said where those are not there."""


class GatherElements(OpRun):
    """The operator as its specification has it.

    That of the `onnx` package fails where indices and data differ in more axes than one, and where
    the axis has more than 32 elements.
    """

    op_domain = ""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        places: list[Array] = list(np.indices(indices.shape, sparse=True))
        places[axis] = indices
        return (data[tuple(places)],)


def _evaluate(node: NodeProto, feeds: dict[str, Array], opset: int) -> list[Any]:
    inputs = [ValueInfoProto(name=name) for name in feeds]
    outputs = [ValueInfoProto(name=name) for name in node.output if name]
    graph = make_graph([node], "fold", inputs, outputs)
    evaluator = ReferenceEvaluator(graph, opsets={"": opset}, new_ops=[GatherElements])
    return list(evaluator.run(None, feeds))
