"""Matrix products of the array: bytes times bytes, accumulated in s32 regions.

The products run through floating-point BLAS, which is exact as long as no partial sum, in
whatever order, leaves the significand: below 2^24 in float32. Longer K are cut into pieces that
keep to this bound and are added as integers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.sim.golden.primitives import Int64, IntArray, balanced_bytes, i64

Int32 = npt.NDArray[np.int32]

K_MAX = 4096
"""Largest K for which u8 x s8 sums fit the 28 bits the requantizer is built for."""


def _magnitude(x: IntArray, name: str, lo: int, hi: int) -> int:
    """Largest magnitude of x, after a check that it fits the port."""
    if not x.size:
        return 1
    least, most = int(x.min()), int(x.max())
    if least < lo or most > hi:
        raise ValueError(f"{name} {least} to {most}: must be {lo} to {hi}")
    return max(-least, most, 1)


def matmul(x: IntArray, w: IntArray) -> Int32:
    """``acc = x @ w``, exact, s32.

    Parameters
    ----------
    x : [..., rows, K]
        Activations, s8 or u8 (the port takes 9 bits signed: -256 ... 255).
    w : [..., K, cols]
        Weights, s8.

    Returns
    -------
    ndarray of int32, [..., rows, cols]

    Raises
    ------
    ValueError
        If a value does not fit its port, or K is above 4096.
    """
    xs, ws = np.asarray(x), np.asarray(w)
    k = xs.shape[-1]
    if k != ws.shape[-2]:
        raise ValueError(f"x has K = {k}, w has K = {ws.shape[-2]}")
    if k > K_MAX:
        raise ValueError(f"K = {k}: must be at most {K_MAX}")
    bound = _magnitude(xs, "activation", -256, 255) * _magnitude(ws, "weight", -128, 127)
    xf, wf = xs.astype(np.float32), ws.astype(np.float32)
    # A sum of `piece` products is at most 2^24, which float32 still holds exactly.
    piece = (1 << 24) // bound
    if k <= piece:
        whole: Int32 = np.matmul(xf, wf).astype(np.int32)
        return whole
    acc: Int32 | None = None
    for first in range(0, k, piece):
        last = min(first + piece, k)
        part = np.matmul(xf[..., first:last], wf[..., first:last, :]).astype(np.int32)
        acc = part if acc is None else acc + part
    if acc is None:
        raise ValueError("K = 0: must be at least 1")
    return acc


def matmul_16x8(x: IntArray, w: IntArray) -> tuple[Int32, Int32]:
    """16-bit activations as balanced bytes times s8 weights: the regions h and l.

    Parameters
    ----------
    x : [..., rows, K], in [-32768, 32639]
    w : [..., K, cols], s8

    Returns
    -------
    h, l : ndarray of int32, [..., rows, cols]
        ``x @ w = 256 h + l``, see `combine_16x8`.
    """
    xh, xl = balanced_bytes(x)
    return matmul(xh, w), matmul(xl, w)


def combine_16x8(h: IntArray, l: IntArray) -> Int64:
    """``acc = 256 h + l``, what the vector unit reads, up to 36 bits."""
    return 256 * i64(h) + i64(l)


def matmul_16x16(x: IntArray, w: IntArray) -> tuple[Int32, Int32, Int32]:
    """16-bit activations and weights as balanced bytes: the regions hh, hl + lh, ll.

    Parameters
    ----------
    x : [..., rows, K], in [-32768, 32639]
    w : [..., K, cols], in [-32768, 32639]

    Returns
    -------
    hh, mid, ll : ndarray of int32, [..., rows, cols]
        ``x @ w = 65536 hh + 256 mid + ll``, see `combine_16x16`.
    """
    xh, xl = balanced_bytes(x)
    wh, wl = balanced_bytes(w)
    return matmul(xh, wh), matmul(xh, wl) + matmul(xl, wh), matmul(xl, wl)


def combine_16x16(hh: IntArray, mid: IntArray, ll: IntArray) -> Int64:
    """``acc = 65536 hh + 256 mid + ll``, what the vector unit reads, up to 44 bits."""
    return 65536 * i64(hh) + 256 * i64(mid) + i64(ll)
