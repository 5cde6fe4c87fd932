"""ONNX graphs built by hand, in the spellings exporters and fusers use; names mean nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.sw.small_bert import small_bert
from tilewright.sw.models.bert import Bert, Linear, Norm

MS = "com.microsoft"
Array = npt.NDArray[Any]


@dataclass
class Builder:
    """Nodes and constants of a graph in the making; tensors are called t0, t1 …"""

    opset: int = 17
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def name(self) -> str:
        return f"t{len(self.nodes)}_{len(self.constants)}"

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def op(
        self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **options: Any
    ) -> Any:
        base = self.name()
        names = [f"{base}_{i}" for i in range(outputs)]
        label = f"n{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), names, label, domain=domain, **options)
        )
        return names[0] if outputs == 1 else names

    def model(
        self, inputs: list[tuple[str, int, list[Any]]], outputs: list[str], rank: int = 3
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(*one) for one in inputs],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
                for name in outputs
            ],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(MS, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How an encoder is spelled."""

    linear: str = "matmul"  # matmul, flipped (bias first), gemm (on flattened rows)
    norm: str = "op"  # op, parts, rsqrt, skip, embed (skip, and the embedding fused)
    gelu: str = "op"  # op, tanh (its other form), erf, mul, fast, bias, microsoft
    scale: str = "div"  # div, mul, both (on q and k)
    layout: str = "heads"  # heads, bmm, packed, mha, onnx
    mask: str = "add"  # add, where, none
    types: str = "input"  # input, buffer (of zeros, by positions, as transformers has it), none
    opset: int = 20


FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


