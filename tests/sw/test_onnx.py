"""ONNX in: encoders and single operations in many spellings, and what is refused, by node."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sw.graph import ir
from sw.graph.encoder import encoder_of, find_encoder, head_of
from sw.graph.errors import GraphError
from sw.graph.onnx.load import import_model, import_onnx
from sw.graph.onnx.view import View
from sw.graph.run import run_fp32
from sw.models.bert import Bert
from sw.models.heads import Pooling, SequenceClassifier, SpanFinder, TokenClassifier
from tests.sw.onnx_graphs import DIALECTS, FLOAT, INT, MS, Builder, Dialect, EncoderWriter
from tests.sw.same import same
from tests.sw.small_bert import CONFIG, small_bert

STANDARD_DIALECTS = [name for name in DIALECTS if "fused" not in name]


def _written(name: str, seed: int = 3) -> tuple[Bert, onnx.ModelProto]:
    model = small_bert(seed)
    return model, EncoderWriter(model, DIALECTS[name]).write()


@pytest.mark.parametrize("name", DIALECTS)
def test_an_encoder_is_the_same_in_every_spelling(name: str) -> None:
    """Bit for bit the weights, and so whatever is computed from them."""
    model, proto = _written(name)
    found = find_encoder(import_model(proto))
    assert (found.ids, found.types) == ("ids", "types")
    assert found.mask == (None if name == "no mask" else "mask")
    assert same(found.model, model)


@pytest.mark.parametrize("name", STANDARD_DIALECTS)
def test_an_encoder_computes_what_onnx_says(name: str) -> None:
    _, proto = _written(name)
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
    model, proto = _written(name)
    for one in proto.graph.input:
        for dim, size in zip(one.type.tensor_type.shape.dim, (batch, 9), strict=True):
            dim.dim_value = size
    graph = import_model(proto)
    assert graph.inputs[0].shape == (batch, 9)
    assert same(encoder_of(graph), model)


def test_half_precision() -> None:
    """fp16 weights are read as the fp32 numbers they are."""
    model, proto = _written("plain")
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
        ("pooler", 3, Pooling),
    ):
        proto, weights = _with_head(kind, columns)
        graph = import_model(proto)
        head = head_of(graph, find_encoder(graph))
        assert isinstance(head, wanted)
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


Build = Callable[[Builder], str]


def _single(build: Build, shapes: dict[str, list[Any]], opset: int = 20) -> onnx.ModelProto:
    b = Builder(opset=opset)
    out = build(b)
    rank = max(len(shape) for shape in shapes.values())
    return b.model([(name, FLOAT, shape) for name, shape in shapes.items()], [out], rank)


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


W = np.random.default_rng(7).standard_normal((6, 5)).astype(np.float32)
V = np.random.default_rng(8).standard_normal(5).astype(np.float32)


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
    assert _kinds(_agrees(_single(build, shapes), sizes)) == kinds


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
    graph = _agrees(_single(build, {"x": ["m", 6]}), {"x": (30, 6)})
    (node,) = graph.nodes
    assert isinstance(node, ir.Activation)
    assert node.function == function


def test_shapes_of_a_graph() -> None:
    graph = import_model(
        _single(lambda b: b.op("MatMul", "x", b.const(W)), {"x": ["batch", "rows", 6]})
    )
    (name,) = graph.outputs
    assert str(graph.tensors[name]) == f"{name} f32 [batch, rows, 5]"


# ---- refusals -----------------------------------------------------------------------------------


def _refused(build: Build, match: str, shape: list[Any] | None = None) -> None:
    proto = _single(build, {"x": ["m", 6] if shape is None else shape})
    with pytest.raises(GraphError, match=match) as caught:
        import_model(proto)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (
            lambda b: b.op("MatMul", b.op("Relu", "x"), b.const(W)),
            r"operator Relu 'n0' \(feeds MatMul 'n1'\) is not supported",
        ),
        (lambda b: b.op("Relu", "x"), r"operator Relu 'n0' \(makes an output\)"),
        (lambda b: b.op("Erf", "x"), r"operator Erf 'n0' \(makes an output\) is not supported"),
        (
            lambda b: b.op("MatMul", b.op("Mul", "x", b.const(3.0)), b.const(W)),
            r"operator Mul 'n0' \(feeds MatMul 'n1'\)",
        ),
        (lambda b: b.op("Softmax", "x", axis=0), "Softmax 'n0' .* works on axis 0"),
        (lambda b: b.op("Transpose", "x", perm=[1, 0]), "Transpose 'n0' .* is not supported"),
        (
            lambda b: b.op("ReduceMean", "x", b.ints(-1), keepdims=1),
            r"operator ReduceMean 'n0' \(makes an output\)",
        ),
        (
            lambda b: b.op("MyOwn", "x", domain="test.here"),
            r"operator test\.here\.MyOwn 'n0' \(makes an output\) is not supported",
        ),
        (
            lambda b: b.op("Add", "x", b.const(V)),
            r"operator Add 'n0'",
        ),
        (lambda b: b.op("Add", "x", b.const(np.ones(6))), r"operator Add 'n0'"),
        (lambda b: b.op("Gemm", "x", b.const(W), b.const(V[:3])), r"bias of shape \[3\]"),
        (lambda b: b.op("Gemm", "x", b.const(W), b.const(V[:, None])), r"bias of shape \[5, 1\]"),
        (lambda b: b.op("Reshape", "x", b.ints(4, -1)), r"Reshape 'n0' .* is not supported"),
        # The first sample has 5 rows, so this does nothing there.
        (
            lambda b: b.op("Softmax", b.op("Reshape", "x", b.ints(5, -1))),
            r"Reshape 'n0' .* is not supported",
        ),
        (lambda b: b.op("Identity", "x"), "is an input as it is"),
        (lambda b: b.op("Shape", "x"), "is no activation"),
        (lambda b: b.op("Transpose", "x", perm=[0, 2]), "Transpose 'n0' .* is malformed"),
        (lambda b: b.op("Dropout", "x", "", b.const(True, np.bool_)), "training mode"),
        (lambda b: b.op("LayerNormalization", "x", b.const(V), b.const(V)), "gamma of 6 values"),
        (lambda b: b.op("Attention", "x", b.const(W), domain=MS), "Attention 'n0'"),
        (
            lambda b: b.op("MatMul", "x", b.const(np.full((6, 2), np.nan))),
            "Linear .*: w holds NaN or infinity",
        ),
        (lambda b: b.op("FusedGemm", "x", b.const(W), domain=MS, activation="Relu"), "'Relu'"),
        (lambda b: b.op("Cast", "x", to=TensorProto.INT64), "turns an activation into no float"),
        (
            lambda b: b.op("Softmax", b.op("Split", "x", outputs=2, axis=1, num_outputs=2)[0]),
            "Split 'n0' .* slices of more than one",
        ),
    ],
)
def test_operators_refused(build: Build, match: str) -> None:
    _refused(build, match)


@pytest.mark.parametrize("kind", ["weights", "activations", "integer"])
def test_quantized_graphs_are_refused(kind: str) -> None:
    """By node: neither their integers nor their scales are what this machine computes with."""

    def build(b: Builder) -> str:
        scale, zero = b.const(0.1), b.const(0, np.int8)
        if kind == "weights":
            w = b.op("DequantizeLinear", b.const(np.ones((6, 5)), np.int8), scale, zero)
            return str(b.op("MatMul", "x", w))
        if kind == "activations":
            q = b.op("QuantizeLinear", "x", scale, zero)
            return str(b.op("MatMul", b.op("DequantizeLinear", q, scale, zero), b.const(W)))
        q, _, z = b.op("DynamicQuantizeLinear", "x", outputs=3)
        return str(b.op("MatMulInteger", q, b.const(np.ones((6, 5)), np.int8), z))

    first = {"weights": "Dequantize", "activations": "Quantize", "integer": "DynamicQuantize"}[kind]
    _refused(build, rf"operator {first}Linear 'n0' \(feeds .*\) is of a quantized graph")


def test_a_causal_mask_is_refused() -> None:
    writer = EncoderWriter(small_bert(3), DIALECTS["plain"])
    b = writer.b

    def masked(scores: str) -> str:
        shape = b.op("Shape", scores)
        square = b.op("Slice", shape, b.ints(2), b.ints(4))
        ones = b.op("Expand", b.const(-1e4), square)
        return str(b.op("Add", scores, b.op("Trilu", ones, b.const(1, np.int64), upper=1)))

    writer.masked = masked  # type: ignore[method-assign]
    with pytest.raises(GraphError, match=r"operator Add .*constant mask"):
        import_model(writer.write())


def test_a_window_of_attention_is_refused() -> None:
    """Too wide to show in a short sample: the graph is read with a longer one too."""
    writer = EncoderWriter(small_bert(3), DIALECTS["plain"])
    b, plain = writer.b, writer.masked

    def masked(scores: str) -> str:
        s = b.op("Squeeze", b.op("Slice", b.op("Shape", scores), b.ints(3), b.ints(4)))
        index = b.op("Range", b.const(0, np.int64), s, b.const(1, np.int64))
        rows, columns = (b.op("Unsqueeze", index, b.ints(axis)) for axis in (1, 0))
        far = b.op("GreaterOrEqual", b.op("Abs", b.op("Sub", rows, columns)), b.ints(20))
        low = b.op("Mul", b.op("Cast", far, to=FLOAT), b.const(-1e4))
        return str(b.op("Add", plain(scores), low))

    writer.masked = masked  # type: ignore[method-assign]
    with pytest.raises(GraphError, match=r"operator Add .* (constant mask|masks what)"):
        import_model(writer.write())


def test_graphs_that_depend_on_open_sizes_are_refused() -> None:
    def build(b: Builder) -> str:
        rows = b.op("Cast", b.op("Slice", b.op("Shape", "x"), b.ints(0), b.ints(1)), to=FLOAT)
        return str(b.op("MatMul", "x", b.op("Mul", b.const(W), rows)))

    _refused(build, "Linear .*: depends on the size of an open dimension")


def test_some_outputs() -> None:
    """An output that is not supported does no harm if it is not asked for."""
    proto = _single(lambda b: b.op("Softmax", "x"), {"x": ["m", 6]})
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["more"], "last"))
    proto.graph.output.append(helper.make_tensor_value_info("more", FLOAT, ["m", 6]))
    with pytest.raises(GraphError, match="Relu 'last'"):
        import_model(proto)
    name = proto.graph.output[0].name
    assert import_model(proto, [name]).outputs == (name,)
    with pytest.raises(GraphError, match="has no output 'none', there are"):
        import_model(proto, ["none"])


def test_a_mask_of_something_else_is_refused() -> None:
    model, proto = _written("plain")
    for node in proto.graph.node:
        node.input[:] = ["types" if name == "mask" else name for name in node.input]
    del proto.graph.input[2]
    with pytest.raises(GraphError, match="input types is read as ids and as a mask"):
        import_model(proto)
    assert model.config.types == 2


def test_encoders_refused() -> None:
    def change(kind: str, edit: Callable[[Any], None], match: str) -> None:
        _, proto = _written("plain")
        edit(next(node for node in proto.graph.node if node.op_type == kind))
        with pytest.raises(GraphError, match=match):
            encoder_of(import_model(proto))

    def eps(node: Any) -> None:
        next(a for a in node.attribute if a.name == "epsilon").f = 1e-3

    change("LayerNormalization", eps, r"epsilon differs between layers: \[0\.001, 1e-12\]")

    def half(node: Any) -> None:
        node.op_type = "Mul"

    change("Div", half, r"scores scaled by 3\.46.*, not 1/√12")
    graph = import_model(_single(lambda b: b.op("Softmax", "x"), {"x": ["m", 6]}))
    with pytest.raises(GraphError, match="0 embeddings"):
        encoder_of(graph)


# ---- files --------------------------------------------------------------------------------------


def test_files(tmp_path: Path) -> None:
    model, proto = _written("fused")
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    assert same(encoder_of(import_onnx(path)), model)
    whole = path.read_bytes()
    for name, content in {
        "truncated": whole[: len(whole) // 2],
        "text": b"<html>not found</html>",
        "empty": b"",
    }.items():
        broken = tmp_path / f"{name}.onnx"
        broken.write_bytes(content)
        with pytest.raises(GraphError, match=name) as caught:
            import_onnx(broken)
        assert "\n" not in str(caught.value)
    with pytest.raises(GraphError, match="no such file"):
        import_onnx(tmp_path / "none.onnx")


def test_external_data(tmp_path: Path) -> None:
    model, proto = _written("plain")
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights", size_threshold=0)
    assert same(encoder_of(import_onnx(path)), model)
    (tmp_path / "weights").write_bytes((tmp_path / "weights").read_bytes()[:1000])
    with pytest.raises(GraphError, match="cannot read") as caught:
        import_onnx(path)
    assert "\n" not in str(caught.value)
    (tmp_path / "weights").unlink()
    with pytest.raises(GraphError, match="cannot read"):
        import_onnx(path)


def test_graphs_that_are_no_graphs() -> None:
    with pytest.raises(GraphError, match="no graph"):
        import_model(onnx.ModelProto())
    proto = _single(lambda b: b.op("Softmax", "nothing"), {"x": ["m", 6]})
    with pytest.raises(GraphError, match="reads 'nothing', which nothing before makes"):
        import_model(proto)
    proto = _single(lambda b: b.op("Softmax", "x"), {"x": ["m", 6]})
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(GraphError, match="input x: type STRING"):
        import_model(proto)
    body = helper.make_graph([], "body", [], [])
    proto = _single(
        lambda b: b.op("If", b.const(True, np.bool_), then_branch=body, else_branch=body),
        {"x": ["m", 6]},
    )
    with pytest.raises(GraphError, match="If 'n0' with a subgraph"):
        import_model(proto)


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
