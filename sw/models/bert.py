"""BERT encoders in fp32 NumPy: weights, and a forward that shows every edge.

Source: Devlin et al., 2018; post-LayerNorm encoder with learned absolute positions. Other families
(`tilewright.sw.models.families`) become the same `Bert` as they are read: positions start at row 0,
a table that is missing is one row of zeros, layers that share weights are one object.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.models import functions
from tilewright.sw.models.config import BertConfig, function_of, read_json
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.families import Layout, Parts
from tilewright.sw.models.functions import (
    F32,
    FUNCTIONS,
    QUICK_GELU,
    Bool,
    attention,
    mean_pool,
    merge_heads,
    split_heads,
)
from tilewright.sw.models.weights import Taker, Tensors, read_tensors

__all__ = [
    "Bert",
    "BertConfig",
    "Embedding",
    "Layer",
    "LayerStates",
    "Linear",
    "Norm",
    "check_ids",
    "fold_act",
    "largest_weight",
    "mean_pool",
    "merge_heads",
    "split_heads",
]

Ints = npt.NDArray[np.integer[Any]]

_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


@dataclass(frozen=True, kw_only=True)
class Linear:
    """``y = x @ w + b``; w [K, N] (transposed from the checkpoint), b [N]."""

    w: F32
    b: F32

    def __call__(self, x: F32) -> F32:
        """[..., K] -> [..., N]."""
        out: F32 = x @ self.w + self.b
        return out


@dataclass(frozen=True, kw_only=True)
class Norm:
    """LayerNorm's gamma and beta, [N] each."""

    gamma: F32
    beta: F32


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights of one encoder layer: attention q, k, v, o, its norm, FFN, its norm."""

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    ln1: Norm
    ffn1: Linear
    ffn2: Linear
    ln2: Norm


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Embedding tables: ``x = project(LayerNorm(word + position + type))``.

    Attributes
    ----------
    word, position, type : ndarray of float32, [V, E], [P, E], [T, E]
        Row 0 of `position` is that of the first token.
    ln : Norm, [E]
    project : Linear or None, [E, hidden]
        None where E is hidden already.
    """

    word: F32
    position: F32
    type: F32
    ln: Norm
    project: Linear | None = None


@dataclass(frozen=True, kw_only=True)
class LayerStates:
    """Every edge of one layer's forward that calibration reads, [..., S, width] each.

    `x` input, `q` `k` `v` projections with bias, `ctx` context, `z1` residual sum and LN1's input,
    `x1` LN1's output, `h` FFN1's output, `a` activation's output, `z2` residual sum and LN2's
    input, `y` output.
    """

    x: F32
    q: F32
    k: F32
    v: F32
    ctx: F32
    z1: F32
    x1: F32
    h: F32
    a: F32
    z2: F32
    y: F32


