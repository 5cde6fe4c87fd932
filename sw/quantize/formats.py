"""A quantized encoder as integers: what the compiler lays out and the golden layer runs.

Shapes: K is the number of inputs, N of outputs of a product, H the hidden width. Every float here
belongs to the host's side (into and out of the machine); the machine sees the integers only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]


class Precision(enum.Enum):
    """Widths of weights and of the operands fed to the array.

    ``W8A8``: s8 weights; operands s16 at rest, fed as s8 through a row scale; q, k, v s8.
    """

    W8A8 = "w8a8"


class Width(enum.Enum):
    """Format a product's results are stored in."""

    S8 = "s8"
    S16 = "s16"


@dataclass(frozen=True, kw_only=True)
class State:
    """Format of an s16 activation at rest: ``real[c] = x[c] * scale * smooth[c]``.

    Attributes
    ----------
    scale : float
        Of the tensor, a power of two.
    smooth : ndarray of float64, [H]
        Smoothing factor of each channel, geometric mean 1.
    """

    scale: float
    smooth: F64

    def to_int(self, x: npt.NDArray[np.floating[Any]]) -> I16:
        """Round reals [..., H] to s16, half up, saturating."""
        scaled = np.floor(x / (self.scale * self.smooth) + 0.5)
        return np.clip(scaled, -32768, 32767).astype(np.int16)

    def to_real(self, x: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Reals of s16 values [..., H]."""
        return (x * (self.scale * self.smooth)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A per-channel factor ``mult[c] * 2^-shift``: mult u16 [N], one shift for the tensor."""

    mult: U16
    shift: int


@dataclass(frozen=True, kw_only=True)
class QLinear:
    """One product with its requantization.

    Attributes
    ----------
    weight : ndarray of int8, [K, N]
        In [-127, 127].
    mult : ndarray of uint16, [N]
        M, in [2^15, 2^16).
    shift : ndarray of uint8, [N]
        sh, 9 ... 61 (8 ... 61 where the operand has no row scale).
    bias : ndarray of int32, [N]
        B, in 1/256 of the output's unit, |B| < 2^29.
    out : Width
        Format of the result.
    row_scaled : bool
        The operand is fed through its row scale (m, e).
    residual : Factor or None
        R[c], sR >= 1: the residual joins before the rounding.
    act : str or None
        Table activation behind the result (s16 Q10).
    smooth : Factor or None
        G[c], sG: factor behind the activation.
    """

    weight: I8
    mult: U16
    shift: U8
    bias: I32
    out: Width
    row_scaled: bool = True
    residual: Factor | None = None
    act: str | None = None
    smooth: Factor | None = None


@dataclass(frozen=True, kw_only=True)
class QSoftmax:
    """Softmax's factor: ``u = RSH((max - acc) * mult, shift)`` in Q10; mult u16, shift 0 ... 61."""

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
    """

    gamma: I16
    beta: I32
    shift: int
    fraction: int
    eps: int


@dataclass(frozen=True, kw_only=True)
class QLayer:
    """One encoder layer.

    s16 [S, H] in format `input` -> s16 [S, H] in format `output`; `output` is the next layer's
    `input`, and without smoothing after the last.
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

    def look_up(self, ids: npt.NDArray[np.integer[Any]]) -> I16:
        """``z = SAT16(word + position + type 0)``, ids [..., S] -> [..., S, H], Q`fraction`."""
        z: I32 = self.word[ids].astype(np.int32) + self.position[: ids.shape[-1]] + self.type[0]
        return np.clip(z, -32768, 32767).astype(np.int16)


@dataclass(frozen=True, kw_only=True)
class QModel:
    """A quantized encoder: embedding, layers, and the precision they were made for."""

    precision: Precision
    embedding: QEmbedding
    layers: tuple[QLayer, ...]
