"""Packing: matrices in panel layout as bytes, and the weight image in the order it is streamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import PARAMETER_ROWS
from tilewright.sw.compiler.place import DramMap
from tilewright.sw.program.layouts import panels
from tilewright.sw.quantize.precision import Mode
from tilewright.sw.rounding import ceil_div

Ints = npt.NDArray[np.integer[Any]]
I16 = npt.NDArray[np.int16]


def pad(matrix: Ints, rows: int, columns: int) -> Ints:
    """Extend a matrix with zeros."""
    have_rows, have_columns = matrix.shape
    return np.pad(matrix, ((0, rows - have_rows), (0, columns - have_columns)))


def nibbles(matrix: Ints, width: int) -> Ints:
    """4-bit panels, [panels, rows, width / 2]: column 2j in the low half of byte j."""
    values = (panels(matrix, width) & 15).astype(np.uint8)
    return values[..., 0::2] | values[..., 1::2] << 4


def balanced(matrix: Ints) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """High and low balanced bytes of s16 values within ±32639."""
    low = ((matrix.astype(np.int32) + 128) & 255) - 128
    return (matrix - low >> 8).astype(np.int8), low.astype(np.int8)


def parameters(
    columns: int,
    *,
    mult: Ints | None = None,
    shift: Ints | None = None,
    bias: Ints | None = None,
    factor: Ints | None = None,
) -> I16:
    """Channel parameters [5, N]: M, sh, B's halves, multiplier; what is not given is zero."""
    rows = np.zeros((PARAMETER_ROWS, columns), dtype=np.int64)
    if mult is not None:
        rows[0] = mult
    if shift is not None:
        rows[1] = shift
    if bias is not None:
        rows[2] = bias.astype(np.int64) & 0xFFFF
        rows[3] = (bias.astype(np.int64) >> 16) & 0xFFFF
    if factor is not None:
        rows[4] = factor.astype(np.int64) & 0xFFFF
    return (rows & 0xFFFF).astype(np.uint16).view(np.int16)


@dataclass(frozen=True, kw_only=True)
class Product:
    """Weights and parameters of a product as they are streamed.

    Attributes
    ----------
    name : str
    k, n : int
        Logical sizes: what the operand has, and the valid columns of the result.
    mode : Mode
    weight : ndarray, [K padded to tiles, N padded to panels]
        int8; of 16-bit modes int16; of 4-bit modes int8 nibbles, to be multiplied by `scales`.
    params : ndarray of int16, [5, N padded to panels]
    width : int
        W.
    scales : ndarray of uint8 or None, [groups, N padded to panels]
        Group scales of 4-bit modes.
    """

    name: str
    k: int
    n: int
    mode: Mode
    weight: Ints
    params: I16
    width: int
    scales: Ints | None = None

    @property
    def panels(self) -> int:
        return self.params.shape[1] // self.width

    @property
    def plane_words(self) -> int:
        """Words of one panel of one plane of weights; 0 for parameters alone."""
        return self.weight.shape[0] // (4 if self.scales is not None else 2)

    @property
    def planes(self) -> int:
        """Matrices of bytes or nibbles."""
        return 2 if self.weight.dtype == np.int16 else 1

    @property
    def group_words(self) -> int:
        """Words of one panel of group scales."""
        return 0 if self.scales is None else ceil_div(len(self.scales), 4)

    @property
    def panel_words(self) -> int:
        """Words of one panel: weights, group scales, parameters."""
        return self.planes * self.plane_words + self.group_words + PARAMETER_ROWS

    def chunk(self, first: int, last: int) -> Chunk:
        """Panels [first, last)."""
        return Chunk(self, first, last)


@dataclass(frozen=True)
class Chunk:
    """A range of a product's panels: weights, then parameters, contiguous in DRAM."""

    product: Product
    first: int
    last: int

    @property
    def key(self) -> tuple[str, int, int]:
        return self.product.name, self.first, self.last

    @property
    def panels(self) -> int:
        return self.last - self.first

    @property
    def words(self) -> int:
        return self.panels * self.product.panel_words

    def plane_offset(self, plane: int) -> int:
        """Words before a plane of the weights."""
        return plane * self.panels * self.product.plane_words

    @property
    def group_offset(self) -> int:
        """Words before the group scales."""
        return self.plane_offset(self.product.planes)

    @property
    def parameter_offset(self) -> int:
        """Words before the parameters."""
        return self.group_offset + self.panels * self.product.group_words

    @property
    def valid(self) -> int:
        """Logical columns in this range."""
        return min(
            self.product.n - self.first * self.product.width, self.panels * self.product.width
        )

    def to_bytes(self) -> bytes:
        """The chunk as it stands in DRAM."""
        product = self.product
        width = product.width
        span = slice(self.first * width, self.last * width)
        weight = product.weight[:, span]
        sections: list[Ints]
        if product.scales is not None:
            scales = product.scales[:, span]
            rows = 4 * product.group_words
            sections = [nibbles(weight, width), nibbles(pad(scales, rows, weight.shape[1]), width)]
        elif product.planes > 1:
            sections = [panels(plane, width) for plane in balanced(weight)]
        else:
            sections = [panels(weight, width)]
        sections.append(panels(product.params[:, span], width).astype("<i2"))
        return b"".join(np.ascontiguousarray(section).tobytes() for section in sections)


@dataclass
class WeightImage:
    """The weight region: chunks in the order they are first fetched.

    Attributes
    ----------
    dram : DramMap
    word_bytes : int
    """

    dram: DramMap
    word_bytes: int
    _parts: dict[tuple[str, int, int], tuple[int, Callable[[], bytes]]] = field(
        default_factory=dict
    )

    def offset(self, chunk: Chunk) -> int:
        """Where a chunk stands; appended when it is asked for the first time."""
        if chunk.key not in self._parts:
            name = f"{chunk.product.name} panels {chunk.first} to {chunk.last - 1}"
            self._parts[chunk.key] = (
                self.dram.add(name, chunk.words * self.word_bytes),
                chunk.to_bytes,
            )
        return self._parts[chunk.key][0]

    def to_bytes(self) -> bytes:
        """The whole image."""
        out = bytearray(self.dram.size)
        for offset, build in self._parts.values():
            data = build()
            out[offset : offset + len(data)] = data
        return bytes(out)
