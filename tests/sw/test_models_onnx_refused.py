"""ONNX that is refused: by node and in one line; files, whole and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.sw.onnx_graphs import (
    DIALECTS,
    FLOAT,
    MS,
    Build,
    Builder,
    EncoderWriter,
    V,
    W,
    single,
    written,
)
from tests.sw.same import same
from tests.sw.small_bert import small_bert
from tilewright.sw.graph import ir
from tilewright.sw.graph.encoder import encoder_of
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.onnx.load import import_model, import_onnx
from tilewright.sw.graph.run import run_fp32


def _refused(build: Build, match: str, shape: list[Any] | None = None) -> None:
    proto = single(build, {"x": ["m", 6] if shape is None else shape})
    with pytest.raises(GraphError, match=match) as caught:
        import_model(proto)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (
            lambda b: b.op("MatMul", b.op("HardSwish", "x"), b.const(W)),
            r"operator HardSwish 'n0' \(feeds MatMul 'n1'\) is not supported",
        ),
        (lambda b: b.op("HardSwish", "x"), r"operator HardSwish 'n0' \(makes an output\)"),
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
        (
            lambda b: b.op("FusedGemm", "x", b.const(W), domain=MS, activation="HardSwish"),
            "'HardSwish'",
        ),
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
    proto = single(lambda b: b.op("Softmax", "x"), {"x": ["m", 6]})
    proto.graph.node.append(helper.make_node("HardSwish", ["x"], ["more"], "last"))
    proto.graph.output.append(helper.make_tensor_value_info("more", FLOAT, ["m", 6]))
    with pytest.raises(GraphError, match="HardSwish 'last'"):
        import_model(proto)
    name = proto.graph.output[0].name
    assert import_model(proto, [name]).outputs == (name,)
    with pytest.raises(GraphError, match="has no output 'none'; it has"):
        import_model(proto, ["none"])


def test_a_mask_of_something_else_is_refused() -> None:
    model, proto = written("plain")
    for node in proto.graph.node:
        node.input[:] = ["types" if name == "mask" else name for name in node.input]
    del proto.graph.input[2]
    with pytest.raises(GraphError, match="input types is read as ids and as a mask"):
        import_model(proto)
    assert model.config.types == 2


def test_encoders_refused() -> None:
    def change(kind: str, edit: Callable[[Any], None], match: str) -> None:
        _, proto = written("plain")
        edit(next(node for node in proto.graph.node if node.op_type == kind))
        with pytest.raises(GraphError, match=match):
            encoder_of(import_model(proto))

    def eps(node: Any) -> None:
        next(a for a in node.attribute if a.name == "epsilon").f = 1e-3

    change("LayerNormalization", eps, r"epsilon differs between layers: \[0\.001, 1e-12\]")

    def half(node: Any) -> None:
        node.op_type = "Mul"

    change("Div", half, r"scores scaled by 3\.46.*, not 1/√12")
    graph = import_model(single(lambda b: b.op("Softmax", "x"), {"x": ["m", 6]}))
    with pytest.raises(GraphError, match="0 embeddings"):
        encoder_of(graph)


def test_files(tmp_path: Path) -> None:
    model, proto = written("fused")
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
    model, proto = written("plain")
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


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda b: b.op("Add", "x", "x", "x"), "wrong number of inputs: expected 2, got 3"),
        (lambda b: b.op("MatMul", "x"), "wrong number of inputs: expected 2, got 1"),
        (lambda b: b.op("Tanh"), "wrong number of inputs: expected 1, got 0"),
        (lambda b: b.op("LayerNormalization", "x"), "inputs: expected at least 2, got 1"),
        (lambda b: b.op("Softmax", "x", "x"), "inputs: expected 1, got 2"),
        (lambda b: b.op("Clip", "x", "", "", ""), "inputs: expected at most 3, got 4"),
        (lambda b: b.op("Cast", "x"), "lacks its attribute 'to'"),
        (lambda b: b.op("Sum", "x", "x"), "Sum .* is not supported"),
        (lambda b: b.op("Max", "x", "x", "x"), "of 3 operands is not supported"),
        (lambda b: b.op("Gather", "x", b.const(0, np.int64), axis=5), "works on axis 5 of 2"),
        (lambda b: b.op("Unsqueeze", "x", b.ints(9)), "works on axis 9 of 3"),
        (lambda b: b.op("Split", "x", axis=-3), "works on axis -3 of 2"),
        (lambda b: b.op("Slice", "x", b.ints(0), b.ints(1, 2)), "is malformed: its inputs"),
        (lambda b: b.op("FusedMatMul", "x", domain=MS), "is malformed: its inputs"),
        (lambda b: b.op("Expand", "x", b.ints(2, 1, 1)), "repeats an activation"),
        (lambda b: b.op("LpNormalization", "x", p=1), "otherwise than rows to length 1"),
        (lambda b: b.op("ReduceSum", "x", b.ints(1)), "sums neither tokens"),
    ],
)
def test_malformed_operators(build: Build, match: str) -> None:
    _refused(build, match)


def _pair(kind: str, a: list[Any], b: list[Any]) -> onnx.ModelProto:
    return single(lambda g: g.op(kind, "x", "y"), {"x": a, "y": b})


def test_broadcasts() -> None:
    refused: list[tuple[str, list[Any], list[Any], str]] = [
        ("MatMul", ["m", 6], [6], r"multiplies \[5, 6\] and \[6\]: must be matrices"),
        ("MatMul", ["m", 6], [5, 7], r"\['m', 6\] and \[5, 7\] do not fit: 6 is not 5"),
        ("MatMul", [2, "m", 6], [3, 6, 7], r"joins \[2\] and \[3\], which do not broadcast"),
        ("MatMul", ["a", "m", 6], ["b", 6, 7], "do not broadcast"),
        ("Add", ["m", 6], ["k", 6], r"joins \[5, 6\] and \[7, 6\], which do not broadcast"),
        ("Add", ["m", 6], [5, 6], r"axes \['m', 6\] and \[5, 6\] do not broadcast"),
    ]
    for kind, a, b, match in refused:
        with pytest.raises(GraphError, match=match):
            import_model(_pair(kind, a, b))
    supported: list[tuple[str, list[Any], list[Any], ir.Shape]] = [
        ("MatMul", [2, 1, "m", 6], [3, 6, 7], (2, 3, "m", 7)),
        ("MatMul", ["m", 6], ["a", 6, 7], ("a", "m", 7)),
        ("Add", ["m", 6], [6], ("m", 6)),
        ("Add", [1, 6], ["b", "m", 6], ("b", "m", 6)),
    ]
    for kind, a, b, want in supported:
        graph = import_model(_pair(kind, a, b))
        assert graph.tensors[graph.outputs[0]].shape == want


def test_attention_in_heads() -> None:
    """Four axes: run where they are given so; else with the reason."""

    def attention(*shapes: list[Any], mask: bool = False, **options: Any) -> onnx.ModelProto:
        names = [*"qkv"[: len(shapes)], *["m"] * mask]
        inputs = dict(zip("qkv", shapes, strict=True)) | ({"m": [2, 1, 5, 5]} if mask else {})
        return single(lambda b: b.op("Attention", *names, **options), inputs, opset=23)

    four: list[Any] = [2, 3, 5, 8]
    graph = import_model(attention(four, four, four))
    q, k, v = (np.random.default_rng(i).standard_normal(four).astype(np.float32) for i in range(3))
    scores = np.exp(q @ k.swapaxes(-1, -2) / 8**0.5)
    want = scores / scores.sum(axis=-1, keepdims=True) @ v
    (got,) = run_fp32(graph, {"q": q, "k": k, "v": v}).values()
    assert np.abs(got - want).max() < 1e-5
    three: list[Any] = [2, 5, 8]
    for proto, match in (
        (attention(four, four, four, mask=True), "of inputs in heads must have no mask"),
        (attention(four, [2, 1, 5, 8], [2, 1, 5, 8]), "must be equal, of 3 axes or of 4"),
        (attention(four, [2, 3, 6, 8], [2, 3, 6, 8]), "must be equal, of 3 axes or of 4"),
        (attention([5, 8], [5, 8], [5, 8]), "must be equal, of 3 axes or of 4"),
        (attention(three, three, three), "has 0 heads and q, k, v of .*, which do not fit"),
        (attention(three, three, three, q_num_heads=3, kv_num_heads=3), "has 3 heads"),
        (attention(three, three, three, q_num_heads=2, kv_num_heads=1), "with fewer heads"),
    ):
        with pytest.raises(GraphError, match=rf"operator Attention .*{match}"):
            import_model(proto)


def test_what_is_no_valid_graph() -> None:
    def changed(edit: Callable[[Any], None], match: str) -> None:
        proto = single(lambda b: b.op("MatMul", "x", b.const(W)), {"x": ["m", 6]})
        edit(proto)
        with pytest.raises(GraphError, match=match) as caught:
            import_model(proto)
        assert "\n" not in str(caught.value)

    def opset(version: int) -> Callable[[Any], None]:
        return lambda proto: setattr(proto.opset_import[0], "version", version)

    changed(opset(99), r"operator set 99: must be 7 to \d+")
    changed(opset(6), r"operator set 6: must be 7 to \d+")
    more = helper.make_node("Tanh", ["x"], ["u"])
    # Twice, used or not.
    changed(lambda proto: proto.graph.node.append(proto.graph.node[0]), "is made twice")
    changed(lambda proto: proto.graph.node.extend([more, more]), "'u' is made twice")
    changed(lambda proto: proto.graph.input.append(proto.graph.input[0]), "'x' is made twice")
    changed(lambda p: p.graph.initializer.append(p.graph.initializer[0]), "'c0' is made twice")

    def negative(proto: Any) -> None:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -3

    changed(negative, "'x' has a dimension of -3")

    def minus(proto: Any) -> None:
        proto.graph.initializer[0].dims[0] = -1

    changed(minus, "'c0' has a dimension of -1")


def test_graphs_that_are_no_graphs() -> None:
    with pytest.raises(GraphError, match="no graph"):
        import_model(onnx.ModelProto())
    proto = single(lambda b: b.op("Softmax", "nothing"), {"x": ["m", 6]})
    with pytest.raises(GraphError, match="reads 'nothing', which nothing before makes"):
        import_model(proto)
    proto = single(lambda b: b.op("Softmax", "x"), {"x": ["m", 6]})
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(GraphError, match="input x: type STRING"):
        import_model(proto)
    body = helper.make_graph([], "body", [], [])
    proto = single(
        lambda b: b.op("If", b.const(True, np.bool_), then_branch=body, else_branch=body),
        {"x": ["m", 6]},
    )
    with pytest.raises(GraphError, match="If 'n0' with a subgraph"):
        import_model(proto)
