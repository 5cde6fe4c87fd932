"""LayerNorm and RMSNorm: one statistics pass, one row value, one output pass; no division.

RMSNorm is LayerNorm with ``S1 = 0``: pass 0 wherever S1 is asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.hw.tables import RSQRT, RSQRT_FIRST, RSQRT_LG
from tilewright.sim.golden.primitives import (
    Fmt,
    Int64,
    IntArray,
    Ints,
    floor_log2,
    i64,
    interpolate,
    rsh,
    saturate,
)

N_MAX = 4096
"""Widest row: V then takes 55 bits."""


def xhat_fraction_bits(n: int) -> int:
    """Q of xhat: 10 for N <= 1024, 9 up to 4096.

    |xhat| is at most sqrt(N - 1), which must fit s16.

    Raises
    ------
    ValueError
        If N lies outside 1 ... 4096.
    """
    if not 1 <= n <= N_MAX:
        raise ValueError(f"N = {n}: must be 1 to {N_MAX}")
    return 10 if n <= 1024 else 9


def row_sums(z: IntArray) -> tuple[Int64, Int64]:
    """``S1 = sum z``, ``S2 = sum z^2`` of each row.

    Parameters
    ----------
    z : [..., rows, N], s16

    Returns
    -------
    S1, S2 : ndarray of int64, [..., rows]
        28 and 42 bits for N = 4096.
    """
    value = i64(z)
    return value.sum(axis=-1), np.einsum("...i,...i->...", value, value)


def row_variance(s1: Ints, s2: Ints, n: int, eps_q: Ints) -> Int64:
    """``V = max(N * S2 - S1^2 + eps_q, 1)``, that is N^2 times the variance, in z's unit squared.

    Parameters
    ----------
    s1, s2 : [..., rows]
    n : int
        Row width N.
    eps_q : integer
        ``round(eps * N^2 / S_z^2)``, up to 40 bits.
    """
    total, squares = i64(s1), i64(s2)
    return np.maximum(n * squares - total * total + i64(eps_q), 1)


def rsqrt_variance(v: Ints) -> tuple[Int64, Int64]:
    """Reciprocal square root of V.

    ``k = floor(log2 V) >> 1``; ``p = V * 2^(16 - 2k)`` truncated, in [2^16, 2^18); ``i = p >> 10``,
    lg = 10; r interpolated from ``T[i] = round(2^16 * sqrt(64 / i))``. So 1 / sqrt(V) is
    ``r * 2^(-16 - k)``.

    Parameters
    ----------
    v : integers >= 1, below 2^62

    Returns
    -------
    r, k : ndarray of int64
        r in [2^15, 2^16], 17 bits.
    """
    value = i64(v)
    if value.size and int(value.min()) < 1:
        raise ValueError(f"V = {int(value.min())}: must be at least 1")
    k = floor_log2(value) >> 1
    left = 16 - 2 * k
    p = (value << np.maximum(left, 0)) >> np.maximum(-left, 0)
    i = (p >> RSQRT_LG) - RSQRT_FIRST
    return interpolate(RSQRT, i, p & ((1 << RSQRT_LG) - 1), RSQRT_LG), k


def rsqrt_row(s1: Ints, s2: Ints, n: int, eps_q: Ints) -> tuple[Int64, Int64]:
    """A row's (r, k) from its sums: `row_variance`, then `rsqrt_variance`."""
    return rsqrt_variance(row_variance(s1, s2, n, eps_q))


def normalize_rows(
    z: IntArray, s1: Ints, r: Ints, k: Ints, q: int | None = None
) -> npt.NDArray[np.int16]:
    """``d = N * z - S1``, ``xhat = SAT16(RSH(d * r, 16 + k - Q))``.

    Parameters
    ----------
    z : [..., rows, N], s16
    s1, r, k : [..., rows]
        Row sum (0 for RMSNorm) and `rsqrt_row`.
    q : int, optional
        Fraction bits of xhat; `xhat_fraction_bits` of N where not given.

    Returns
    -------
    ndarray of int16, [..., rows, N], Q
    """
    n = z.shape[-1]
    fraction = xhat_fraction_bits(n) if q is None else q
    d = n * i64(z) - np.expand_dims(i64(s1), -1)
    xhat = rsh(d * np.expand_dims(i64(r), -1), 16 + np.expand_dims(i64(k), -1) - fraction)
    return saturate(xhat, Fmt.S16).astype(np.int16, copy=False)


def scale_shift(
    xhat: IntArray, g16: IntArray, b32: IntArray, sg: Ints, fmt: Fmt = Fmt.S16
) -> IntArray:
    """``y = SAT16(RSH(xhat * g16[c] + b32[c], sg))``.

    Parameters
    ----------
    xhat : [..., rows, N], s16
    g16 : [N], s16
    b32 : [N], s32
    sg : integer
        One shift for both.
    fmt : Fmt
        S16, or SYM16 where the operand is sent 16 bits wide.

    Returns
    -------
    ndarray of int16, [..., rows, N]
    """
    return saturate(rsh(i64(xhat) * i64(g16) + i64(b32), sg), fmt)


def layernorm_apply(
    z: IntArray,
    s1: Ints,
    r: Ints,
    k: Ints,
    g16: IntArray,
    b32: IntArray,
    sg: Ints,
    q: int | None = None,
    fmt: Fmt = Fmt.S16,
) -> IntArray:
    """The output pass: `normalize_rows`, then `scale_shift`."""
    return scale_shift(normalize_rows(z, s1, r, k, q), g16, b32, sg, fmt)


def layernorm(
    z: IntArray,
    g16: IntArray,
    b32: IntArray,
    sg: Ints,
    eps_q: Ints,
    *,
    rms: bool = False,
    fmt: Fmt = Fmt.S16,
) -> IntArray:
    """Both passes of LayerNorm (or RMSNorm) over the rows of z; shapes as in `layernorm_apply`."""
    s1, s2 = row_sums(z)
    if rms:
        s1 = np.zeros_like(s1)
    r, k = rsqrt_row(s1, s2, z.shape[-1], eps_q)
    return layernorm_apply(z, s1, r, k, g16, b32, sg, None, fmt)
