"""Encoders and their heads, to and from the internal graph.

Whatever a model came from, its encoder ends as one `Bert`: what is computed from there on, bit by
bit, does not depend on the way in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tilewright.sw.graph import ir
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.models import bert, heads
from tilewright.sw.models.bert import Bert, BertConfig
from tilewright.sw.models.functions import F32, table_of

N = TypeVar("N", bound=ir.Node)

_TOLERANCE = 1e-3
"""Of the scores' factor: half precision rounds it by half of that."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """An encoder found in a graph.

    Attributes
    ----------
    model : Bert
    ids : str
        Input that holds the token ids.
    types, mask : str or None
        Inputs that hold token types and valid tokens.
    hidden : str
        Tensor of the last layer's output.
    """

    model: Bert
    ids: str
    types: str | None
    mask: str | None
    hidden: str


def bert_graph(model: Bert) -> ir.Graph:
    """The graph of an encoder.

    Inputs `ids` and `types` i64 [batch, sequence] and `mask` bool [batch, sequence]; output
    `hidden` f32 [batch, sequence, hidden].
    """
    config, nodes = model.config, list[ir.Node]()

    def add(node: ir.Node) -> str:
        nodes.append(node)
        return node.out

    def linear(out: str, x: str, real: bert.Linear) -> str:
        return add(ir.Linear(out=out, x=x, w=real.w, b=real.b))

    def norm(out: str, x: str, real: bert.Norm) -> str:
        return add(ir.LayerNorm(out=out, x=x, gamma=real.gamma, beta=real.beta, eps=config.eps))

    table, skipped = model.embedding, 0 if config.padding is None else config.padding + 1
    x = add(
        ir.LookUp(
            out="embedding",
            ids="ids",
            types="types",
            word=table.word,
            position=np.pad(table.position, ((skipped, 0), (0, 0))),
            type=table.type,
            padding=config.padding,
        )
    )
    if table.project is None:
        x = norm("layer0.x", x, table.ln)
    else:
        x = linear("layer0.x", norm("embedding.x", x, table.ln), table.project)
    for i, layer in enumerate(model.layers):
        at = f"layer{i}."
        last = i == len(model.layers) - 1
        q, k, v = (linear(at + name, x, getattr(layer, name)) for name in "qkv")
        context = add(
            ir.Attention(
                out=at + "context",
                q=q,
                k=k,
                v=v,
                mask="mask",
                heads=config.heads,
                scale=1 / math.sqrt(config.head_dim),
            )
        )
        z1 = add(ir.Add(out=at + "z1", a=linear(at + "o", context, layer.o), b=x))
        x1 = norm(at + "x1", z1, layer.ln1)
        h = linear(at + "h", x1, layer.ffn1)
        a = add(ir.Activation(out=at + "a", x=h, function=config.function))
        z2 = add(ir.Add(out=at + "z2", a=linear(at + "ffn2", a, layer.ffn2), b=x1))
        x = norm("hidden" if last else f"layer{i + 1}.x", z2, layer.ln2)
    tokens: ir.Shape = ("batch", "sequence")
    return ir.Graph(
        inputs=(
            ir.Tensor(name="ids", shape=tokens, dtype="i64"),
            ir.Tensor(name="types", shape=tokens, dtype="i64"),
            ir.Tensor(name="mask", shape=tokens, dtype="bool"),
        ),
        outputs=(x,),
        nodes=tuple(nodes),
    )


def encoder_of(graph: ir.Graph) -> Bert:
    """The encoder a graph computes; see `find_encoder`."""
    return find_encoder(graph).model


def find_encoder(graph: ir.Graph) -> Encoder:
    """Find the embedding and the chain of encoder layers behind it.

    Raises
    ------
    GraphError
        No embedding, no layer, a layer of another form, or layers that differ in what an encoder
        has once (heads, epsilon, activation, mask).
    """
    return _Finder(graph).encoder()


def head_of(graph: ir.Graph, encoder: Encoder) -> heads.Head | None:
    """The head behind a graph's encoder; None where its output are the hidden states.

    Hidden states and a pooler beside another output are left out, as is the pooler `BertModel` has
    beside the hidden states. Labels get numbers for names.

    Raises
    ------
    GraphError
        If the outputs are made in another way.
    """
    return _Finder(graph).head(encoder)


_HEADS = (
    "hidden states, their mean or first token, either over its length, or logits of a classifier"
)


class _Finder:
    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.made = {node.out: node for node in graph.nodes}
        self.read: dict[str, list[ir.Node]] = {}
        for node in graph.nodes:
            for name, _ in node.inputs():
                self.read.setdefault(name, []).append(node)

    def readers(self, name: str, kind: type[N]) -> list[N]:
        return [node for node in self.read.get(name, []) if isinstance(node, kind)]

    def reader(self, name: str, kind: type[N]) -> N:
        """The one node of a kind that reads a tensor."""
        found = self.readers(name, kind)
        if len(found) != 1:
            others = ", ".join(type(node).__name__ for node in self.read.get(name, [])) or "nothing"
            raise GraphError(
                f"no encoder layer: {name} must be read by one {kind.__name__}, is by {others}"
            )
        return found[0]

    def linear(self, name: str, x: str) -> bert.Linear:
        """The weights of the product that makes a tensor out of `x`."""
        node = self.made.get(name)
        if not isinstance(node, ir.Linear) or node.x != x:
            raise GraphError(f"no encoder layer: {name} is no linear function of {x}")
        return _weights(node)

    def residual(self, node: ir.Add, x: str) -> None:
        if x not in (node.a, node.b):
            raise GraphError(f"no encoder layer: {node.out} does not add {x}")

    def encoder(self) -> Encoder:
        tables = [node for node in self.graph.nodes if isinstance(node, ir.LookUp)]
        if len(tables) != 1:
            raise GraphError(f"no encoder: the graph has {len(tables)} embeddings, must have one")
        table = tables[0]
        first = self.reader(table.out, ir.LayerNorm)
        norms, functions, attentions = [first], list[ir.Activation](), list[ir.Attention]()
        layers = list[bert.Layer]()
        project, x = self._project(first.out)
        while True:
            attention = self._attention(x)
            if attention is None:
                break
            o = self.reader(attention.out, ir.Linear)
            z1 = self.reader(o.out, ir.Add)
            self.residual(z1, x)
            ln1 = self.reader(z1.out, ir.LayerNorm)
            ffn1 = self.reader(ln1.out, ir.Linear)
            act = self.reader(ffn1.out, ir.Activation)
            ffn2 = self.reader(act.out, ir.Linear)
            z2 = self.reader(ffn2.out, ir.Add)
            self.residual(z2, ln1.out)
            ln2 = self.reader(z2.out, ir.LayerNorm)
            layer = bert.Layer(
                q=self.linear(attention.q, x),
                k=self.linear(attention.k, x),
                v=self.linear(attention.v, x),
                o=_weights(o),
                ln1=bert.Norm(gamma=ln1.gamma, beta=ln1.beta),
                ffn1=_weights(ffn1),
                ffn2=_weights(ffn2),
                ln2=bert.Norm(gamma=ln2.gamma, beta=ln2.beta),
            )
            layers.append(_shared(bert.fold_act(layer, act.function), layers))
            norms += [ln1, ln2]
            functions.append(act)
            attentions.append(attention)
            x = ln2.out
        if not layers:
            raise GraphError(f"no encoder: no attention reads {x}")
        function = _same((node.function for node in functions), "activation")
        heads_ = _same((node.heads for node in attentions), "number of heads")
        for node in attentions:
            head_dim = len(_weights(self.made[node.q]).b) // node.heads
            if abs(node.scale * math.sqrt(head_dim) - 1) > _TOLERANCE:
                raise GraphError(f"{node.out}: scores scaled by {node.scale}, not 1/√{head_dim}")
        config = BertConfig(
            hidden=layers[0].q.w.shape[0],
            heads=heads_,
            layers=len(layers),
            ffn=layers[0].ffn1.w.shape[1],
            vocab=len(table.word),
            positions=table.longest,
            types=len(table.type),
            act=table_of(function),
            tanh_form=function == "gelu_tanh",
            eps=_same((node.eps for node in norms), "epsilon"),
            padding=table.padding,
        )
        for i, layer in enumerate(layers):
            if layer.ffn1.w.shape[1] != config.ffn:
                raise GraphError(f"no encoder: layer {i} has another width than layer 0")
        ln = bert.Norm(gamma=first.gamma, beta=first.beta)
        return Encoder(
            model=Bert(
                config=config,
                embedding=bert.Embedding(
                    word=table.word,
                    position=table.position[table.first :],
                    type=table.type,
                    ln=ln,
                    project=project,
                ),
                layers=tuple(layers),
            ),
            ids=table.ids,
            types=table.types,
            mask=_same((node.mask for node in attentions), "mask"),
            hidden=x,
        )

    def _project(self, x: str) -> tuple[bert.Linear | None, str]:
        """The product between an embedding and layer 0, if there is one, and layer 0's input."""
        products = self.readers(x, ir.Linear)
        if self._attention(x) is None and len(products) == 1:
            return _weights(products[0]), products[0].out
        return None, x

    def _attention(self, x: str) -> ir.Attention | None:
        for linear in self.readers(x, ir.Linear):
            for node in self.readers(linear.out, ir.Attention):
                return node
        return None

    def head(self, encoder: Encoder) -> heads.Head | None:
        given = self.graph.outputs
        beside = (name for name in given if not self._pooled(name, encoder.hidden))
        outputs = [name for name in beside if name != encoder.hidden]
        if not outputs and encoder.hidden in given:
            return None
        found = self._pooling(outputs, encoder) or self._classifier(outputs, encoder.hidden)
        if found is None:
            raise GraphError(
                f"output {', '.join(outputs or given)}: no head that is known ({_HEADS})"
            )
        return found

    def _pooling(self, outputs: list[str], encoder: Encoder) -> heads.Pooling | None:
        """A mean over valid tokens or the first one, over its length or not."""
        if len(outputs) != 1:
            return None
        name = outputs[0]
        node = self.made.get(name)
        unit = isinstance(node, ir.UnitLength)
        if isinstance(node, ir.UnitLength):
            name = node.x
            node = self.made.get(name)
        if self._first(name, encoder.hidden):
            return heads.Pooling(mode="cls", unit=unit)
        # A single sequence has no padding: there, a mean without a mask is the same.
        if not isinstance(node, ir.TokenMean) or node.x != encoder.hidden:
            return None
        other = node.mask is not None and encoder.mask not in (None, node.mask)
        return None if other else heads.Pooling(mode="mean", unit=unit)

    def _classifier(self, outputs: list[str], hidden: str) -> heads.Head | None:
        picks = [self.made.get(name) for name in outputs]
        if len(picks) == 1 and isinstance(picks[0], ir.Linear):
            linear, x = _weights(picks[0]), picks[0].x
            if x == hidden:
                return heads.TokenClassifier(classifier=linear, labels=_numbered(linear))
            if self._pooled(x, hidden):
                act = self.made[x]
                assert isinstance(act, ir.Activation)  # what _pooled says
                pooler = _weights(self.made[act.x])
                labels = _numbered(linear)
                problem = "regression" if len(labels) == 1 else "single_label_classification"
                return heads.SequenceClassifier(
                    pooler=pooler,
                    classifier=linear,
                    labels=labels,
                    problem=problem,
                    function=act.function,
                )
        columns = [node for node in picks if isinstance(node, ir.Select) and node.axis == -1]
        if len(picks) == len(columns) == 2 and columns[0].x == columns[1].x:
            both = self.made.get(columns[0].x)
            two = isinstance(both, ir.Linear) and (both.x, both.w.shape[1]) == (hidden, 2)
            if two and both is not None and [node.index for node in columns] == [0, 1]:
                return heads.SpanFinder(outputs=_weights(both))
        return None

    def _first(self, name: str, hidden: str) -> bool:
        """Whether a tensor is the first token of the hidden states."""
        node = self.made.get(name)
        found = isinstance(node, ir.Select) and node.x == hidden
        return found and (node.axis, node.index) == (-2, 0)  # type: ignore[union-attr]

    def _pooled(self, name: str, hidden: str) -> bool:
        """Whether a tensor is ``function(linear(first token))``."""
        node = self.made.get(name)
        if not isinstance(node, ir.Activation):
            return False
        linear = self.made.get(node.x)
        return isinstance(linear, ir.Linear) and self._first(linear.x, hidden)


def _weights(node: ir.Node) -> bert.Linear:
    assert isinstance(node, ir.Linear)  # callers have looked
    bias = np.zeros(node.w.shape[1], np.float32) if node.b is None else node.b
    return bert.Linear(w=node.w, b=bias)


def _shared(layer: bert.Layer, layers: list[bert.Layer]) -> bert.Layer:
    """A layer, or an earlier one with the same weights."""

    def weights(one: bert.Layer) -> Iterator[F32]:
        return (array for part in vars(one).values() for array in vars(part).values())

    for other in layers:
        if all(map(np.array_equal, weights(layer), weights(other))):
            return other
    return layer


def _numbered(linear: bert.Linear) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(len(linear.b)))


V = TypeVar("V", int, float, str, str | None)


def _same(values: Iterable[V], what: str) -> V:
    found = list(dict.fromkeys(values))
    if len(found) != 1:
        raise GraphError(f"no encoder: {what} differs between layers: {found}")
    return found[0]
