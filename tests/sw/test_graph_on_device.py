"""Graphs that are no encoder, on the machine: near fp32, nearer with 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tilewright.hw.config import preset_config
from tilewright.sw.driver import Device
from tilewright.sw.graph import ir
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.ir import Graph, Tensor
from tilewright.sw.graph.onnx.load import import_model
from tilewright.sw.graph.run import run_fp32
from tilewright.sw.pipeline.graph import run_graph

RNG = np.random.default_rng(1)


def real(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    config = preset_config("small").with_settings(["functions=gelu,silu,tanh"])
    with Device("iss", config) as device:
        yield device


def check(device: Device, graph: Graph, inputs: dict[str, np.ndarray], narrow: float) -> None:
    """Relative error of the outputs: at most `narrow` with 8 bits, a tenth of it with 16."""
    want = run_fp32(graph, inputs)
    for bits, bound in ((8, narrow), (16, narrow / 10)):
        got = run_graph(device, graph, inputs, bits=bits)
        for name, value in want.items():
            error = np.linalg.norm(got[name] - value) / np.linalg.norm(value)
            assert got[name].dtype == np.float32
            assert error <= bound, f"{name}, {bits} bits: {error}"


def graph_of(node: ir.Node, **inputs: tuple[int, ...]) -> Graph:
    tensors = tuple(Tensor(name=name, shape=shape) for name, shape in inputs.items())
    return Graph(inputs=tensors, outputs=(node.out,), nodes=(node,))


def test_linear(device: Device) -> None:
    node = ir.Linear(out="y", x="x", w=real(33, 21), b=real(21))
    check(device, graph_of(node, x=(2, 7, 33)), {"x": real(2, 7, 33)}, 0.03)


@pytest.mark.parametrize("transposed", [False, True])
def test_matmul(device: Device, transposed: bool) -> None:
    shape = (3, 9, 20) if transposed else (3, 20, 9)
    node = ir.MatMul(out="y", a="a", b="b", transposed=transposed)
    graph = graph_of(node, a=(3, 5, 20), b=shape)
    check(device, graph, {"a": real(3, 5, 20), "b": real(*shape)}, 0.03)


def test_softmax(device: Device) -> None:
    check(device, graph_of(ir.Softmax(out="y", x="x"), x=(6, 17)), {"x": real(6, 17)}, 0.1)


@pytest.mark.parametrize("function", ["gelu", "silu", "tanh", "quick_gelu"])
def test_activation(device: Device, function: str) -> None:
    node = ir.Activation(out="y", x="x", function=function)
    check(device, graph_of(node, x=(5, 40)), {"x": real(5, 40, scale=3)}, 0.02)


def test_layernorm(device: Device) -> None:
    node = ir.LayerNorm(out="y", x="x", gamma=real(48), beta=real(48), eps=1e-5)
    check(device, graph_of(node, x=(4, 48)), {"x": real(4, 48, scale=5)}, 0.02)


def test_attention_with_a_mask(device: Device) -> None:
    node = ir.Attention(out="y", q="q", k="k", v="v", mask="mask", heads=4, scale=0.35)
    names = ("q", "k", "v")
    tensors = (
        *(Tensor(name=name, shape=(2, 11, 32)) for name in names),
        Tensor(name="mask", shape=(2, 11), dtype="bool"),
    )
    mask = np.arange(11) < np.array([[11], [6]])
    inputs = {**{name: real(2, 11, 32) for name in names}, "mask": mask}
    check(device, Graph(inputs=tensors, outputs=("y",), nodes=(node,)), inputs, 0.1)


def test_a_feed_forward_block_from_onnx(device: Device) -> None:
    weights = {"w1": real(24, 50), "b1": real(50), "w2": real(50, 24), "b2": real(24)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Gelu", ["h"], ["g"]),
        helper.make_node("Gemm", ["g", "w2", "b2"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    proto = helper.make_graph(
        nodes,
        "ffn",
        [value("x", TensorProto.FLOAT, [6, 24])],
        [value("y", TensorProto.FLOAT, [6, 24])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)])
    check(device, import_model(model), {"x": real(6, 24)}, 0.05)


# ---- rows of very different sizes ---------------------------------------------------------------


def run(device: Device, graph: Graph, **inputs: object) -> np.ndarray:
    feeds = {name: np.asarray(x, np.float32) for name, x in inputs.items()}
    (out,) = run_graph(device, graph, feeds).values()
    return out


def near(got: np.ndarray, want: object, bound: float) -> bool:
    return bool(np.abs(got - np.asarray(want)).max() <= bound)


def test_softmax_takes_every_row_for_itself(device: Device) -> None:
    graph = graph_of(ir.Softmax(out="y", x="x"), x=(2, 4))
    want = [0.032, 0.087, 0.237, 0.644]
    for low, high in ((0, 10000), (-3e38, 3e38), (1e-40, 0)):
        x = np.add.outer(np.array([0.0, high]), np.arange(4)) + np.array([[low], [0.0]])
        rows = x - x.max(axis=1, keepdims=True)
        true = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
        if low == 0:
            assert near(true, [want, want], 0.001)
        got = run(device, graph, x=x.astype(np.float32))
        # The larger rows are rounded by fp32 before anyone sees them.
        exact = run_fp32(graph, {"x": x.astype(np.float32)})["y"]
        assert near(got, exact, 0.005)


@pytest.mark.parametrize("masked", [-1e9, -3.4e38, -np.inf])
def test_masked_scores_are_as_in_fp32(device: Device, masked: float) -> None:
    """In the scores, and added to them."""
    scores = np.array([[0, 1, masked, 3], [masked, masked, 2, masked]], np.float32)
    graph = graph_of(ir.Softmax(out="y", x="x"), x=(2, 4))
    want = run_fp32(graph, {"x": scores})["y"]
    got = run(device, graph, x=scores)
    assert near(got, want, 0.005)
    np.testing.assert_array_equal(got[scores < -100], 0)
    np.testing.assert_array_equal(got[1], [0, 0, 1, 0])

    tensors = (Tensor(name="x", shape=(2, 4)), Tensor(name="bias", shape=(4,)))
    nodes = (ir.Add(out="s", a="x", b="bias"), ir.Softmax(out="y", x="s"))
    graph = Graph(inputs=tensors, outputs=("y",), nodes=nodes)
    got = run(device, graph, x=np.ones((2, 4)), bias=[0, masked, 0, masked])
    assert near(got, [[0.5, 0, 0.5, 0]] * 2, 0.002)


def test_layernorm_takes_every_row_for_itself(device: Device) -> None:
    ones, none = np.ones(4, np.float32), np.zeros(4, np.float32)
    want = [-1.3416, -0.4472, 0.4472, 1.3416]
    x = np.outer([1, 1e5, 1e15, 1e-15], [1, 2, 3, 4])
    node = ir.LayerNorm(out="y", x="x", gamma=ones, beta=none, eps=0.0)
    assert near(run(device, graph_of(node, x=(4, 4)), x=x), [want] * 4, 0.003)
    # A row whose variance is epsilon's size, one far below it, one without any, one far from 0.
    x = np.array([[1, 2, 3, 4], [0.001, 0.002, 0.003, 0.004], [7] * 4, [9001, 9002, 9003, 9004]])
    gamma, beta = np.array([1, 1e-4, 1e6, 0], np.float32), np.array([0, 1, 0, -1e6], np.float32)
    for eps in (0.75, 1e-6):
        node = ir.LayerNorm(out="y", x="x", gamma=gamma, beta=beta, eps=eps)
        graph = graph_of(node, x=(4, 4))
        true = run_fp32(graph, {"x": x.astype(np.float32)})["y"]
        got = run(device, graph, x=x)
        assert near((got - beta) / np.maximum(gamma, 1e-9), (true - beta) / (gamma + 1e-9), 0.003)


def test_layernorm_of_a_long_row_with_one_outlier(device: Device) -> None:
    x = np.zeros((1, 4096), np.float32)
    x[0, 5] = 1
    ones = np.ones(4096, np.float32)
    node = ir.LayerNorm(out="y", x="x", gamma=ones, beta=0 * ones, eps=0.0)
    assert abs(run(device, graph_of(node, x=(1, 4096)), x=x)[0, 5] - 64) < 0.05


@pytest.mark.parametrize("function", ["gelu", "gelu_tanh", "silu", "tanh", "quick_gelu"])
def test_activations_of_large_values(device: Device, function: str) -> None:
    graph = graph_of(ir.Activation(out="y", x="x", function=function), x=(10,))
    x = np.array([100, 31.999, 33, 16, 15, 1e6, 3e38, -100, -20, -3e38], np.float32)
    want = np.sign(x) if function == "tanh" else np.maximum(x, 0)
    got = run(device, graph, x=x)
    assert near((got - want) / np.maximum(1, np.abs(want)), 0, 0.001)
    if function != "tanh":
        assert got[0] == 100


def test_products_take_every_row_and_column_for_itself(device: Device) -> None:
    small, large = real(3, 40), real(3, 40, scale=1e6)
    weights = np.concatenate([real(40, 5), real(40, 5, scale=1e-6)], axis=1)
    for node, inputs in (
        (ir.Linear(out="y", x="a", w=weights), {"a": np.concatenate([small, large])}),
        (ir.MatMul(out="y", a="a", b="b"), {"a": np.concatenate([small, large]), "b": weights}),
    ):
        graph = graph_of(node, **{name: value.shape for name, value in inputs.items()})
        want = run_fp32(graph, inputs)["y"]
        got = run(device, graph, **inputs)
        for rows in (slice(0, 3), slice(3, 6)):
            for columns in (slice(0, 5), slice(5, 10)):
                part = want[rows, columns]
                error = np.linalg.norm(got[rows, columns] - part) / np.linalg.norm(part)
                assert error < 0.02


def test_products_broadcast(device: Device) -> None:
    a, b = real(2, 1, 5, 20), real(3, 20, 9)
    graph = graph_of(ir.MatMul(out="y", a="a", b="b"), a=a.shape, b=b.shape)
    assert graph.tensors["y"].shape == (2, 3, 5, 9)
    check(device, graph, {"a": a, "b": b}, 0.03)


def test_attention_over_a_wide_range(device: Device) -> None:
    """A token whose query is large, one whose key is: the others keep their digits."""
    node = ir.Attention(out="y", q="q", k="k", v="v", mask="mask", heads=2, scale=0.3)
    tensors = (
        *(Tensor(name=name, shape=(1, 6, 16)) for name in "qkv"),
        Tensor(name="mask", shape=(1, 6), dtype="bool"),
    )
    graph = Graph(inputs=tensors, outputs=("y",), nodes=(node,))
    inputs = {name: real(1, 6, 16) for name in "qkv"}
    inputs["q"][0, 5] *= 1e4
    inputs["k"][0, 4] *= 1e4
    check(device, graph, {**inputs, "mask": np.array([[1, 1, 1, 1, 0, 1]])}, 0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_no_number_is_refused_by_name(device: Device, bad: float) -> None:
    x = np.ones((2, 4))
    x[1, 2] = bad
    node = ir.LayerNorm(out="y", x="x", gamma=x[0], beta=x[0], eps=0.1)
    graph = graph_of(node, x=(2, 4))
    what = "NaN" if np.isnan(bad) else "infinity"
    for evaluate in (run_fp32, partial(run_graph, device)):
        with pytest.raises(GraphError, match=rf"^input x f32 \[2, 4\] holds {what}$"):
            evaluate(graph, {"x": x})


def test_what_a_node_cannot_give_is_refused_by_name(device: Device) -> None:
    big = np.full((4, 4), 3e38, np.float32)
    nodes = (ir.Linear(out="h", x="x", w=big), ir.Softmax(out="y", x="h"))
    graph = Graph(inputs=(Tensor(name="x", shape=(2, 4)),), outputs=("y",), nodes=nodes)
    softmax = graph_of(ir.Softmax(out="y", x="x"), x=(2, 4))
    for evaluate in (run_fp32, partial(run_graph, device)):
        with pytest.raises(GraphError, match=r"^Linear h holds infinity$"):
            evaluate(graph, {"x": big[:2]})
        with pytest.raises(GraphError, match=r"^Softmax y: a row holds nothing but -inf"):
            evaluate(softmax, {"x": np.full((2, 4), -np.inf)})
        with pytest.raises(GraphError, match=r"input x .* holds infinity"):
            evaluate(softmax, {"x": np.full((2, 4), np.inf)})


def test_refusals(device: Device) -> None:
    node = ir.Activation(out="y", x="x", function="tanh")
    graph = graph_of(node, x=(4,))
    with Device("iss", preset_config("tiny")) as tiny:
        with pytest.raises(GraphError, match="tanh needs tanh, tiny has gelu"):
            run_graph(tiny, graph, {"x": real(4)})
    with pytest.raises(GraphError, match="bits = 4"):
        run_graph(device, graph, {"x": real(4)}, bits=4)
    with pytest.raises(GraphError, match="shape"):
        run_graph(device, graph, {"x": real(5)})
