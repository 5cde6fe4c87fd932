"""The internal graph: its checks, its fp32 meaning, and encoders to and from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.sw.same import same
from tests.sw.small_bert import CONFIG, small_bert
from tilewright.sw.graph import ir
from tilewright.sw.graph.encoder import bert_graph, encoder_of, find_encoder, head_of
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.run import run_fp32

X = ir.Tensor(name="x", shape=("m", 4))
W = np.ones((4, 3), np.float32)


def _graph(*nodes: ir.Node, inputs: tuple[ir.Tensor, ...] = (X,)) -> ir.Graph:
    return ir.Graph(inputs=inputs, outputs=(nodes[-1].out,), nodes=nodes)


@pytest.mark.parametrize("act", ["gelu", "silu", "tanh"])
def test_an_encoder_there_and_back(act: str) -> None:
    model = small_bert(3, dataclasses.replace(CONFIG, act=act))
    graph = bert_graph(model)
    found = find_encoder(graph)
    assert same(found.model, model)
    assert (found.ids, found.types, found.mask, found.hidden) == ("ids", "types", "mask", "hidden")
    assert head_of(graph, found) is None
    assert str(graph.tensors["hidden"]) == "hidden f32 [batch, sequence, 48]"


def test_an_encoder_computes_what_its_graph_says() -> None:
    """Bit for bit: they share the functions."""
    rng = np.random.default_rng(4)
    ids = rng.integers(0, CONFIG.vocab, (3, 9))
    types = rng.integers(0, 2, (3, 9))
    mask = np.arange(9) < np.array([[9], [1], [5]])
    for form in (False, True):
        model = small_bert(4, dataclasses.replace(CONFIG, tanh_form=form))
        got = run_fp32(bert_graph(model), {"ids": ids, "types": types, "mask": mask})
        np.testing.assert_array_equal(got["hidden"], model.forward(ids, mask, types)[-1].y)


def test_products() -> None:
    a = ir.Tensor(name="a", shape=(2, "m", 4))
    b = ir.Tensor(name="b", shape=(2, "n", 4))
    graph = _graph(ir.MatMul(out="y", a="a", b="b", transposed=True), inputs=(a, b))
    assert graph.tensors["y"].shape == (2, "m", "n")
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal((2, n, 4)).astype(np.float32) for n in (3, 5))
    np.testing.assert_array_equal(run_fp32(graph, {"a": x, "b": y})["y"], x @ y.swapaxes(1, 2))
    graph = _graph(
        ir.Linear(out="h", x="x", w=W, b=np.ones(3, np.float32)),
        ir.Activation(out="a", x="h", function="tanh"),
        ir.Linear(out="y", x="a", w=W.T),
        ir.Add(out="z", a="y", b="x"),
        ir.Softmax(out="p", x="z"),
    )
    x = rng.standard_normal((6, 4)).astype(np.float32)
    z = np.tanh(x @ W + 1) @ W.T + x
    want = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert np.abs(run_fp32(graph, {"x": x})["p"] - want).max() < 1e-6


ZEROS = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("node", "match"),
    [
        (ir.Linear(out="y", x="x", w=W.T), r"Linear y: weights \[3, 4\] do not fit"),
        (ir.Linear(out="y", x="x", w=W, b=ZEROS), r"Linear y: bias has shape \[4\]"),
        (ir.Linear(out="y", x="nothing", w=W), "Linear y: there is no tensor nothing"),
        (ir.Linear(out="x", x="x", w=W), "tensor x is made twice"),
        (ir.Linear(out="y", x="x", w=W * np.nan), "Linear y: w holds NaN"),
        (ir.LayerNorm(out="y", x="x", gamma=W[0], beta=ZEROS, eps=0.1), "gamma has shape"),
        (ir.LayerNorm(out="y", x="x", gamma=ZEROS, beta=ZEROS, eps=2.0), "epsilon 2.0"),
        (ir.Activation(out="y", x="x", function="selu"), "function 'selu': must be one of gelu"),
        (ir.MatMul(out="y", a="x", b="x"), "do not fit"),
        (ir.Attention(out="y", q="x", k="x", v="x", heads=3, scale=1.0), "3 heads do not divide"),
        (ir.LookUp(out="y", ids="x", word=W, position=W, type=W), "must be i64"),
        (ir.Select(out="y", x="x", axis=0, index=0), "axis 0"),
        (ir.Select(out="y", x="x", axis=-1, index=4), "index 4 of 4"),
    ],
)
def test_graphs_refused(node: ir.Node, match: str) -> None:
    with pytest.raises(GraphError, match=match) as caught:
        _graph(node)
    assert "\n" not in str(caught.value)


def test_outputs_refused() -> None:
    with pytest.raises(GraphError, match="output y: no node"):
        ir.Graph(inputs=(X,), outputs=("y",), nodes=())
    with pytest.raises(GraphError, match="no output"):
        ir.Graph(inputs=(X,), outputs=(), nodes=())
    with pytest.raises(GraphError, match="dtype 'f64'"):
        ir.Tensor(name="x", shape=(1,), dtype="f64")


def test_inputs_refused() -> None:
    graph = bert_graph(small_bert(3))
    ids = np.zeros((2, 5), int)
    good: dict[str, Any] = {"ids": ids, "types": ids, "mask": ids == 0}
    for change, match in (
        ({"ids": None}, "input ids i64 .* is missing"),
        ({"ids": ids + 0.5}, "given as float64"),
        ({"types": ids[:1]}, r"input types .* is given with shape \[1, 5\]"),
        ({"mask": ids[0] == 0}, r"input mask .* is given with shape \[5\]"),
        ({"ids": ids + 100}, "ids must be 0 to 99"),
        ({"types": ids + 2}, "types must be 0 to 1"),
    ):
        feeds = {name: value for name, value in {**good, **change}.items() if value is not None}
        with pytest.raises(GraphError, match=match):
            run_fp32(graph, feeds)
    long = {name: np.zeros((1, 41), int) for name in ("ids", "types", "mask")}
    with pytest.raises(GraphError, match="41 tokens: must be at most 40"):
        run_fp32(graph, long)


def test_what_is_no_encoder() -> None:
    """Each change leaves a sound graph that is no encoder any more."""
    graph = bert_graph(small_bert(3))

    def without(name: str, **change: Any) -> ir.Graph:
        nodes = [
            dataclasses.replace(node, **change) if node.out == name else node
            for node in graph.nodes
        ]
        return dataclasses.replace(graph, nodes=tuple(nodes))

    for name, change, match in (
        ("layer1.z1", {"b": "layer0.x1"}, "layer1.z1 does not add layer1.x"),
        ("layer0.z2", {"b": "layer0.x"}, "layer0.z2 does not add layer0.x1"),
        ("layer1.k", {"x": "layer0.x"}, "layer1.k is no linear function of layer1.x"),
        ("layer1.a", {"function": "silu"}, "activation differs"),
        ("layer1.context", {"heads": 2}, "number of heads differs"),
        ("layer1.context", {"mask": None}, "mask differs"),
        ("layer0.context", {"scale": 1.0}, "scores scaled by 1.0, not 1/√12"),
        ("hidden", {"eps": 0.5}, "epsilon differs"),
    ):
        with pytest.raises(GraphError, match=match):
            encoder_of(without(name, **change))
    with pytest.raises(GraphError, match=r"no attention reads layer0\.x"):
        encoder_of(ir.Graph(inputs=graph.inputs, outputs=("layer0.x",), nodes=graph.nodes[:2]))
