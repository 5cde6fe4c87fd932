"""Latency of a BERT encoder on ONNX Runtime, one core; runs in the Python of the peers.

``python -m tilewright.sw.bench.onnx_runtime FOLDER SEQUENCE`` writes the model of a folder as ONNX,
checks it against the fp32 reference, quantizes it (dynamic, int8), and times both. The last line of
standard output is a JSON object.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tilewright.sw.models.bert import Bert, Linear, Norm

OPSET = 20
TOLERANCE = 1e-3
"""Largest difference of an fp32 output from the reference."""
WARM, RUNS = 3, 30

Array = npt.NDArray[Any]


class Writer:
    """An encoder as an ONNX graph: input "ids" [1, S], output "y" [1, S, hidden]."""

    def __init__(self, bert: Bert, sequence: int) -> None:
        self.bert, self.sequence = bert, sequence
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, out: str = "", **options: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **options))
        return name

    def linear(self, x: str, real: Linear) -> str:
        product = self.node("MatMul", x, self.constant(real.w))
        return self.node("Add", product, self.constant(real.b))

    def norm(self, x: str, norm: Norm, out: str = "") -> str:
        gamma, beta = self.constant(norm.gamma), self.constant(norm.beta)
        eps = self.bert.config.eps
        return self.node("LayerNormalization", x, gamma, beta, out=out, epsilon=eps)

    def split(self, x: str, order: list[int]) -> str:
        """Heads of [1, S, heads · d], transposed."""
        config = self.bert.config
        shape = self.constant([1, self.sequence, config.heads, config.head_dim], np.int64)
        return self.node("Transpose", self.node("Reshape", x, shape), perm=order)

    def layer(self, index: int, x: str, out: str = "") -> str:
        layer, config = self.bert.layers[index], self.bert.config
        q = self.split(self.linear(x, layer.q), [0, 2, 1, 3])
        k = self.split(self.linear(x, layer.k), [0, 2, 3, 1])
        v = self.split(self.linear(x, layer.v), [0, 2, 1, 3])
        scores = self.node("Div", self.node("MatMul", q, k), self.constant(config.head_dim**0.5))
        context = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        context = self.node("Transpose", context, perm=[0, 2, 1, 3])
        merged = self.constant([1, self.sequence, config.heads * config.head_dim], np.int64)
        context = self.node("Reshape", context, merged)
        x1 = self.norm(self.node("Add", self.linear(context, layer.o), x), layer.ln1)
        a = self.node("Gelu", self.linear(x1, layer.ffn1))
        return self.norm(self.node("Add", self.linear(a, layer.ffn2), x1), layer.ln2, out)

    def model(self) -> onnx.ModelProto:
        """The whole encoder."""
        bert, s = self.bert, self.sequence
        table = bert.embedding
        word = self.node("Gather", self.constant(table.word), "ids", axis=0)
        x = self.node("Add", word, self.constant(table.position[:s] + table.type[0]))
        x = self.norm(x, table.ln)
        last = bert.config.layers - 1
        for index in range(bert.config.layers):
            x = self.layer(index, x, "y" if index == last else "")
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, s])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, s, bert.config.hidden])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(path: Path) -> Callable[[Array], Array]:
    """A model on one thread with every optimisation: ids [1, S] -> y [S, hidden]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    opened = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids: Array) -> Array:
        out: Array = opened.run(["y"], {"ids": ids})[0][0]
        return out

    return run


def timed(run: Callable[[Array], Array], ids: Array) -> dict[str, float]:
    """Seconds of an inference: median and least of wall time, median of CPU time."""
    for _ in range(WARM):
        run(ids)
    wall, cpu = [], []
    for _ in range(RUNS):
        begun, used = time.perf_counter(), time.process_time()
        run(ids)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
    return {
        "wall": statistics.median(wall),
        "least": min(wall),
        "cpu": statistics.median(cpu),
    }


def cosine(a: Array, b: Array) -> float:
    """Cosine of two sentence embeddings, the means over tokens."""
    a, b = a.mean(axis=0), b.mean(axis=0)
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def measure(bert: Bert, sequence: int, folder: Path) -> dict[str, Any]:
    """Both precisions of a model.

    Raises
    ------
    SystemExit
        If the graph computes something else than the reference.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ids = np.random.default_rng(1).integers(0, bert.config.vocab, (1, sequence))
    reference = bert.forward(ids[0])[-1].y
    real, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    onnx.save(Writer(bert, sequence).model(), real)
    quantize_dynamic(real, int8, weight_type=QuantType.QInt8, per_channel=True)
    runs = {"fp32": session(real), "int8": session(int8)}
    outputs = {name: run(ids) for name, run in runs.items()}
    worst = float(np.abs(outputs["fp32"] - reference).max())
    if worst > TOLERANCE:
        sys.exit(f"the ONNX graph differs from the reference by {worst:g}")
    return {
        "onnxruntime": onnxruntime.__version__,
        "difference": worst,
        "cosine_int8": cosine(outputs["int8"], reference),
        **{name: timed(run, ids) for name, run in runs.items()},
    }


def main() -> None:
    """Measure the model of a folder on one core."""
    folder, sequence = Path(sys.argv[1]), int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Bert.load(folder), sequence, Path(name))))


if __name__ == "__main__":
    main()
