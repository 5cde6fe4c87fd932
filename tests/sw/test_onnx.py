"""ONNX in: encoders and single operations in many spellings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.sw.families import FAMILIES, recorded
from tests.sw.onnx_graphs import (
    DIALECTS,
    FLOAT,
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
from tilewright.sw.graph.model import load_model
from tilewright.sw.graph.onnx.draft import GatherElements
from tilewright.sw.graph.onnx.load import import_model
from tilewright.sw.graph.onnx.view import View
from tilewright.sw.graph.run import run_fp32
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.heads import Pooling, SequenceClassifier, SpanFinder, TokenClassifier
from tilewright.sw.quantize.calibrate import calibrate
from tilewright.sw.quantize.quantize import quantize

STANDARD_DIALECTS = [name for name in DIALECTS if "fused" not in name]


@pytest.mark.parametrize("name", DIALECTS)
def test_an_encoder_is_the_same_in_every_spelling(name: str) -> None:
    """Bit for bit the weights, and so whatever is computed from them."""
    model, proto = written(name)
    found = find_encoder(import_model(proto))
    assert (found.ids, found.types) == ("ids", None if name == "no types" else "types")
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
    (want,) = ReferenceEvaluator(proto, new_ops=[GatherElements]).run(None, feeds)
    (got,) = run_fp32(graph, feeds).values()
    valid = feeds.get("mask", np.ones((2, 7))) == 1
    assert np.abs(got - want)[valid].max() < 2e-5


def test_gather_elements_is_as_specified() -> None:
    """Along either axis, from the end too, with fewer rows than the data."""
    data = np.arange(256).reshape(2, 128)
    for axis, index in ((1, [[127, -128, 3]]), (0, [[1, 0, -1]])):
        node = helper.make_node("GatherElements", ["data", "index"], ["y"], axis=axis)
        feeds = {"data": data, "index": np.array(index)}
        inputs = [helper.make_tensor_value_info(name, INT, None) for name in feeds]
        outputs = [helper.make_tensor_value_info("y", INT, None)]
        model = helper.make_model(helper.make_graph([node], "g", inputs, outputs))
        (found,) = ReferenceEvaluator(model, new_ops=[GatherElements]).run(None, feeds)
        want = [[127, 0, 3]] if axis == 1 else [[128, 1, 130]]
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("exporter", ["plain", "parts"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, exporter: str, tmp_path: Path) -> None:
    """The same weights and bits as from the family's safetensors, and what `transformers` has."""
    one = recorded()[f"{family} ForTokenClassification"]
    real = Bert.load(one.write(tmp_path))
    types = "none" if not real.embedding.type.any() else "input" if one.types.any() else "buffer"
    dialect = dataclasses.replace(DIALECTS[exporter], types=types, opset=17)
    if exporter == "plain":
        dialect = dataclasses.replace(dialect, gelu="tanh" if real.config.tanh_form else "erf")
    elif real.config.tanh_form:
        dialect = dataclasses.replace(dialect, gelu="tanh")
    graph = import_model(EncoderWriter(real, dialect).write())
    found = encoder_of(graph)
    assert same(found, real)
    assert len({id(layer) for layer in found.layers}) == len({id(one) for one in real.layers})
    ids, types_ = one.ids[None], one.types[None]
    (hidden,) = run_fp32(graph, {"ids": ids, "types": types_, "mask": ids > 0}).values()
    assert np.abs(hidden[0] - one.hidden).max() < 1e-5


def test_families_give_the_same_integers(tmp_path: Path) -> None:
    for family in ("roberta", "albert"):
        one = recorded()[f"{family} ForTokenClassification"]
        real = Bert.load(one.write(tmp_path / family))
        types = "input" if one.types.any() else "buffer"
        dialect = Dialect(types=types, gelu="tanh" if real.config.tanh_form else "op")
        found = encoder_of(import_model(EncoderWriter(real, dialect).write()))
        assert same(
            *(quantize(model, calibrate(model, [one.ids], moments=True)) for model in (real, found))
        )


