"""Graphs that are no encoder, on the machine: near fp32, nearer with 16 bits."""

from __future__ import annotations

from collections.abc import Iterator

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
