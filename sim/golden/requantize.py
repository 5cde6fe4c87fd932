"""Requantization: from the accumulator to s8 or s16, with bias and residual, rounded once.

``t`` carries 8 fraction bits of the output's unit, so that the bias and the residual are added
before the only rounding to the output (adding them after it cost .0015 of cosine).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.hw.tables import INVERSE_MANTISSA
from tilewright.sim.golden.primitives import Fmt, Int64, IntArray, Ints, i64, rsh, saturate

FRACTION_BITS = 8
"""Fraction bits t keeps beyond the output's unit."""

_F = np.zeros(8, dtype=np.int64)
_F[list(INVERSE_MANTISSA)] = list(INVERSE_MANTISSA.values())


def _check_mantissa(m: npt.NDArray[np.int64]) -> None:
    if m.size and (int(m.min()) < 4 or int(m.max()) > 7):
        raise ValueError(f"mantissa {int(m.min())} to {int(m.max())}: must be 4 to 7")


def requant_row(acc: IntArray, m: Ints, e: Ints, mult: Ints, sh: Ints) -> Int64:
    """Requantize where the operand had a row scale.

    ``a = RSH(acc * F[m], 7)``, ``t = RSH(a * M[c], sh[c] - e)``; so
    ``t = 256 * acc * 4 / m * 2^e * M / 2^sh``.

    Parameters
    ----------
    acc : [..., rows, cols], s32 (28 bits for K <= 4096)
    m, e : [..., rows]
        Row scale of the operand.
    mult : [cols] or broadcastable, u16 in [2^15, 2^16)
        Multiplier M of the channel.
    sh : [cols] or broadcastable
        Shift of the channel, 9 ... 61.

    Returns
    -------
    ndarray of int64, [..., rows, cols]
        t in units of 1/256 of the output, up to 52 bits. Hardware may saturate it to s32 (since
        |B| < 2^29, `finish` gives the same).

    Raises
    ------
    ValueError
        If a shift ``sh - e`` is negative or above 61, or m is not 4 ... 7.
    """
    mantissa, exponent = i64(m)[..., None], i64(e)[..., None]
    _check_mantissa(mantissa)
    a = rsh(i64(acc) * _F[mantissa], 7)
    return rsh(a * i64(mult), i64(sh) - exponent)


def requant_static(acc: IntArray, mult: Ints, sh: Ints) -> Int64:
    """Requantize where the operand had a static scale.

    ``t = RSH(acc * M[c], sh[c] - 8)``; so ``t = 256 * acc * M / 2^sh``.

    Parameters
    ----------
    acc : [..., rows, cols], up to 44 bits
    mult, sh : [cols] or broadcastable
        u16 multiplier; shift 8 ... 61.

    Returns
    -------
    ndarray of int64
        t, up to 60 bits.
    """
    return rsh(i64(acc) * i64(mult), i64(sh) - FRACTION_BITS)


def residual_term(r: IntArray, factor: Ints, shift: Ints) -> Int64:
    """``RSH(r * R[c], sR)``: the residual in units of 1/256 of the output.

    Parameters
    ----------
    r : [..., rows, cols], s16
    factor : [cols], u16
        R[c]; undoes the channel's smoothing too.
    shift : integer
        sR >= 1, one per tensor.
    """
    return rsh(i64(r) * i64(factor), shift)


def finish(t: IntArray, bias: Ints, fmt: Fmt, rterm: Ints = 0) -> IntArray:
    """Add bias and residual, round once, saturate.

    ``y = SAT(RSH(t + B[c] + rterm, 8))``.

    Parameters
    ----------
    t : [..., rows, cols]
    bias : [cols]
        B in units of 1/256 of the output, |B| < 2^29.
    fmt : Fmt
        Output format.
    rterm : [..., rows, cols], optional
        From `residual_term`; the output is then s16.

    Returns
    -------
    ndarray of int8 or int16
    """
    return saturate(rsh(i64(t) + i64(bias) + i64(rterm), FRACTION_BITS), fmt)