def test_positions_of_equal_rows_still_count(tmp_path: Path) -> None:
    real = Bert.load(recorded()["roberta ForTokenClassification"].write(tmp_path))
    table = dataclasses.replace(real.embedding, position=np.zeros_like(real.embedding.position))
    flat = dataclasses.replace(real, embedding=table)
    assert same(
        encoder_of(import_model(EncoderWriter(flat, Dialect(types="buffer")).write())), flat
    )


def test_positions_that_are_neither_are_refused() -> None:
    model = small_bert(3)
    writer = EncoderWriter(model, DIALECTS["plain"])
    plain = writer.positions
    writer.positions = lambda: writer.b.op("Mul", plain(), writer.b.ints(2))  # type: ignore
    with pytest.raises(GraphError, match=r"Add .* adds positions that count neither"):
        import_model(writer.write())
    writer = EncoderWriter(model, DIALECTS["plain"])
    later = writer.positions
    writer.positions = lambda: writer.b.op("Add", later(), writer.b.ints(3))  # type: ignore
    found = encoder_of(import_model(writer.write()))
    np.testing.assert_array_equal(found.embedding.position, model.embedding.position[3:])
    assert found.config.positions == 37


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


# ---- pooling ------------------------------------------------------------------------------------


def _masked_mean(b: Builder, hidden: str) -> str:
    """As sentence-transformers writes it."""
    wide = b.op("Expand", b.op("Unsqueeze", "mask", b.ints(-1)), b.op("Shape", hidden))
    wide = b.op("Cast", wide, to=FLOAT)
    total = b.op("ReduceSum", b.op("Mul", hidden, wide), b.ints(1), keepdims=0)
    count = b.op("Clip", b.op("ReduceSum", wide, b.ints(1), keepdims=0), b.const(1e-9))
    return str(b.op("Div", total, count))


def _shares(b: Builder, hidden: str) -> str:
    """Shares of the tokens, then one product."""
    real = b.op("Cast", "mask", to=FLOAT)
    shares = b.op("Div", real, b.op("ReduceSum", real, b.ints(1), keepdims=1))
    product = b.op("MatMul", b.op("Unsqueeze", shares, b.ints(1)), hidden)
    return str(b.op("Squeeze", product, b.ints(1)))


def _chosen(b: Builder, hidden: str) -> str:
    """Padding set to 0, the sum times a reciprocal."""
    off = b.op("Equal", b.op("Unsqueeze", "mask", b.ints(2)), b.ints(0))
    total = b.op("ReduceSum", b.op("Where", off, b.const(0.0), hidden), b.ints(1), keepdims=1)
    count = b.op("Cast", b.op("ReduceSum", "mask", b.ints(1), keepdims=1), to=FLOAT)
    share = b.op("Unsqueeze", b.op("Reciprocal", count), b.ints(2))
    return str(b.op("Squeeze", b.op("Mul", share, total), b.ints(1)))


def _first(b: Builder, hidden: str) -> str:
    return str(b.op("Gather", hidden, b.const(0, np.int64), axis=1))


def _first_cut(b: Builder, hidden: str) -> str:
    return str(b.op("Squeeze", b.op("Slice", hidden, b.ints(0), b.ints(1), b.ints(1)), b.ints(1)))


def _everything(b: Builder, hidden: str) -> str:
    return str(b.op("ReduceMean", hidden, axes=[1], keepdims=0))


def _normalized(b: Builder, x: str) -> str:
    """As torch.nn.functional.normalize is exported."""
    length = b.op("Clip", b.op("ReduceL2", x, axes=[1], keepdims=1), b.const(1e-12))
    return str(b.op("Div", x, b.op("Expand", length, b.op("Shape", x))))


def _normalized_by_squares(b: Builder, x: str) -> str:
    squares = b.op("ReduceSum", b.op("Pow", x, b.const(2.0)), b.ints(-1), keepdims=1)
    root = b.op("Sqrt", b.op("Add", squares, b.const(1e-12)))
    return str(b.op("Mul", b.op("Reciprocal", b.op("Max", root, b.const(1e-9))), x))


