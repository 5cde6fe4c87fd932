"""ONNX in: encoders and single operations in many spellings."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.sw.onnx_graphs import (
    DIALECTS,
    INT,
    Build,
    Builder,
    Dialect,
    EncoderWriter,
    V,
    W,
    single,
    written,
)
from tests.sw.same import same
from tests.sw.small_bert import CONFIG, small_bert
from tilewright.sw.graph import ir
from tilewright.sw.graph.encoder import encoder_of, find_encoder, head_of
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.onnx.load import import_model
from tilewright.sw.graph.onnx.view import View
from tilewright.sw.graph.run import run_fp32
from tilewright.sw.models.heads import SequenceClassifier, SpanFinder, TokenClassifier

STANDARD_DIALECTS = [name for name in DIALECTS if "fused" not in name]


@pytest.mark.parametrize("name", DIALECTS)
def test_an_encoder_is_the_same_in_every_spelling(name: str) -> None:
    """Bit for bit the weights, and so whatever is computed from them."""
    model, proto = written(name)
    found = find_encoder(import_model(proto))
    assert (found.ids, found.types) == ("ids", "types")
    assert found.mask == (None if name == "no mask" else "mask")
    assert same(found.model, model)


@pytest.mark.parametrize("name", STANDARD_DIALECTS)
def test_an_encoder_computes_what_onnx_says(name: str) -> None:
    _, proto = written(name)
    graph = import_model(proto)
    rng = np.random.default_rng(4)
    feeds = {
        "ids": rng.integers(0, CONFIG.vocab, (2, 7)),
        "types": rng.integers(0, 2, (2, 7)),
        "mask": (np.arange(7) < np.array([[7], [4]])).astype(np.int64),
    }
    feeds = {one.name: feeds[one.name] for one in proto.graph.input}
    (want,) = ReferenceEvaluator(proto).run(None, feeds)
    (got,) = run_fp32(graph, feeds).values()
    valid = feeds.get("mask", np.ones((2, 7))) == 1
    assert np.abs(got - want)[valid].max() < 2e-5


def test_fast_gelu_is_the_tanh_form() -> None:
    model = small_bert(3, dataclasses.replace(CONFIG, tanh_form=True))
    proto = EncoderWriter(model, Dialect(gelu="fast")).write()
    assert same(encoder_of(import_model(proto)), model)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["plain", "gemm", "fused"])
def test_fixed_sizes(name: str, batch: int) -> None:
    model, proto = written(name)
    for one in proto.graph.input:
        for dim, size in zip(one.type.tensor_type.shape.dim, (batch, 9), strict=True):
            dim.dim_value = size
    graph = import_model(proto)
    assert graph.inputs[0].shape == (batch, 9)
    assert same(encoder_of(graph), model)


def test_half_precision() -> None:
    """fp16 weights are read as the fp32 numbers they are."""
    model, proto = written("plain")
    constants = []
    for one in proto.graph.initializer:
        array = numpy_helper.to_array(one)
        if array.dtype == np.float32 and array.size > 1:
            array = array.astype(np.float16)
        constants.append(numpy_helper.from_array(array, one.name))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(constants)
    found = encoder_of(import_model(proto))
    want = model.layers[1].ffn2.w.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found.layers[1].ffn2.w, want)
    assert found.config.heads == CONFIG.heads


# ---- heads --------------------------------------------------------------------------------------


def _with_head(kind: str, columns: int) -> tuple[onnx.ModelProto, dict[str, Any]]:
    writer = EncoderWriter(small_bert(5), DIALECTS["plain"])
    proto = writer.write()
    hidden = proto.graph.output[0].name
    b, rng = writer.b, np.random.default_rng(5)
    wide = (rng.standard_normal((48, 48)) / 7).astype(np.float32)
    w, bias = rng.standard_normal((48, columns)).astype(np.float32), rng.standard_normal(columns)
    if kind == "tokens":
        outputs = [b.op("Add", b.op("MatMul", hidden, b.const(w)), b.const(bias))]
    elif kind == "span":
        logits = b.op("Add", b.op("MatMul", hidden, b.const(w)), b.const(bias))
        parts = b.op("Split", logits, outputs=2, axis=-1, num_outputs=2)
        outputs = [b.op("Squeeze", part, b.ints(-1)) for part in parts]
    else:
        first = b.op("Gather", hidden, b.const(0, np.int64), axis=1)
        pooled = b.op("Tanh", b.op("Gemm", first, b.const(wide.T), b.const(bias[:1]), transB=1))
        outputs = [b.op("Gemm", pooled, b.const(w), b.const(bias))]
        if kind == "pooler":
            outputs = [hidden, pooled]
    proto = b.model([(name, INT, ["b", "s"]) for name in ("ids", "types", "mask")], outputs)
    return proto, {"w": w, "b": bias.astype(np.float32)}


def test_heads() -> None:
    for kind, columns, wanted in (
        ("tokens", 5, TokenClassifier),
        ("sequence", 3, SequenceClassifier),
        ("span", 2, SpanFinder),
        ("pooler", 3, None),
    ):
        proto, weights = _with_head(kind, columns)
        graph = import_model(proto)
        head = head_of(graph, find_encoder(graph))
        assert type(head) is (wanted or type(None))
        linear = getattr(head, "classifier", getattr(head, "outputs", None))
        if linear is not None:
            np.testing.assert_array_equal(linear.w, weights["w"])
            np.testing.assert_array_equal(linear.b, weights["b"])
        feeds = {name: np.ones((2, 6), np.int64) for name in ("ids", "types", "mask")}
        want = ReferenceEvaluator(proto).run(None, feeds)
        for got, one in zip(run_fp32(graph, feeds).values(), want, strict=True):
            assert np.abs(got - one).max() < 2e-5


def test_a_head_that_is_not_known() -> None:
    proto, _ = _with_head("sequence", 2)
    proto.graph.output[0].name = proto.graph.node[-2].output[0]
    graph = import_model(proto)
    with pytest.raises(GraphError, match="no head that is known"):
        head_of(graph, find_encoder(graph))


# ---- single operations --------------------------------------------------------------------------


def _agrees(proto: onnx.ModelProto, sizes: dict[str, tuple[int, ...]]) -> ir.Graph:
    """Import, and compare with ONNX's own reference on random inputs."""
    graph = import_model(proto)
    rng = np.random.default_rng(6)
    feeds = {name: rng.standard_normal(s).astype(np.float32) * 2 for name, s in sizes.items()}
    want = ReferenceEvaluator(proto).run(None, feeds)
    for got, one in zip(run_fp32(graph, feeds).values(), want, strict=True):
        assert got.shape == one.shape
        assert np.abs(got - one).max() < 1e-5
    return graph


