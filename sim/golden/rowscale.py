"""Row scales: one (m, e) per token, and the 8-bit operand they give.

The scale of a row is ``m / 4 * 2^-e`` with m in {4 ... 7}, e in 0 ... 9: the largest that keeps
the row's largest magnitude within 127 after rounding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.hw.tables import ROW_EXPONENT_MAX, ROW_MANTISSAS
from tilewright.sim.golden.primitives import Fmt, IntArray, Ints, i64, rsh, saturate

_M_DOWN = tuple(reversed(ROW_MANTISSAS))


def _limits() -> npt.NDArray[np.int64]:
    """Largest a for each pair, in the order of falling scale.

    ``RSH(a m, e + 2) <= 127`` is ``a m + 2^(e+1) < 128 * 2^(e+2)``, that is
    ``a <= (510 * 2^e - 1) // m``.
    """
    return np.array(
        [(510 * 2**e - 1) // m for e in range(ROW_EXPONENT_MAX + 1) for m in _M_DOWN],
        dtype=np.int64,
    )


ROW_SCALE_LIMITS = _limits()
"""Largest a per pair, 40 rising thresholds: pair j is m = 7 - j % 4, e = j // 4."""


def row_max(x: IntArray, axis: int = -1) -> npt.NDArray[np.uint16]:
    """Largest magnitude of each row of s16 values, u16 (32768 for a row that holds -32768)."""
    out: npt.NDArray[np.uint16] = np.abs(i64(x)).max(axis=axis).astype(np.uint16)
    return out


def row_scale(a: Ints) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Row scale from the largest magnitude.

    The pair with the largest ``m * 2^-e`` for which ``RSH(a m, e + 2) <= 127``; a = 0 gives (7, 0).

    Parameters
    ----------
    a : integers, any shape
        Largest magnitude of the row, 0 ... 32768.

    Returns
    -------
    m, e : ndarray of uint8
        Mantissa 4 ... 7 and exponent 0 ... 9, shaped as `a`.

    Raises
    ------
    ValueError
        If a magnitude lies outside 0 ... 32768.
    """
    value = i64(a)
    if value.size and (int(value.min()) < 0 or int(value.max()) > 32768):
        raise ValueError(f"magnitude {int(value.min())} to {int(value.max())}: must be 0 to 32768")
    pair = np.searchsorted(ROW_SCALE_LIMITS, value, side="left")
    return (7 - pair % 4).astype(np.uint8), (pair // 4).astype(np.uint8)


def feed8(x16: IntArray, m: Ints, e: Ints) -> npt.NDArray[np.int8]:
    """The 8-bit operand: ``x8 = SAT8(RSH(x16 * m, e + 2))``.

    Parameters
    ----------
    x16 : [..., rows, K], s16
    m, e : [..., rows]
        Row scale of each row.

    Returns
    -------
    ndarray of int8, [..., rows, K]
    """
    x8 = rsh(i64(x16) * i64(m)[..., None], i64(e)[..., None] + 2)
    return saturate(x8, Fmt.S8).astype(np.int8, copy=False)