@dataclass(frozen=True, kw_only=True)
class Bert:
    """An encoder's configuration and fp32 weights."""

    config: BertConfig
    embedding: Embedding
    layers: tuple[Layer, ...]

    @classmethod
    def load(cls, folder: Path) -> Bert:
        """Read and check ``config.json`` and the safetensors of a folder.

        fp16, bfloat16 and fp64 become fp32. Heads are read by `tilewright.sw.models.heads`.

        Raises
        ------
        ModelError
            Unreadable file, missing or unknown tensor, wrong shape or type, NaN or infinity.
        """
        raw = read_json(folder / "config.json")
        config, layout = BertConfig.from_json(raw), Layout.from_json(raw)
        return cls.from_tensors(config, read_tensors(folder), function_of(raw), layout)

    @classmethod
    def from_tensors(
        cls,
        config: BertConfig,
        tensors: Tensors,
        function: str = "",
        layout: Layout | None = None,
    ) -> Bert:
        """Build from named tensors.

        Parameters
        ----------
        config : BertConfig
        tensors : dict
            By checkpoint names, which may carry a prefix.
        function : str, optional
            Activation the weights were trained with, where it is not the configuration's.
        layout : Layout, optional
            Where the weights are; BERT's by default.
        """
        layout = layout or Layout.of_bert(config.layers, config.hidden)
        source = _Source(tensors)
        embedding = source.embedding(config, layout)
        layers = {
            at: fold_act(source.layer(at, layout.parts, config), function)
            for at in dict.fromkeys(layout.layers)
        }
        source.check_rest(_BUFFERS)
        return cls(
            config=config, embedding=embedding, layers=tuple(layers[at] for at in layout.layers)
        )

    def embed(self, ids: Ints, types: Ints | None = None) -> F32:
        """Input of layer 0 (see `Embedding`), [..., S] -> [..., S, hidden].

        Parameters
        ----------
        ids : [..., S]
        types : [..., S], optional
            Which sentence of a pair a token belongs to; 0 by default.

        Raises
        ------
        ModelError
            If an id, a type or the length lies outside the tables, or fp32 overflows.
        """
        check_ids(ids, self.config, types)
        table = self.embedding
        kind = table.type[0] if types is None else table.type[types]
        with np.errstate(over="ignore", invalid="ignore"):
            total = table.word[ids] + table.position[: ids.shape[-1]] + kind
            x = self._norm(total, table.ln)
            x = x if table.project is None else table.project(x)
            return self._finite(x, "the embedding")

    def layer(self, index: int, x: F32, mask: Bool | None = None) -> LayerStates:
        """One encoder layer.

        Parameters
        ----------
        index : int
            Which layer.
        x : [..., S, hidden]
            Input.
        mask : [..., S], optional
            Valid tokens; padding is not attended to.

        Raises
        ------
        ModelError
            If fp32 overflows.
        """
        w, config = self.layers[index], self.config

        def finite(value: F32, part: str) -> F32:
            return self._finite(value, f"layer {index} ({part})")

        with np.errstate(over="ignore", invalid="ignore"):
            q, k, v = (finite(getattr(w, part)(x), part) for part in ("q", "k", "v"))
            scale = 1 / math.sqrt(config.head_dim)
            ctx = attention(q, k, v, heads=config.heads, scale=scale, mask=mask)
            z1 = w.o(finite(ctx, "attention")) + x
            x1 = finite(self._norm(z1, w.ln1), "ln1")
            h = finite(w.ffn1(x1), "ffn1")
            a = FUNCTIONS[config.function](h)
            z2 = w.ffn2(a) + x1
            y = finite(self._norm(z2, w.ln2), "ln2")
        return LayerStates(x=x, q=q, k=k, v=v, ctx=ctx, z1=z1, x1=x1, h=h, a=a, z2=z2, y=y)

    def forward(
        self, ids: Ints, mask: Bool | None = None, types: Ints | None = None
    ) -> list[LayerStates]:
        """States of every layer; the last one's `y` is the model's output."""
        x = self.embed(ids, types)
        states = []
        for index in range(self.config.layers):
            states.append(self.layer(index, x, mask))
            x = states[-1].y
        return states

    def encode(self, ids: Ints, mask: Bool) -> F32:
        """Sentence embedding: the mean over valid tokens of the output, scaled to length 1."""
        return mean_pool(self.forward(ids, mask)[-1].y, mask)

    def largest(self) -> str:
        """The weight of the largest magnitude, for errors: "1e+10 in layer 0.ffn1.w"."""
        layers = {f"layer {index}": layer for index, layer in enumerate(self.layers)}
        return largest_weight({"embedding": self.embedding, **layers})

    def _finite(self, value: F32, where: str) -> F32:
        if not np.isfinite(value).all():
            raise ModelError(f"{where} overflows fp32; the largest weight is {self.largest()}")
        return value

    def _norm(self, x: F32, norm: Norm) -> F32:
        return functions.layer_norm(x, norm.gamma, norm.beta, self.config.eps)


