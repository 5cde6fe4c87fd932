"""BERT encoders in fp32 NumPy: configuration, weights, and a forward that shows every edge.

Source: Devlin et al., 2018; post-LayerNorm encoder with learned absolute positions. Weight names
are those of the `BertModel` checkpoints, with or without a ``bert.`` prefix.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from sw.models.errors import ModelError

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

_ACTIVATIONS = {"gelu": "gelu", "silu": "silu", "swish": "silu"}


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Shape of an encoder, from ``config.json``.

    Attributes
    ----------
    hidden, heads, layers, ffn : int
        Width, attention heads, layers, width of the feed-forward block.
    vocab, positions, types : int
        Rows of the embedding tables.
    act : str
        ``gelu`` (erf form) or ``silu``.
    eps : float
        Of every LayerNorm.
    """

    hidden: int
    heads: int
    layers: int
    ffn: int
    vocab: int
    positions: int
    types: int
    act: str
    eps: float

    def __post_init__(self) -> None:
        for name in ("hidden", "heads", "layers", "ffn", "vocab", "positions", "types"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ModelError(f"config: {name} = {value!r}, must be an integer of at least 1")
        if self.hidden % self.heads:
            raise ModelError(f"config: hidden {self.hidden} is no multiple of heads {self.heads}")
        if self.act not in _ACTIVATIONS.values():
            allowed = ", ".join(_ACTIVATIONS)
            raise ModelError(f"config: activation {self.act!r} is not supported, only {allowed}")
        if not 0 < self.eps < 1:
            raise ModelError(f"config: layer_norm_eps = {self.eps!r} outside 0 ... 1")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    @classmethod
    def load(cls, folder: Path) -> BertConfig:
        """Read ``config.json`` of a model folder.

        Raises
        ------
        ModelError
            Not JSON, a missing key, a value that is not supported.
        """
        path = folder / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read {path}: {error}") from error
        if not isinstance(raw, dict):
            raise ModelError(f"{path} holds no JSON object")
        positions = raw.get("position_embedding_type", "absolute")
        if positions != "absolute":
            raise ModelError(f"config: position_embedding_type {positions!r}, only 'absolute'")
        try:
            act = raw.get("hidden_act", "gelu")
            return cls(
                hidden=raw["hidden_size"],
                heads=raw["num_attention_heads"],
                layers=raw["num_hidden_layers"],
                ffn=raw["intermediate_size"],
                vocab=raw["vocab_size"],
                positions=raw["max_position_embeddings"],
                types=raw.get("type_vocab_size", 1),
                act=_ACTIVATIONS.get(act, str(act)),
                eps=float(raw.get("layer_norm_eps", 1e-12)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: missing or bad entry {error}") from error


@dataclass(frozen=True, kw_only=True)
class Linear:
    """``y = x @ w + b``; w [K, N] (transposed from the checkpoint), b [N]."""

    w: F32
    b: F32


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
    """Embedding tables, word [V, hidden], position [P, hidden], type [T, hidden], and the norm."""

    word: F32
    position: F32
    type: F32
    ln: Norm


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
        """Read and check ``config.json`` and ``model.safetensors`` of a folder.

        Raises
        ------
        ModelError
            Unreadable file, missing tensor, wrong shape, NaN or infinity.
        """
        config = BertConfig.load(folder)
        return cls.from_tensors(config, _read_tensors(folder / "model.safetensors"))

    @classmethod
    def from_tensors(cls, config: BertConfig, tensors: dict[str, npt.NDArray[Any]]) -> Bert:
        """Build from named tensors; the names may carry a ``bert.`` prefix."""
        source = _Tensors(tensors)
        h, f = config.hidden, config.ffn
        embedding = Embedding(
            word=source.take("embeddings.word_embeddings.weight", (config.vocab, h)),
            position=source.take("embeddings.position_embeddings.weight", (config.positions, h)),
            type=source.take("embeddings.token_type_embeddings.weight", (config.types, h)),
            ln=source.norm("embeddings.LayerNorm", h),
        )
        layers = []
        for i in range(config.layers):
            at = f"encoder.layer.{i}."
            layers.append(
                Layer(
                    q=source.linear(at + "attention.self.query", h, h),
                    k=source.linear(at + "attention.self.key", h, h),
                    v=source.linear(at + "attention.self.value", h, h),
                    o=source.linear(at + "attention.output.dense", h, h),
                    ln1=source.norm(at + "attention.output.LayerNorm", h),
                    ffn1=source.linear(at + "intermediate.dense", h, f),
                    ffn2=source.linear(at + "output.dense", f, h),
                    ln2=source.norm(at + "output.LayerNorm", h),
                )
            )
        return cls(config=config, embedding=embedding, layers=tuple(layers))

    def embed(self, ids: npt.NDArray[np.integer[Any]]) -> F32:
        """Input of layer 0: LayerNorm(word + position + type 0), ids [..., S] -> [..., S, hidden].

        Raises
        ------
        ModelError
            If an id or the length lies outside the tables.
        """
        check_ids(ids, self.config)
        table = self.embedding
        total = table.word[ids] + table.position[: ids.shape[-1]] + table.type[0]
        return layer_norm(total, table.ln, self.config.eps)

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
        """
        w, config = self.layers[index], self.config
        q, k, v = (_linear(x, lin) for lin in (w.q, w.k, w.v))
        qh, kh, vh = (split_heads(t, config.heads) for t in (q, k, v))
        scores = qh @ kh.swapaxes(-1, -2) * np.float32(1 / math.sqrt(config.head_dim))
        if mask is not None:
            scores = np.where(mask[..., None, None, :], scores, np.float32(-1e30))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        ctx = merge_heads(weights @ vh)
        z1 = _linear(ctx, w.o) + x
        x1 = layer_norm(z1, w.ln1, config.eps)
        h = _linear(x1, w.ffn1)
        a = gelu(h) if config.act == "gelu" else silu(h)
        z2 = _linear(a, w.ffn2) + x1
        y = layer_norm(z2, w.ln2, config.eps)
        return LayerStates(x=x, q=q, k=k, v=v, ctx=ctx, z1=z1, x1=x1, h=h, a=a, z2=z2, y=y)

    def forward(
        self, ids: npt.NDArray[np.integer[Any]], mask: Bool | None = None
    ) -> list[LayerStates]:
        """States of every layer; the last one's `y` is the model's output."""
        x = self.embed(ids)
        states = []
        for index in range(self.config.layers):
            states.append(self.layer(index, x, mask))
            x = states[-1].y
        return states

    def encode(self, ids: npt.NDArray[np.integer[Any]], mask: Bool) -> F32:
        """Sentence embedding: the mean over valid tokens of the output, scaled to length 1."""
        return mean_pool(self.forward(ids, mask)[-1].y, mask)


class _Tensors:
    """Takes named tensors out of a checkpoint and checks them."""

    def __init__(self, tensors: dict[str, npt.NDArray[Any]]) -> None:
        self._tensors = tensors

    def take(self, name: str, shape: tuple[int, ...]) -> F32:
        for prefix in ("", "bert."):
            if prefix + name in self._tensors:
                tensor = self._tensors[prefix + name]
                break
        else:
            raise ModelError(f"the model has no tensor {name}")
        if tensor.shape != shape:
            raise ModelError(f"{name} has shape {tensor.shape}, config says {shape}")
        if tensor.dtype.kind != "f":
            raise ModelError(f"{name} has dtype {tensor.dtype}, must be floating point")
        if not np.isfinite(tensor).all():
            raise ModelError(f"{name} holds NaN or infinity")
        return tensor.astype(np.float32, copy=False)

    def linear(self, name: str, k: int, n: int) -> Linear:
        weight = self.take(f"{name}.weight", (n, k))
        return Linear(w=np.ascontiguousarray(weight.T), b=self.take(f"{name}.bias", (n,)))

    def norm(self, name: str, n: int) -> Norm:
        return Norm(gamma=self.take(f"{name}.weight", (n,)), beta=self.take(f"{name}.bias", (n,)))


def _read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, AttributeError) as error:
        # NumPy has no bfloat16: safetensors says so with a TypeError or AttributeError.
        raise ModelError(f"cannot read {path}: {error}") from error


def check_ids(ids: npt.NDArray[np.integer[Any]], config: BertConfig) -> None:
    """Refuse ids outside the vocabulary and sequences longer than the positions."""
    if ids.shape[-1] > config.positions:
        raise ModelError(f"{ids.shape[-1]} tokens, the model has {config.positions} positions")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= config.vocab):
        span = f"{int(ids.min())} ... {int(ids.max())}"
        raise ModelError(f"token ids {span} outside the vocabulary 0 ... {config.vocab - 1}")


def split_heads(x: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """[..., S, hidden] -> [..., heads, S, head_dim]."""
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


def merge_heads(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[..., heads, S, head_dim] -> [..., S, hidden]."""
    joined = x.swapaxes(-2, -3)
    return joined.reshape(*joined.shape[:-2], -1)


def _linear(x: F32, lin: Linear) -> F32:
    out: F32 = x @ lin.w + lin.b
    return out


def layer_norm(x: F32, norm: Norm, eps: float) -> F32:
    """LayerNorm over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    out: F32 = centred / np.sqrt(variance + np.float32(eps)) * norm.gamma + norm.beta
    return out


_ERF_STEPS = 256
_ERF_EDGE = 6
_ERF_X = np.arange(-_ERF_EDGE * _ERF_STEPS, _ERF_EDGE * _ERF_STEPS + 1) / _ERF_STEPS
_ERF_Y = np.array([math.erf(x) for x in _ERF_X.tolist()])
_ERF_D = 2 / math.sqrt(math.pi) * np.exp(-(_ERF_X**2)) / _ERF_STEPS


def erf(x: F32) -> npt.NDArray[np.float64]:
    """Error function by cubic Hermite interpolation, error below 1e-11 (NumPy has none)."""
    position = (np.clip(x.astype(np.float64), -_ERF_EDGE, _ERF_EDGE) + _ERF_EDGE) * _ERF_STEPS
    i = np.minimum(position.astype(np.int64), len(_ERF_X) - 2)
    t = position - i
    y0, y1, d0, d1 = _ERF_Y[i], _ERF_Y[i + 1], _ERF_D[i], _ERF_D[i + 1]
    slope = y1 - y0
    out: npt.NDArray[np.float64] = y0 + t * (
        d0 + t * (3 * slope - 2 * d0 - d1 + t * (d0 + d1 - 2 * slope))
    )
    return out


def gelu(x: F32) -> F32:
    """GELU in its erf form, ``x / 2 * (1 + erf(x / sqrt 2))``."""
    return (0.5 * x * (1 + erf(x / np.float32(math.sqrt(2))))).astype(np.float32)


def silu(x: F32) -> F32:
    """``x / (1 + exp(-x))``."""
    half = x / 2
    out: F32 = half * (1 + np.tanh(half))
    return out


def mean_pool(y: F32, mask: Bool) -> F32:
    """Mean over valid tokens, scaled to length 1: y [..., S, hidden], mask [..., S]."""
    weight = mask[..., None].astype(np.float32)
    mean = (y * weight).sum(axis=-2) / np.maximum(weight.sum(axis=-2), 1)
    out: F32 = mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
    return out
