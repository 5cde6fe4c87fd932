"""A quantized encoder as integers: what the compiler lays out and the golden layer runs.

Shapes: K is the number of inputs, N of outputs of a product, H the hidden width. Every float here
belongs to the host's side (into and out of the machine); the machine sees the integers only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import SYM16_MAX
from tilewright.sim.golden.products import K_MAX
from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize.precision import LayerPrecision, Mode, ModelPrecision

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.integer[Any]]


def check_sizes(*, hidden: int, heads: int, head_dim: int, ffn: int) -> None:
    """Refuse an encoder with rows wider than the arithmetic is built for, wherever it runs.

    Raises
    ------
    ModelError
        Naming the size, of 4096 at most.
    """
    for name, size in (("hidden", hidden), ("heads x head_dim", heads * head_dim), ("ffn", ffn)):
        if size > K_MAX:
            raise ModelError(f"{name} = {size}: must be at most {K_MAX}")


class EdgeFormat(enum.Enum):
    """Format results are stored in.

    ``S8`` and ``S16`` saturate at the two's-complement range; ``SYM16`` is s16 that saturates at
    +-32639, for edges that are fed to the array as balanced bytes.
    """

    S8 = "s8"
    S16 = "s16"
    SYM16 = "sym16"

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest value."""
        return {
            EdgeFormat.S8: (-128, 127),
            EdgeFormat.S16: (-32768, 32767),
            EdgeFormat.SYM16: (-SYM16_MAX, SYM16_MAX),
        }[self]