class _Source(Taker):
    """Builds the parts of an encoder out of a checkpoint."""

    def linear(self, name: str, k: int, n: int) -> Linear:
        weight, bias = self.take(f"{name}.weight", (n, k)), self.take(f"{name}.bias", (n,))
        return Linear(w=np.ascontiguousarray(weight.T), b=bias)

    def norm(self, name: str, n: int) -> Norm:
        return Norm(gamma=self.take(f"{name}.weight", (n,)), beta=self.take(f"{name}.bias", (n,)))

    def embedding(self, config: BertConfig, layout: Layout) -> Embedding:
        width = layout.width

        def table(name: str, rows: int) -> F32:
            return self.take(f"embeddings.{name}_embeddings.weight", (rows, width))

        word = table("word", config.vocab)
        position = table("position", layout.skipped + config.positions)[layout.skipped :]
        kind = table("token_type", config.types) if layout.typed else np.zeros((1, width), "f4")
        if layout.tasks:
            kind = kind + table("task_type", layout.tasks)[0]
        ln = self.norm("embeddings.LayerNorm", width)
        project = None
        if layout.project and (width != config.hidden or self.has(f"{layout.project}.weight")):
            project = self.linear(layout.project, width, config.hidden)
        return Embedding(word=word, position=position, type=kind, ln=ln, project=project)

    def layer(self, at: str, parts: Parts, config: BertConfig) -> Layer:
        h, f = config.hidden, config.ffn
        return Layer(
            q=self.linear(at + parts.q, h, h),
            k=self.linear(at + parts.k, h, h),
            v=self.linear(at + parts.v, h, h),
            o=self.linear(at + parts.o, h, h),
            ln1=self.norm(at + parts.ln1, h),
            ffn1=self.linear(at + parts.ffn1, h, f),
            ffn2=self.linear(at + parts.ffn2, f, h),
            ln2=self.norm(at + parts.ln2, h),
        )


def largest_weight(parts: Mapping[str, Any]) -> str:
    """The weight of the largest magnitude in parts of a model, each a dataclass with a name."""
    top = {
        name: float(np.abs(tensor).max())
        for part, value in parts.items()
        for name, tensor in _tensors(part, value)
    }
    name = max(top, key=top.__getitem__)
    return f"{top[name]:.3g} in {name}"


def _tensors(name: str, value: Any) -> Iterator[tuple[str, F32]]:
    """A tensor by its name, or all of a dataclass by theirs."""
    if isinstance(value, np.ndarray):
        yield name, value
    elif is_dataclass(value):
        for inner, part in vars(value).items():
            yield from _tensors(f"{name}.{inner}", part)


def fold_act(layer: Layer, function: str) -> Layer:
    """Turn quick_gelu into silu, which the hardware has; other functions need nothing.

    ``W2 · quick_gelu(W1 x) = (W2 / 1.702) · silu(1.702 · W1 x)``.
    """
    if function != "quick_gelu":
        return layer
    factor = np.float32(QUICK_GELU)
    with np.errstate(over="ignore"):  # the first forward refuses infinity
        ffn1 = Linear(w=layer.ffn1.w * factor, b=layer.ffn1.b * factor)
    ffn2 = Linear(w=layer.ffn2.w / factor, b=layer.ffn2.b)
    return Layer(**{**vars(layer), "ffn1": ffn1, "ffn2": ffn2})


def check_ids(ids: Ints, config: BertConfig, types: Ints | None = None) -> None:
    """Refuse ids and types outside their tables and sequences longer than the positions."""
    if ids.shape[-1] > config.positions:
        raise ModelError(f"{ids.shape[-1]} tokens: must be at most {config.positions}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= config.vocab):
        span = f"{int(ids.min())} to {int(ids.max())}"
        raise ModelError(f"token ids {span}: must be 0 to {config.vocab - 1}, the vocabulary")
    if types is None:
        return
    if types.shape != ids.shape:
        raise ModelError(f"token types of shape {types.shape}, the ids have {ids.shape}")
    if types.size and (int(types.min()) < 0 or int(types.max()) >= config.types):
        span = f"{int(types.min())} to {int(types.max())}"
        raise ModelError(f"token types {span}: must be 0 to {config.types - 1}")