def _kinds(graph: ir.Graph) -> list[str]:
    return [type(node).__name__ for node in graph.nodes]


@pytest.mark.parametrize(
    ("build", "shapes", "sizes", "kinds"),
    [
        (
            lambda b: b.op("MatMul", "x", b.const(W)),
            {"x": ["m", 6]},
            {"x": (3, 6)},
            ["Linear"],
        ),
        (
            lambda b: b.op("MatMul", "x", "y"),
            {"x": ["m", "k"], "y": ["k", "n"]},
            {"x": (3, 4), "y": (4, 7)},
            ["MatMul"],
        ),
        (
            lambda b: b.op("MatMul", "x", b.op("Transpose", "y", perm=[0, 2, 1])),
            {"x": [2, 3, 4], "y": [2, 5, 4]},
            {"x": (2, 3, 4), "y": (2, 5, 4)},
            ["MatMul"],
        ),
        (
            lambda b: b.op("Softmax", b.op("MatMul", "x", b.op("Transpose", "x", perm=[1, 0]))),
            {"x": ["m", 6]},
            {"x": (3, 6)},
            ["MatMul", "Softmax"],
        ),
        (
            lambda b: b.op("Gemm", "x", b.const(W), b.const(V)),
            {"x": ["m", 6]},
            {"x": (3, 6)},
            ["Linear"],
        ),
        (
            lambda b: b.op("Gemm", "x", b.const(W.T), b.const(V), transB=1, alpha=0.5, beta=2.0),
            {"x": ["m", 6]},
            {"x": (3, 6)},
            ["Linear"],
        ),
        (lambda b: b.op("Softmax", "x"), {"x": ["m", 6]}, {"x": (3, 6)}, ["Softmax"]),
        (lambda b: b.op("Gelu", "x"), {"x": ["m", 6]}, {"x": (3, 6)}, ["Activation"]),
        (lambda b: b.op("Tanh", "x"), {"x": ["m", 6]}, {"x": (3, 6)}, ["Activation"]),
        (
            lambda b: b.op("LayerNormalization", "x", b.const(V), b.const(V)),
            {"x": ["m", 5]},
            {"x": (3, 5)},
            ["LayerNorm"],
        ),
        (
            lambda b: b.op(
                "MatMul",
                b.op("Gelu", b.op("Add", b.op("MatMul", "x", b.const(W)), b.const(V))),
                b.const(W.T),
            ),
            {"x": ["b", "s", 6]},
            {"x": (2, 3, 6)},
            ["Linear", "Activation", "Linear"],
        ),
        (
            lambda b: b.op(
                "Squeeze", b.op("Slice", "x", b.ints(-1), b.ints(99), b.ints(-1)), b.ints(-1)
            ),
            {"x": ["b", "s", 6]},
            {"x": (2, 3, 6)},
            ["Select"],
        ),
        (
            lambda b: b.op("Gather", "x", b.const(0, np.int64), axis=1),
            {"x": ["b", "s", 6]},
            {"x": (2, 3, 6)},
            ["Select"],
        ),
        (
            lambda b: b.op("Identity", b.op("Add", "x", "y")),
            {"x": ["m", 6], "y": ["m", 6]},
            {"x": (3, 6), "y": (3, 6)},
            ["Add"],
        ),
    ],
)
def test_single_operations(
    build: Build,
    shapes: dict[str, list[Any]],
    sizes: dict[str, tuple[int, ...]],
    kinds: list[str],
) -> None:
    assert _kinds(_agrees(single(build, shapes), sizes)) == kinds


