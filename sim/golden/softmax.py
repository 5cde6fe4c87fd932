"""Softmax in base 2, unnormalised, and the division behind the second product of attention.

Per row: the maximum over the valid columns, then ``e8`` (u8) and its sum ``den``; the array forms
``o = sum e8 * v`` and the context is ``o / den`` by one reciprocal a row.

Source: the deferred division is that of online softmax (Milakov and Gimelshein, 2018).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.hw.tables import EXP2, EXP2_FRACTION_BITS, EXP2_LG
from tilewright.sim.golden.primitives import (
    Fmt,
    Int64,
    IntArray,
    Ints,
    bit_length,
    i64,
    interpolate,
    rsh,
    saturate,
)

Bool = npt.NDArray[np.bool_]

_FRACTION_MASK = (1 << EXP2_FRACTION_BITS) - 1
_MAX_INTEGER = 31


def valid_columns(
    rows: int, cols: int, *, length: int, causal: bool = False, row0: int = 0
) -> Bool:
    """Which columns a row sees: ``j < length``, and with a causal mask also ``j <= row0 + i``.

    Returns
    -------
    ndarray of bool, [rows, cols]
    """
    j = np.arange(cols)
    valid = np.broadcast_to(j < length, (rows, cols))
    if causal:
        valid = valid & (j <= row0 + np.arange(rows)[:, None])
    return valid


def softmax_max(acc: IntArray, valid: Bool) -> Int64:
    """Largest accumulator of each row over its valid columns.

    Parameters
    ----------
    acc : [..., rows, cols], up to 42 bits; anything in invalid columns
    valid : [rows, cols] or broadcastable

    Returns
    -------
    ndarray of int64, [..., rows]
        int64's lowest value for a row without a valid column (its e8 are 0 whatever it is).
    """
    lowest = np.iinfo(np.int64).min
    out: Int64 = np.where(valid, i64(acc), lowest).max(axis=-1)
    return out


def softmax_exp(
    acc: IntArray, row_maximum: Ints, valid: Bool, ms: Ints, shs: Ints
) -> npt.NDArray[np.uint8]:
    """Unnormalised attention weights.

    ``u = RSH((x - acc) * Ms, shs)`` in Q10, ``I = u >> 10``, ``f = u & 1023``; 64 segments,
    ``i = f >> 4``, lg = 4; ``e8 = min(RSH(interp >> I, 8), 255)`` where ``>> I`` truncates; 0 for
    I > 31 and in invalid columns.

    Parameters
    ----------
    acc : [..., rows, cols], up to 42 bits
    row_maximum : [..., rows]
        From `softmax_max`.
    valid : [rows, cols] or broadcastable
    ms : integer, u16
        Multiplier; log2(e) / sqrt(d) is folded in.
    shs : integer
        Shift, 0 ... 61.

    Returns
    -------
    ndarray of uint8, [..., rows, cols]
    """
    # The difference of an invalid column is not computed: its accumulator may be anything.
    distance = np.where(valid, i64(row_maximum)[..., None] - i64(acc), 0)
    u = rsh(distance * i64(ms), shs)
    octave = u >> EXP2_FRACTION_BITS
    fraction = u & _FRACTION_MASK
    low = fraction & ((1 << EXP2_LG) - 1)
    value = interpolate(EXP2, fraction >> EXP2_LG, low, EXP2_LG)
    e8 = np.minimum(rsh(value >> np.minimum(octave, _MAX_INTEGER), 8), 255)
    return np.where(valid & (octave <= _MAX_INTEGER), e8, 0).astype(np.uint8)


def softmax_den(e8: IntArray) -> Int64:
    """``den = sum e8`` of each row, at most 255 * 4096 (20 bits)."""
    out: Int64 = i64(e8).sum(axis=-1)
    return out


def reciprocal(den: Ints) -> tuple[Int64, Int64]:
    """Reciprocal of a row's denominator.

    ``n = bitlen(den)``, ``R = floor(2^(n+15) / den)``, 2^15 < R <= 2^16; den = 0 gives n = R = 0.

    Parameters
    ----------
    den : integers, below 2^20

    Returns
    -------
    n, R : ndarray of int64
    """
    value = i64(den)
    n = bit_length(value)
    quotient = (np.int64(1) << (n + 15)) // np.maximum(value, 1)
    return n, np.where(value == 0, np.int64(0), quotient)


def context(
    o: IntArray, n: Ints, recip: Ints, *, v16: bool = False, fmt: Fmt = Fmt.S16
) -> IntArray:
    """The context, after the division.

    ``ctx = SAT16(RSH(o * R, n + 8))``, Q7 of v's unit; with 16-bit v ``RSH(o * R, n + 15)``, Q0.

    Parameters
    ----------
    o : [..., rows, cols]
        ``sum e8 * v``; s32, or combined to 36 bits with 16-bit v.
    n, recip : [..., rows]
        From `reciprocal`.
    v16 : bool
        v is 16 bits wide.
    fmt : Fmt
        S16, or SYM16 where the context is sent 16 bits wide.

    Returns
    -------
    ndarray of int16, [..., rows, cols]
    """
    shift = i64(n)[..., None] + (15 if v16 else 8)
    return saturate(rsh(i64(o) * i64(recip)[..., None], shift), fmt)
