"""Interpolation tables: the one definition behind the RTL's ROMs and the golden functions.

Every table is read as ``y = T[i] + RSH((T[i + 1] - T[i]) * lo, lg)``, where ``lo`` is the low
``lg`` bits of the index, ``i`` the bits above, and ``RSH`` rounds half up. A table of n segments
therefore holds n + 1 values, the end point included.

Source: piecewise linear interpolation between exact samples; the formats were chosen by
measurement (``docs/numerics.md``). No entry but one lies within 1e-4 of a rounding tie, and that
one (``EXP2[64]`` = 32767.5) is exact in binary, so every machine's libm gives the same integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.int64]

EXP2_SEGMENTS = 64
"""Segments of the exp2 table over one octave."""
EXP2_LG = 4
"""Interpolated bits of the exp2 table; the fraction of u is Q10, so i = f >> 4."""
EXP2_FRACTION_BITS = 10
"""Fraction bits of the softmax exponent u."""

RSQRT_FIRST = 64
"""First index i of the reciprocal square root: p in [2^16, 2^18), i = p >> 10."""
RSQRT_LAST = 256
"""Last index of the reciprocal square root, end point."""
RSQRT_LG = 10
"""Interpolated bits of the reciprocal square root."""

ACTIVATION_Q = 10
"""Fraction bits of the activations' input and output."""
ACTIVATION_LG = 7
"""Interpolated bits of the activation tables: 8 segments a unit, 128 steps a segment."""

ROW_MANTISSAS = (4, 5, 6, 7)
"""Mantissas m of a row scale m / 4 * 2^-e."""
ROW_EXPONENT_MAX = 9
"""Largest exponent e of a row scale."""


def _frozen(values: list[int]) -> Table:
    table = np.array(values, dtype=np.int64)
    table.setflags(write=False)
    return table


def _round(x: float) -> int:
    """Round half up, as the contract's tables are rounded."""
    return math.floor(x + 0.5)


@dataclass(frozen=True, kw_only=True)
class ActivationTable:
    """One activation function, Q10 in and out, sampled 8 times a unit.

    For lo <= x < hi: ``i = (x - lo) >> lg``, interpolated with the low ``lg`` bits. Outside:
    x < lo gives `below`; x >= hi gives `above`, or x itself where `above` is None.

    Attributes
    ----------
    name : str
        Name of the function.
    lo, hi : int
        The interpolated range [lo, hi), Q10.
    segments : int
        Number of segments; ``hi - lo == segments << lg``.
    lg : int
        Interpolated bits.
    values : ndarray of int64, (segments + 1)
        ``T[j] = floor(1024 * f(lo / 1024 + j / 8) + 1/2)``, read-only.
    below : int
        Output for x < lo, Q10.
    above : int or None
        Output for x >= hi, Q10; None means x.
    """

    name: str
    lo: int
    hi: int
    segments: int
    lg: int
    values: Table
    below: int
    above: int | None


def _erf_gelu(x: float) -> float:
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def _silu(x: float) -> float:
    return x / (1.0 + math.exp(-x))


def _activation(
    name: str,
    function: Callable[[float], float],
    bound: int,
    below: int,
    above: int | None,
) -> ActivationTable:
    one = 1 << ACTIVATION_Q
    segments = (2 * bound * one) >> ACTIVATION_LG
    return ActivationTable(
        name=name,
        lo=-bound * one,
        hi=bound * one,
        segments=segments,
        lg=ACTIVATION_LG,
        values=_frozen([_round(one * function(-bound + j / 8)) for j in range(segments + 1)]),
        below=below,
        above=above,
    )


EXP2: Table = _frozen([_round(65535 * 2.0 ** (-i / 64)) for i in range(EXP2_SEGMENTS + 1)])
"""``T[i] = round(65535 * 2^(-i / 64))``, i = 0 ... 64, (65), u16."""

RSQRT: Table = _frozen(
    [_round(65536 * math.sqrt(64 / i)) for i in range(RSQRT_FIRST, RSQRT_LAST + 1)]
)
"""``T[i] = round(2^16 * sqrt(64 / i))`` at position ``i - 64``, i = 64 ... 256, (193), 17 bits."""

GELU = _activation("gelu", _erf_gelu, 8, 0, None)
"""GELU in its erf form, 128 segments over [-8, 8); largest error .0018."""

SILU = _activation("silu", _silu, 16, 0, None)
"""SiLU, 256 segments over [-16, 16); largest error .0017."""

TANH = _activation("tanh", math.tanh, 8, -(1 << ACTIVATION_Q), 1 << ACTIVATION_Q)
"""tanh, 128 segments over [-8, 8), +-1 outside; largest error .0021."""

ACTIVATIONS: dict[str, ActivationTable] = {t.name: t for t in (GELU, SILU, TANH)}
"""The activation tables by name."""

INVERSE_MANTISSA: dict[int, int] = {m: _round(4 / m * 2**15) for m in ROW_MANTISSAS}
"""``F[m] = round(4 / m * 2^15)``, m = 4 ... 7: takes a row scale's mantissa out again, u16."""