def _erf(b: Builder) -> str:
    e = b.op("Erf", b.op("Mul", "x", b.const(math.sqrt(0.5))))
    return str(b.op("Mul", "x", b.op("Add", b.op("Mul", e, b.const(0.5)), b.const(0.5))))


def _tanh_cubed(b: Builder) -> str:
    cube = b.op("Mul", b.op("Pow", "x", b.const(3.0)), b.const(0.044715))
    inner = b.op("Mul", b.op("Add", "x", cube), b.const(math.sqrt(2 / math.pi)))
    return str(
        b.op("Mul", b.op("Mul", b.const(0.5), "x"), b.op("Add", b.op("Tanh", inner), b.const(1.0)))
    )


def _tanh_fast(b: Builder) -> str:
    square = b.op("Mul", b.op("Mul", "x", b.const(0.044715)), "x")
    slope = b.op("Mul", "x", b.const(0.7978845608))
    inner = b.op("Mul", slope, b.op("Add", b.const(1.0), square))
    return str(
        b.op("Mul", b.op("Mul", "x", b.const(0.5)), b.op("Add", b.const(1.0), b.op("Tanh", inner)))
    )


@pytest.mark.parametrize(
    ("build", "function"),
    [
        (_erf, "gelu"),
        (_tanh_cubed, "gelu_tanh"),
        (_tanh_fast, "gelu_tanh"),
        (lambda b: b.op("Gelu", "x", approximate="tanh"), "gelu_tanh"),
        (lambda b: b.op("Mul", "x", b.op("Sigmoid", "x")), "silu"),
        (
            lambda b: b.op("Div", "x", b.op("Add", b.const(1.0), b.op("Exp", b.op("Neg", "x")))),
            "silu",
        ),
        (
            lambda b: b.op("Mul", b.op("Sigmoid", b.op("Mul", b.const([1.702]), "x")), "x"),
            "quick_gelu",
        ),
    ],
)
def test_activations_by_what_they_compute(build: Build, function: str) -> None:
    graph = _agrees(single(build, {"x": ["m", 6]}), {"x": (30, 6)})
    (node,) = graph.nodes
    assert isinstance(node, ir.Activation)
    assert node.function == function


def test_shapes_of_a_graph() -> None:
    graph = import_model(
        single(lambda b: b.op("MatMul", "x", b.const(W)), {"x": ["batch", "rows", 6]})
    )
    (name,) = graph.outputs
    assert str(graph.tensors[name]) == f"{name} f32 [batch, rows, 5]"


def test_views() -> None:
    """Heads as views: split, turned, merged; sizes of 1 do not matter."""
    for heads in (1, 4):
        shape = (2, 3, 8)
        split = View.of(shape).reshape((2, 3, heads, 8 // heads))
        assert split is not None
        turned = split.transpose([0, 2, 1, 3])
        merged = turned.reshape((2 * heads, 3, 8 // heads))
        assert merged is not None
        assert turned.heads(shape) == merged.heads(shape) == heads
        assert merged.transpose([0, 2, 1]).heads(shape, swapped=True) == heads
        back = merged.reshape((2, heads, 3, 8 // heads))
        assert back == turned
        again = turned.transpose([0, 2, 1, 3]).reshape((1, 2, 3, 8))
        assert again is not None
        assert again.squeeze([0]) == View.of(shape)
    assert View.of((4, 6)).reshape((6, 4)) is None
    assert View.of((4, 6)).transpose([1, 0]).heads((4, 6)) is None