def _normalized_at_once(b: Builder, x: str) -> str:
    return str(b.op("LpNormalization", x, axis=-1, p=2))


@pytest.mark.parametrize(
    "unit",
    [None, _normalized, _normalized_by_squares, _normalized_at_once],
    ids=lambda unit: unit.__name__ if unit else "any",
)
@pytest.mark.parametrize(
    ("pool", "mode"),
    [
        (_masked_mean, "mean"),
        (_shares, "mean"),
        (_chosen, "mean"),
        (_everything, "mean"),
        (_first, "cls"),
        (_first_cut, "cls"),
    ],
)
def test_pooling(pool: Callable[..., str], mode: str, unit: Callable[..., str] | None) -> None:
    """Told apart, computed as ONNX says, and the head computes the same of one text."""
    writer = EncoderWriter(small_bert(5), Dialect(gelu="erf", opset=17))
    writer.write()
    pooled = pool(writer.b, writer.hidden)
    proto = writer.model([pooled if unit is None else unit(writer.b, pooled)], rank=2)
    graph = import_model(proto)
    encoder = find_encoder(graph)
    head = head_of(graph, encoder)
    assert head == Pooling(mode=mode, unit=unit is not None)
    rng = np.random.default_rng(4)
    feeds = {
        "ids": rng.integers(0, CONFIG.vocab, (2, 7)),
        "types": rng.integers(0, 2, (2, 7)),
        "mask": (np.arange(7) < np.array([[7], [4]])).astype(np.int64),
    }
    (want,) = ReferenceEvaluator(proto).run(None, feeds)
    (got,) = run_fp32(graph, feeds).values()
    assert np.abs(got - want).max() < 2e-5
    y = encoder.model.forward(feeds["ids"][0], types=feeds["types"][0])[-1].y
    np.testing.assert_allclose(head(y, 7), np.asarray(want)[0], rtol=0, atol=2e-5)


def test_hidden_states_beside_an_embedding() -> None:
    writer = EncoderWriter(small_bert(5), DIALECTS["plain"])
    writer.write()
    pooled = _masked_mean(writer.b, writer.hidden)
    proto = writer.model([writer.hidden, pooled])
    for outputs, head in (
        (None, Pooling(unit=False)),
        ([pooled], Pooling(unit=False)),
        ([writer.hidden], None),
    ):
        graph = import_model(proto, outputs)
        assert head_of(graph, find_encoder(graph)) == head


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (
            lambda b, x: b.op("ReduceSum", b.op("Mul", x, _wide(b)), b.ints(1), keepdims=0),
            r"ReduceSum .* sums tokens otherwise than for a mean",
        ),
        (lambda b, x: b.op("Mul", x, _wide(b)), r"Mul .* weighs tokens otherwise than for a mean"),
        (lambda b, x: b.op("ReduceMax", x, axes=[1], keepdims=0), "ReduceMax .* is not supported"),
        (lambda b, x: b.op("ReduceL2", x, axes=[2], keepdims=1), "ReduceL2 .* the length of rows"),
        (
            lambda b, x: (
                b.op("ReduceSum", b.op("Mul", x, _wide(b, "types")), b.ints(1), keepdims=0)
                and b.op("Div", b.nodes[-1].output[0], b.const(7.0))
            ),
            r"sums tokens otherwise than for a mean",
        ),
    ],
)
def test_pooling_refused(build: Callable[..., str], match: str, tmp_path: Path) -> None:
    """By the operator, with the tensor that could be loaded instead."""
    writer = EncoderWriter(small_bert(5), Dialect(gelu="erf", opset=17))
    writer.write()
    path = tmp_path / "model.onnx"
    onnx.save(writer.model([build(writer.b, writer.hidden)]), path)
    with pytest.raises(GraphError, match=match) as caught:
        load_model(path)
    assert str(caught.value).endswith(f"; can be loaded: output {writer.hidden}")
    assert same(load_model(path, [writer.hidden]).bert, small_bert(5))


def _wide(b: Builder, name: str = "mask") -> str:
    return str(b.op("Cast", b.op("Unsqueeze", name, b.ints(2)), to=FLOAT))


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