class EncoderWriter:
    """Writes a `Bert` in a dialect."""

    def __init__(self, bert: Bert, dialect: Dialect) -> None:
        self.bert, self.d = bert, dialect
        self.b = Builder(opset=dialect.opset)

    def linear(self, x: str, real: Linear) -> str:
        b, (k, n) = self.b, real.w.shape
        if self.d.linear == "gemm":
            flat = b.op("Reshape", x, b.ints(-1, k))
            y = b.op("Gemm", flat, b.const(real.w.T), b.const(real.b), transB=1)
            shape = b.op("Concat", self.rows, b.ints(n), axis=0)
            return str(b.op("Reshape", y, shape))
        y = b.op("MatMul", x, b.const(real.w))
        bias = b.const(real.b)
        return str(b.op("Add", *((bias, y) if self.d.linear == "flipped" else (y, bias))))

    def residual(self, x: str, skip: str, real: Linear, norm: Norm) -> str:
        """LayerNorm(linear(x) + skip)."""
        b = self.b
        if self.d.norm in ("skip", "embed"):
            y = b.op("MatMul", x, b.const(real.w))
            parts = (y, skip, b.const(norm.gamma), b.const(norm.beta), b.const(real.b))
            eps = self.bert.config.eps
            return str(b.op("SkipLayerNormalization", *parts, domain=MS, epsilon=eps))
        return self.norm(b.op("Add", self.linear(x, real), skip), norm)

    def norm(self, x: str, norm: Norm) -> str:
        b, eps = self.b, self.bert.config.eps
        gamma, beta = b.const(norm.gamma), b.const(norm.beta)
        if self.d.norm not in ("parts", "rsqrt"):
            return str(b.op("LayerNormalization", x, gamma, beta, epsilon=eps))
        centred = b.op("Sub", x, b.op("ReduceMean", x, axes=[-1]))
        if self.d.norm == "parts":
            # As one exporter has it: the difference twice, the square as a power.
            again = b.op("Sub", x, b.op("ReduceMean", x, axes=[-1]))
            square = b.op("Pow", again, b.const(2.0))
        else:
            square = b.op("Mul", centred, centred)
        variance = b.op("Add", b.op("ReduceMean", square, axes=[-1]), b.const(eps))
        root = b.op("Sqrt", variance)
        if self.d.norm == "parts":
            y = b.op("Div", centred, root)
        else:
            y = b.op("Mul", b.op("Reciprocal", root), centred)
        return str(b.op("Add", b.op("Mul", gamma, y), beta))

    def ffn1(self, x: str, real: Linear) -> str:
        b = self.b
        if self.d.gelu in ("bias", "fast"):
            y = b.op("MatMul", x, b.const(real.w))
            kind = "BiasGelu" if self.d.gelu == "bias" else "FastGelu"
            return str(b.op(kind, y, b.const(real.b), domain=MS))
        h = self.linear(x, real)
        if self.d.gelu in ("op", "tanh"):
            return str(b.op("Gelu", h, approximate="none" if self.d.gelu == "op" else "tanh"))
        if self.d.gelu == "microsoft":
            return str(b.op("Gelu", h, domain=MS))
        one, half = b.const(1.0), b.const(0.5)
        if self.d.gelu == "mul":
            e = b.op("Erf", b.op("Mul", h, b.const(math.sqrt(0.5))))
            return str(b.op("Mul", b.op("Mul", half, h), b.op("Add", one, e)))
        e = b.op("Erf", b.op("Div", h, b.const(math.sqrt(2))))
        return str(b.op("Mul", b.op("Mul", h, b.op("Add", e, one)), half))

    def attention(self, q: str, k: str, v: str) -> str:
        b, config = self.b, self.bert.config
        heads, d = config.heads, config.head_dim
        if self.d.layout == "onnx":
            # [B, 1, S, S]: true where attended to.
            on = b.op("Unsqueeze", b.op("Cast", "mask", to=TensorProto.BOOL), b.ints(1, 2))
            batch, s = (b.op("Gather", self.rows, b.ints(i), axis=0) for i in (0, 1))
            on = b.op("Expand", on, self.shape(batch, 1, s, s))
            return str(b.op("Attention", q, k, v, on, q_num_heads=heads, kv_num_heads=heads))
        if self.d.layout == "mha":
            key = b.op("Cast", "mask", to=TensorProto.INT32)
            inputs = (q, k, v, "", key)
            return str(b.op("MultiHeadAttention", *inputs, domain=MS, num_heads=heads))
        split = b.op("Concat", self.rows, b.ints(heads, d), axis=0)
        kinds = [b.op("Reshape", t, split) for t in (q, k, v)]
        qh, vh = (b.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (kinds[0], kinds[2]))
        kh = b.op("Transpose", kinds[1], perm=[0, 2, 3, 1])
        s = b.op("Gather", self.rows, b.ints(1), axis=0)
        if self.d.layout == "bmm":
            qh, vh = (b.op("Reshape", t, self.shape(-1, s, d)) for t in (qh, vh))
            kh = b.op("Reshape", kh, self.shape(-1, d, s))
        if self.d.scale == "both":
            root = b.const(d**-0.25)
            qh, kh = b.op("Mul", qh, root), b.op("Mul", kh, root)
        scores = b.op("MatMul", qh, kh)
        if self.d.scale == "div":
            scores = b.op("Div", scores, b.const(math.sqrt(d)))
        elif self.d.scale == "mul":
            scores = b.op("Mul", scores, b.const(1 / math.sqrt(d)))
        if self.d.layout == "bmm":
            scores = b.op("Reshape", scores, self.shape(-1, heads, s, s))
        scores = self.masked(scores)
        weights = b.op("Softmax", scores, axis=-1)
        if self.d.layout == "bmm":
            weights = b.op("Reshape", weights, self.shape(-1, s, s))
        context = b.op("MatMul", weights, vh)
        if self.d.layout == "bmm":
            context = b.op("Reshape", context, self.shape(-1, heads, s, d))
        turned = b.op("Transpose", context, perm=[0, 2, 1, 3])
        return str(b.op("Reshape", turned, self.shape(0, 0, heads * d)))

    def shape(self, *sizes: Any) -> str:
        b = self.b
        parts = [size if isinstance(size, str) else b.ints(size) for size in sizes]
        return str(b.op("Concat", *parts, axis=0))

    def masked(self, scores: str) -> str:
        b = self.b
        if self.d.mask == "none":
            return scores
        wide = b.op("Unsqueeze", "mask", b.ints(1, 2))
        if self.d.mask == "where":
            on = b.op("Equal", wide, b.ints(0))
            return str(b.op("Where", on, b.const(-3.4e38), scores))
        real = b.op("Cast", wide, to=FLOAT)
        return str(b.op("Add", scores, b.op("Mul", b.op("Sub", b.const(1.0), real), b.const(-1e4))))

    def embedding(self) -> str:
        b, table = self.b, self.bert.embedding
        word, position, kind = (b.const(t) for t in (table.word, table.position, table.type))
        if self.d.norm == "embed":
            ids, types = (b.op("Cast", t, to=TensorProto.INT32) for t in ("ids", "types"))
            parts = (ids, types, word, position, kind)
            norm = (b.const(table.ln.gamma), b.const(table.ln.beta))
            eps = self.bert.config.eps
            x, *_ = b.op(
                "EmbedLayerNormalization", *parts, *norm, outputs=3, domain=MS, epsilon=eps
            )
            return str(x)
        index = self.positions()
        x = b.op("Gather", word, "ids")
        if self.d.types != "none":
            types = "types" if self.d.types == "input" else self.buffered(index)
            x = b.op("Add", x, b.op("Gather", kind, types))
        if self.bert.config.padding is not None:
            skipped = self.bert.config.padding + 1
            position = b.const(np.pad(table.position, ((skipped, 0), (0, 0)), mode="edge"))
        rows = b.op("Gather", position, index)
        if self.d.norm == "skip":
            vectors = (b.const(table.ln.gamma), b.const(table.ln.beta))
            eps = self.bert.config.eps
            x = b.op("SkipLayerNormalization", x, rows, *vectors, domain=MS, epsilon=eps)
        else:
            x = self.norm(b.op("Add", rows, x), table.ln)
        return x if table.project is None else self.linear(x, table.project)

    def positions(self) -> str:
        """[1, S], or [B, S] where they do not count padding."""
        b, padding = self.b, self.bert.config.padding
        zero, one = b.const(0, np.int64), b.const(1, np.int64)
        if padding is None:
            count = b.op("Gather", self.rows, one)
            return str(b.op("Unsqueeze", b.op("Range", zero, count, one), b.ints(0)))
        real = b.op("Not", b.op("Equal", "ids", b.const(padding, np.int64)))
        real = b.op("Cast", real, to=TensorProto.INT32)
        counted = b.op("Mul", b.op("CumSum", real, one), real)
        counted = b.op("Cast", counted, to=TensorProto.INT64)
        return str(b.op("Add", counted, b.const(padding, np.int64)))

    def buffered(self, index: str) -> str:
        """Token types out of a buffer of zeros, [1, 128] before it is repeated for each row."""
        b = self.b
        count = b.op("Gather", b.op("Shape", index), b.ints(0))
        wide = b.op("Expand", b.const(np.zeros((1, 128)), np.int64), self.shape(count, 128))
        return str(b.op("Expand", b.op("GatherElements", wide, index, axis=1), self.rows))

    def write(self) -> onnx.ModelProto:
        b = self.b
        self.rows = b.op("Shape", "ids")
        x = self.embedding()
        for layer in self.bert.layers:
            if self.d.layout == "packed":
                packed = np.concatenate([layer.q.w, layer.k.w, layer.v.w], axis=1)
                bias = np.concatenate([layer.q.b, layer.k.b, layer.v.b])
                key = b.op("Cast", "mask", to=TensorProto.INT32)
                heads = self.bert.config.heads
                context = b.op(
                    "Attention", x, b.const(packed), b.const(bias), key, domain=MS, num_heads=heads
                )
            else:
                context = self.attention(*(self.linear(x, lin) for lin in layer_qkv(layer)))
            x1 = self.residual(context, x, layer.o, layer.ln1)
            x = self.residual(self.ffn1(x1, layer.ffn1), x1, layer.ffn2, layer.ln2)
        self.hidden = x
        return self.model([x])

    def model(self, outputs: list[str], rank: int = 3) -> onnx.ModelProto:
        """The graph so far, with any tensors as outputs."""
        names = ["ids"] + ["types"] * (self.d.types == "input") + ["mask"] * (self.d.mask != "none")
        return self.b.model([(name, INT, ["b", "s"]) for name in names], outputs, rank)


