"""Layouts of arrays in DRAM: how an array becomes bytes, and bytes an array.

W is the panel width. A *panel* is W consecutive columns of a matrix, columns beyond the logical
width are zero; docs/architecture.md says how panels lie in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.errors import InputError
from tilewright.sw.rounding import round_up

Array = npt.NDArray[np.integer[Any]]
Shape = tuple[int, ...]

_NAMES = {"i1": "s8", "u1": "u8", "i2": "s16", "u2": "u16", "i4": "s32"}
_PIECE = 16


def panels(matrix: Array, width: int, *, row_step: int = 1) -> Array:
    """[rows, columns] -> [panels, rows, width]; rows padded to a multiple of `row_step`, zeros."""
    rows, columns = matrix.shape
    high, wide = round_up(rows, row_step), round_up(columns, width)
    if (high, wide) != (rows, columns):
        matrix = np.pad(matrix, ((0, high - rows), (0, wide - columns)))
    return matrix.reshape(high, wide // width, width).transpose(1, 0, 2)


def from_panels(data: Array, rows: int, columns: int) -> Array:
    """[panels, padded rows, width] -> [rows, columns]."""
    count, high, width = data.shape
    return data.transpose(1, 0, 2).reshape(high, count * width)[:rows, :columns]


@dataclass(frozen=True)
class Layout:
    """How arrays of one kind lie in DRAM.

    Attributes
    ----------
    name : str
    dtype : str
        NumPy's letters of an element, "i2" for s16, little-endian.
    dimensions : int or None
        Dimensions an array must have; None for any.
    row_step : callable
        Of the panel width: what rows are padded to a multiple of; 0 for arrays that are not panels.
    pieces : int
        Above 1, s16 matrices one behind the other that make one of wider values: ``RSH(v, 16·i)``
        modulo 2^16, piece i.
    """

    name: str
    dtype: str
    dimensions: int | None = None
    row_step: Callable[[int], int] = lambda width: 0
    pieces: int = 1

    @property
    def element(self) -> np.dtype[Any]:
        """Type of a stored element."""
        return np.dtype("<i2" if self.pieces > 1 else f"<{self.dtype}")

    def _stored(self, shape: Shape, width: int) -> Shape:
        """Shape of the elements as they are stored."""
        step = self.row_step(width)
        if not step:
            return shape
        rows, columns = shape
        return round_up(columns, width) // width, round_up(rows, step), width

    def size(self, shape: Shape, width: int) -> int:
        """Bytes of an array."""
        if self.dimensions is not None and len(shape) != self.dimensions:
            raise ValueError(
                f"shape {shape}: layout {self.name!r} has {self.dimensions} dimensions"
            )
        return prod(self._stored(shape, width)) * self.element.itemsize * self.pieces

    def pack(self, array: Array, width: int) -> bytes:
        """Bytes of an array that has the right shape and fits the type."""
        if self.pieces == 1:
            return self._pack(array, width)
        value = array.astype(np.int64)
        shifts = [_PIECE * i for i in range(self.pieces)]
        parts = [value + (1 << shift >> 1) >> shift for shift in shifts]
        return b"".join(self._pack(part.astype(np.int16), width) for part in parts)

    def _pack(self, array: Array, width: int) -> bytes:
        step = self.row_step(width)
        parts = panels(array, width, row_step=step) if step else array
        return np.ascontiguousarray(parts.astype(self.element)).tobytes()

    def unpack(self, data: npt.NDArray[np.uint8], shape: Shape, width: int) -> Array:
        """Array of `size` bytes."""
        if self.pieces > 1:
            parts = [self._unpack(part, shape, width) for part in np.split(data, self.pieces)]
            return self._joined([part.astype(np.int64) for part in parts])
        # A copy: the bytes may belong to a buffer that is used again.
        return self._unpack(data, shape, width).astype(self.dtype)

    def _joined(self, parts: list[npt.NDArray[np.int64]]) -> Array:
        """Values of pieces: the last says which multiple of 2^(16·i) is nearest, rounded up."""
        top = _PIECE * (self.pieces - 1)
        low = sum(part << _PIECE * i for i, part in enumerate(parts[:-1]))
        half = 1 << top - 1
        return ((parts[-1] << top) + ((low + half) & (1 << top) - 1) - half).astype(self.dtype)

    def _unpack(self, data: npt.NDArray[np.uint8], shape: Shape, width: int) -> Array:
        stored = np.ascontiguousarray(data).view(self.element).reshape(self._stored(shape, width))
        return from_panels(stored, *shape) if self.row_step(width) else stored

    def check(self, name: str, array: Array, shape: Shape) -> None:
        """Refuse an array that does not fit.

        Raises
        ------
        InputError
            Naming the buffer, what was expected and what it got.
        """
        if array.dtype.kind not in "iu":
            raise InputError(f"{name}: expected an array of integers, got {array.dtype}")
        if array.shape != shape:
            raise InputError(f"{name}: expected an array of shape {shape}, got {array.shape}")
        if not array.size:
            return
        bounds = np.iinfo(self.dtype)
        low, high = int(array.min()), int(array.max())
        if low < bounds.min or high > bounds.max:
            kind = _NAMES.get(self.dtype, "s64")
            raise InputError(
                f"{name}: values of {low} to {high}, {kind} holds {bounds.min} to {bounds.max}"
            )


def _even(width: int) -> int:
    """Two rows of bytes share a word."""
    return 2


MAGNITUDES = "u16 magnitudes"
"""Largest magnitude of each row of another buffer's matrix; made from it when it is an input."""

BUFFER_LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        *(Layout(name, dtype) for dtype, name in _NAMES.items()),
        Layout("s16 panels", "i2", 2, lambda width: 1),
        Layout("u16 panels", "u2", 2, lambda width: 1),
        Layout("s8 panels", "i1", 2, _even),
        Layout("u8 panels", "u1", 2, _even),
        # K rows of a stationary operand, whole tiles along K whatever the array's rows.
        Layout("s8 weights", "i1", 2, lambda width: width),
        # Accumulators as they leave by WRAP16: 32 bits, and up to 48.
        Layout("s32 pieces", "i4", 2, lambda width: 1, pieces=2),
        Layout("s64 pieces", "i8", 2, lambda width: 1, pieces=3),
        Layout(MAGNITUDES, "u2", 1),
    )
}
"""Every layout by name: "s8", "u8", "s16", "u16", "s32" are plain rows; the others as named."""


def layout(name: str) -> Layout:
    """Return a layout by name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    try:
        return BUFFER_LAYOUTS[name]
    except KeyError:
        raise ValueError(
            f"layout {name!r} is unknown; one of {', '.join(BUFFER_LAYOUTS)}"
        ) from None