@dataclass(frozen=True, kw_only=True)
class State:
    """Format of an s16 activation at rest: ``real[c] = x[c] * scale * smooth[c]``.

    Attributes
    ----------
    scale : float
        Of the tensor, a power of two.
    smooth : ndarray of float64, [H]
        Smoothing factor of each channel, geometric mean 1.
    width : EdgeFormat
        S16, or SYM16 where the product that reads it has a 16-bit operand.
    """

    scale: float
    smooth: F64
    width: EdgeFormat = EdgeFormat.S16

    def to_int(self, x: npt.NDArray[np.floating[Any]]) -> I16:
        """Round reals [..., H] to s16, half up, saturating at `width`."""
        scaled = np.floor(x / (self.scale * self.smooth) + 0.5)
        return np.clip(scaled, *self.width.bounds).astype(np.int16)

    def to_real(self, x: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Reals of s16 values [..., H]."""
        return (x * (self.scale * self.smooth)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A per-channel factor ``mult[c] * 2^-shift``: mult u16 [N], one shift for the tensor."""

    mult: U16
    shift: int


@dataclass(frozen=True, kw_only=True)
class Groups:
    """4-bit weights: ``weight[k, n] = w4[k, n] * g[k // 32, n]``.

    Attributes
    ----------
    w4 : ndarray of int8, [K, N]
        In [-8, 7].
    g : ndarray of uint8, [ceil(K / 32), N]
        In 0 ... 15.
    """

    w4: I8
    g: U8


@dataclass(frozen=True, kw_only=True)
class QLinear:
    """One product with its requantization.

    Attributes
    ----------
    weight : ndarray, [K, N]
        int8 in [-127, 127]; int8 ``w4 * g`` in [-120, 120] with `groups`; int16 in
        [-32639, 32639] for 16-bit weights, which are sent as balanced bytes.
    mult : ndarray of uint16, [N]
        M, in [2^15, 2^16).
    shift : ndarray of uint8, [N]
        sh, 9 ... 61 (8 ... 61 where the operand has no row scale).
    bias : ndarray of int32, [N]
        B, in 1/256 of the output's unit, |B| < 2^29.
    out : EdgeFormat
        Format of the result, before activation and smoothing: S8 or SYM16 for q, k, v, else S16.
    row_scaled : bool
        The operand is fed as s8 through its row scale (m, e). Else it is 16 bits wide, SYM16, and
        fed as balanced bytes.
    residual : Factor or None
        R[c], sR >= 1: the residual joins before the rounding.
    act : str or None
        Table activation behind the result (s16 Q10).
    smooth : Factor or None
        G[c], sG: factor behind the activation.
    act_out : EdgeFormat
        Format behind `smooth`: SYM16 where the next product's operand is 16 bits wide, else S16.
    groups : Groups or None
        The 4-bit weights `weight` was expanded from.
    """

    weight: I8 | I16
    mult: U16
    shift: U8
    bias: I32
    out: EdgeFormat
    row_scaled: bool = True
    residual: Factor | None = None
    act: str | None = None
    smooth: Factor | None = None
    act_out: EdgeFormat = EdgeFormat.S16
    groups: Groups | None = None

    @property
    def mode(self) -> Mode:
        """Width of weights and operand."""
        weight = 4 if self.groups is not None else 8 * self.weight.dtype.itemsize
        return Mode(f"w{weight}a{8 if self.row_scaled else 16}")


@dataclass(frozen=True, kw_only=True)
class QSoftmax:
    """Softmax's factor: ``u = RSH((max - acc) * mult, shift)`` in Q10; mult u16, shift 0 ... 61.

    acc is s32 of s8 q and k, or combined (44 bits) of 16-bit ones.
    """

    mult: int
    shift: int


@dataclass(frozen=True, kw_only=True)
class QLayerNorm:
    """LayerNorm's constants.

    Attributes
    ----------
    gamma : ndarray of int16, [N]
        g16: gamma over the output's channel scale.
    beta : ndarray of int32, [N]
        b32.
    shift : int
        sg, one for both.
    fraction : int
        Q of xhat.
    eps : int
        eps_q = round(eps * N^2 / S_z^2), up to 40 bits.
    out : EdgeFormat
        S16, or SYM16 where the product that reads the output has a 16-bit operand.
    """

    gamma: I16
    beta: I32
    shift: int
    fraction: int
    eps: int
    out: EdgeFormat = EdgeFormat.S16


@dataclass(frozen=True, kw_only=True)
class QLayer:
    """One encoder layer.

    s16 [S, H] in format `input` -> s16 [S, H] in format `output`; `output` is the next layer's
    `input`, and without smoothing after the last.

    Attributes
    ----------
    attention_bits : int
        8: q, k, v are s8, the context Q7 of v's unit. 16: q, k, v are SYM16 and both products of
        attention take them as balanced bytes; the context is Q0 of v's unit.
    """

    heads: int
    head_dim: int
    hidden: int
    ffn: int
    act: str
    q: QLinear
    k: QLinear
    v: QLinear
    softmax: QSoftmax
    o: QLinear
    ln1: QLayerNorm
    ffn1: QLinear
    ffn2: QLinear
    ln2: QLayerNorm
    input: State
    output: State
    attention_bits: int = 8

    @property
    def context(self) -> EdgeFormat:
        """Format of the context: SYM16 where the output projection's operand is 16 bits wide."""
        return EdgeFormat.S16 if self.o.row_scaled else EdgeFormat.SYM16

    @property
    def precision(self) -> LayerPrecision:
        """Widths this layer was made with."""
        return LayerPrecision(
            qkv=self.q.mode,
            o=self.o.mode,
            ffn1=self.ffn1.mode,
            ffn2=self.ffn2.mode,
            attention=self.attention_bits,
        )


@dataclass(frozen=True, kw_only=True)
class QEmbedding:
    """Embedding tables s16 Q`fraction`; the host adds them, the machine's LayerNorm follows.

    Attributes
    ----------
    word, position, type : ndarray of int16, [rows, H]
    fraction : int
        13 unless a table leaves [-4, 4).
    ln : QLayerNorm
        Into layer 0's input format.
    """

    word: I16
    position: I16
    type: I16
    fraction: int
    ln: QLayerNorm

    def look_up(self, ids: Ints, types: Ints | None = None) -> I16:
        """``z = SAT16(word + position + type)``, [..., S] -> [..., S, H], Q`fraction`.

        Parameters
        ----------
        ids : [..., S]
        types : [..., S], optional
            Token types; 0 by default.
        """
        kind = self.type[0] if types is None else self.type[types]
        z: I32 = self.word[ids].astype(np.int32) + self.position[: ids.shape[-1]] + kind
        return np.clip(z, -32768, 32767).astype(np.int16)


@dataclass(frozen=True, kw_only=True)
class HostEmbedding:
    """An embedding with a product behind its LayerNorm: the host computes all of it.

    The machine has no LayerNorm of another width than its layers; the product is a small part of
    one layer's. Computed in float64, then rounded once into layer 0's input format.

    Attributes
    ----------
    word, position, type : ndarray of float32, [rows, E]
    gamma, beta : ndarray of float32, [E]
        Of the LayerNorm.
    eps : float
    weight : ndarray of float32, [E, H]
    bias : ndarray of float32, [H]
    output : State
        Layer 0's input format.
    """

    word: F32
    position: F32
    type: F32
    gamma: F32
    beta: F32
    eps: float
    weight: F32
    bias: F32
    output: State
    ln: ClassVar[None] = None
    """The machine has none to compute."""

    def look_up(self, ids: Ints, types: Ints | None = None) -> I16:
        """Input of layer 0, [..., S] -> [..., S, H] in the format `output`.

        Parameters
        ----------
        ids : [..., S]
        types : [..., S], optional
            Token types; 0 by default.
        """
        kind = self.type[0] if types is None else self.type[types]
        z = self.word[ids].astype(np.float64) + self.position[: ids.shape[-1]] + kind
        centred = z - z.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        x = centred / np.sqrt(variance + self.eps) * self.gamma + self.beta
        return self.output.to_int(x @ self.weight.astype(np.float64) + self.bias)


@dataclass(frozen=True, kw_only=True)
class QModel:
    """A quantized encoder: embedding and layers."""

    embedding: QEmbedding | HostEmbedding
    layers: tuple[QLayer, ...]

    @property
    def precision(self) -> ModelPrecision:
        """Widths of every layer."""
        return tuple(layer.precision for layer in self.layers)