def layer_qkv(layer: Any) -> tuple[Linear, Linear, Linear]:
    return layer.q, layer.k, layer.v


DIALECTS = {
    "plain": Dialect(),
    "parts": Dialect(linear="flipped", norm="parts", gelu="erf", scale="mul", opset=13),
    "reciprocal": Dialect(norm="rsqrt", gelu="mul", scale="both", mask="where", opset=17),
    "gemm": Dialect(linear="gemm", gelu="erf", layout="bmm", scale="both", opset=17),
    "no mask": Dialect(mask="none"),
    "no types": Dialect(types="buffer"),
    "onnx attention": Dialect(layout="onnx", opset=23),
    "fused": Dialect(norm="embed", gelu="bias", layout="packed"),
    "fused in part": Dialect(norm="skip", gelu="microsoft", layout="mha"),
}
"""Spellings of one encoder."""


Build = Callable[[Builder], str]


def single(build: Build, shapes: dict[str, list[Any]], opset: int = 20) -> onnx.ModelProto:
    b = Builder(opset=opset)
    out = build(b)
    rank = max(len(shape) for shape in shapes.values())
    return b.model([(name, FLOAT, shape) for name, shape in shapes.items()], [out], rank)


W = np.random.default_rng(7).standard_normal((6, 5)).astype(np.float32)
V = np.random.default_rng(8).standard_normal(5).astype(np.float32)
"""Weights and a vector for single operations: [6, 5] and [5]."""


def written(name: str, seed: int = 3) -> tuple[Bert, onnx.ModelProto]:
    model = small_bert(seed)
    return model, EncoderWriter(model, DIALECTS[name]).write()
