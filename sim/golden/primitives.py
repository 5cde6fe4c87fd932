"""Rounding shift, saturation, byte splitting: what every other golden function is made of."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import GROUP_ROWS, SYM16_MAX

IntArray = npt.NDArray[np.integer[Any]]
"""Any integer array; golden functions compute in int64 whatever they are given."""
Ints = npt.NDArray[np.integer[Any]] | int
"""An integer array or a plain integer."""
Int64 = npt.NDArray[np.int64]


class Fmt(enum.Enum):
    """Output format of a saturating stage.

    ``S8`` and ``S16`` clip to the two's-complement range; ``SYM16`` to +-32639, the range whose
    balanced bytes are both s8 (a program bit, for operands that are sent 16 bits wide).
    """

    S8 = "s8"
    S16 = "s16"
    SYM16 = "sym16"

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest value."""
        return _BOUNDS[self]

    @property
    def dtype(self) -> type[np.int8] | type[np.int16]:
        """NumPy type that holds the format."""
        return np.int8 if self is Fmt.S8 else np.int16


_BOUNDS = {Fmt.S8: (-128, 127), Fmt.S16: (-32768, 32767), Fmt.SYM16: (-SYM16_MAX, SYM16_MAX)}


def i64(x: Ints) -> Int64:
    """Return x as an int64 array; refuse floats, which would truncate silently.

    Raises
    ------
    TypeError
        If x is neither integer nor bool.
    """
    array = np.asarray(x)
    if array.dtype.kind not in "iub":
        raise TypeError(f"golden functions: expected integers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def rsh(x: Ints, s: Ints) -> Int64:
    """Arithmetic right shift, rounding half up.

    ``RSH(x, s) = (x + 2^(s-1)) >> s`` for s > 0, x for s = 0.

    Parameters
    ----------
    x : integers
        Up to 62 bits, so that the rounding addend cannot overflow int64.
    s : integers
        Shift, 0 ... 61, broadcast against x.

    Returns
    -------
    ndarray of int64

    Raises
    ------
    ValueError
        If a shift lies outside 0 ... 61.
    """
    shift = i64(s)
    if shift.size and (int(shift.min()) < 0 or int(shift.max()) > 61):
        raise ValueError(f"shift {int(shift.min())} to {int(shift.max())}: must be 0 to 61")
    half = (np.int64(1) << shift) >> np.int64(1)
    out: Int64 = (i64(x) + half) >> shift
    return out


def saturate(x: Ints, fmt: Fmt) -> IntArray:
    """Clip x to a format and return it in that format's NumPy type.

    ``SAT_b(x)`` clips to [-2^(b-1), 2^(b-1) - 1]; ``SYM16`` to +-32639.
    """
    lo, hi = fmt.bounds
    out: IntArray = np.clip(i64(x), lo, hi).astype(fmt.dtype)
    return out


def floor_log2(x: Ints) -> Int64:
    """``floor(log2(x))`` of positive integers below 2^62, exactly; -1 for 0.

    The float's exponent is right but for values that round up to the next power of two.
    """
    value = i64(x)
    if value.size and (int(value.min()) < 0 or int(value.max()) >= 1 << 62):
        raise ValueError(f"floor_log2 of {int(value.min())} to {int(value.max())}: must be u62")
    exponent = np.frexp(value.astype(np.float64))[1].astype(np.int64) - 1
    exponent -= (np.int64(1) << np.maximum(exponent, 0)) > value
    return np.where(value == 0, np.int64(-1), exponent)


def bit_length(x: Ints) -> Int64:
    """Bits of an unsigned integer, ``bitlen(0) = 0``."""
    return floor_log2(x) + 1


def interpolate(table: Int64, i: Int64, lo: Int64, lg: int) -> Int64:
    """``T[i] + RSH((T[i+1] - T[i]) * lo, lg)``: every interpolating table is read so."""
    base: Int64 = table[i]
    return base + rsh((table[i + 1] - base) * lo, lg)


def balanced_bytes(x: Ints) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Split 16-bit values into two signed bytes, ``x = 256 h + l``.

    ``l = ((x + 128) mod 256) - 128``.

    Parameters
    ----------
    x : integers in [-32768, 32639]

    Returns
    -------
    h, l : ndarray of int8

    Raises
    ------
    ValueError
        Above 32639 (h would be 128) or below -32768.
    """
    value = i64(x)
    if value.size and (int(value.min()) < -32768 or int(value.max()) > SYM16_MAX):
        bounds = f"{int(value.min())} ... {int(value.max())}"
        raise ValueError(f"balanced bytes of {bounds}: must be -32768 to {SYM16_MAX}")
    low = ((value + 128) & 255) - 128
    return ((value - low) >> 8).astype(np.int8), low.astype(np.int8)


def expand_w4(w4: IntArray, g: IntArray, group: int = GROUP_ROWS) -> npt.NDArray[np.int8]:
    """Expand 4-bit weights: ``w8[k, n] = w4[k, n] * g[k // group, n]``.

    Parameters
    ----------
    w4 : [K, N] in [-8, 7]
    g : [K / group, N] in 0 ... 15

    Returns
    -------
    ndarray of int8, [K, N], in [-120, 105]

    Raises
    ------
    ValueError
        If a value is outside its range or the shapes do not fit.
    """
    weights, scales = i64(w4), i64(g)
    if weights.shape[0] != scales.shape[0] * group or weights.shape[1:] != scales.shape[1:]:
        raise ValueError(f"w4 {weights.shape} does not fit g {scales.shape} in groups of {group}")
    if weights.size and (int(weights.min()) < -8 or int(weights.max()) > 7):
        raise ValueError(f"w4 {int(weights.min())} to {int(weights.max())}: must be -8 to 7")
    if scales.size and (int(scales.min()) < 0 or int(scales.max()) > 15):
        raise ValueError(f"g {int(scales.min())} to {int(scales.max())}: must be 0 to 15")
    return (weights * np.repeat(scales, group, axis=0)).astype(np.int8)
