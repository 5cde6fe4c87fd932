"""Real factors to integers: multipliers with shifts, scales, weights, LayerNorm's constants."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tilewright.sw.models.errors import UnfitError
from tilewright.sw.quantize.formats import F64, I32, U8, U16, EdgeFormat, Factor, QLayerNorm

SHIFT_MAX = 61
FACTOR_MIN = 2.0 ** (15 - SHIFT_MAX)
"""Least factor of `multiplier`. What is multiplied by less is below half a step of any result: an
accumulator has 44 bits."""
BIAS_LIMIT = (1 << 29) - 1
_LN_SHIFT_MAX = 30


def round_half_up(x: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """``floor(x + 1/2)``."""
    return np.floor(np.asarray(x, dtype=np.float64) + 0.5).astype(np.int64)


def multiplier(factor: F64, least_shift: int, name: str) -> tuple[U16, U8]:
    """``factor = M * 2^-sh`` with M in [2^15, 2^16), per channel.

    Parameters
    ----------
    factor : [N], positive
    least_shift : int
        9 where the operand has a row scale, 8 where not, 0 for softmax.
    name : str
        For the error.

    Raises
    ------
    UnfitError
        If a shift leaves `least_shift` ... 61.
    """
    if not np.isfinite(factor).all() or (factor <= 0).any():
        raise UnfitError(f"{name}: scale factors must be positive and finite")
    exponent = np.frexp(factor)[1].astype(np.int64)
    shift = 16 - exponent
    mult = round_half_up(np.ldexp(factor, shift.astype(np.int32)))
    # 65535.5 and above round up to 2^16, which is 2^15 with one shift less.
    over = mult == 1 << 16
    mult, shift = np.where(over, 1 << 15, mult), shift - over
    if int(shift.min()) < least_shift:
        raise UnfitError(
            f"{name}: weights too large for their result: their step is "
            f"{float(factor.max()):.3g} of its step: must be below {2 ** (16 - least_shift)}"
        )
    if int(shift.max()) > SHIFT_MAX:
        raise UnfitError(
            f"{name}: factor {float(factor.min()):.3g}: must be at least {FACTOR_MIN:.3g}"
        )
    return mult.astype(np.uint16), shift.astype(np.uint8)


def shared_factor(factor: F64, least_shift: int, name: str) -> Factor:
    """``factor[c] = mult[c] * 2^-shift``: one shift, the largest for which all fit u16.

    Raises
    ------
    UnfitError
        If a factor does not fit even with `least_shift` (1 for the residual, 0 for smoothing).
    """
    top = float(factor.max())
    if not math.isfinite(top) or float(factor.min()) < 0:
        raise UnfitError(f"{name}: factors must be finite and not negative")
    # frexp: top < 2^exponent, so 16 - exponent is right but where rounding reaches 2^16.
    shift = min(16 - math.frexp(top)[1], SHIFT_MAX)
    if top and int(round_half_up(np.array(math.ldexp(top, shift)))) > 65535:
        shift -= 1
    if shift < least_shift:
        raise UnfitError(f"{name}: factor {top:g}: must be at most {65535 / 2**least_shift:g}")
    return Factor(mult=round_half_up(np.ldexp(factor, shift)).astype(np.uint16), shift=shift)


def bias(real: F64, unit: F64, name: str) -> I32:
    """``B = round(256 * real / unit)``, |B| < 2^29.

    Raises
    ------
    UnfitError
        If it does not fit.
    """
    value = 256 * real / unit
    worst = int(np.abs(value).argmax())
    if abs(value[worst]) > BIAS_LIMIT:
        limit = BIAS_LIMIT / 256 * unit[worst]
        raise UnfitError(f"{name}: bias {real[worst]:.4g}: must be within ±{limit:.4g}")
    return round_half_up(value).astype(np.int32)


def power_of_two(amax: float, limit: int = 32767) -> float:
    """Smallest power of two S for which ``amax / S <= limit``; 1 for amax = 0."""
    if amax <= 0:
        return 1.0
    fraction, exponent = math.frexp(amax / limit)
    return math.ldexp(1.0, exponent - (fraction == 0.5))


def softmax_factor(factor: float) -> tuple[int, int]:
    """Ms in [2^15, 2^16) and shs of one factor, both plain integers.

    A factor beyond their range gives what the end of the range does: with the largest, a score one
    below the maximum weighs nothing; with the least, all scores weigh the same.
    """
    mult, shift = multiplier(np.array([min(max(factor, FACTOR_MIN), 65535.0)]), 0, "softmax")
    return int(mult[0]), int(shift[0])


def smoothing(amax: F64, wmax: F64, alpha: float) -> F64:
    """SmoothQuant's factor ``amax^alpha / wmax^(1 - alpha)``, geometric mean 1.

    Parameters
    ----------
    amax : [K]
        Largest magnitude of each channel of the operand.
    wmax : [K]
        Largest magnitude of each row of the weights it meets.
    alpha : float
        How much of the difficulty moves into the weights.

    Source: Xiao et al., SmoothQuant, 2022.
    """
    # A channel that is silent, or not used, must not send the factor to 0 or infinity.
    a = np.maximum(amax, max(float(amax.max()) * 1e-5, 1e-30))
    w = np.maximum(wmax, max(float(wmax.max()) * 1e-5, 1e-30))
    return relative_to_mean(a**alpha / w ** (1 - alpha))[0]


def norm_scale(amax: float, eps: float, width: int) -> float:
    """Scale of LayerNorm's input: of `power_of_two`, or the least for which eps_q fits 40 bits.

    Rows that are so small come out as beta, whatever their scale.

    Parameters
    ----------
    amax : float
        Largest magnitude, with headroom.
    eps : float
        LayerNorm's epsilon.
    width : int
        Length N of a row.
    """
    return max(power_of_two(amax), power_of_two(math.sqrt(eps) * width, (1 << 20) - 1))


def relative_to_mean(x: F64) -> tuple[F64, float]:
    """Values over their geometric mean, and that mean."""
    mean = float(np.exp(np.log(x).mean()))
    return x / mean, mean


def layer_norm(
    gamma: F64,
    beta: F64,
    unit: F64,
    *,
    eps: float,
    z_scale: float,
    fraction: int,
    out: EdgeFormat = EdgeFormat.S16,
    name: str,
) -> QLayerNorm:
    """LayerNorm's integers.

    ``g16 = round(gamma / unit * 2^(sg - Q))``, ``b32 = round(beta / unit * 2^sg)`` with the largest
    sg for which g16 fits s16 and b32 s32; ``eps_q = round(eps * N^2 / S_z^2)``.

    Parameters
    ----------
    gamma, beta : [N]
    unit : [N]
        Real value of one step of the output: tensor scale times smoothing.
    eps, z_scale : float
        Epsilon, and the scale of the input.
    fraction : int
        Q of xhat.
    out : EdgeFormat
        Format of the output.

    Raises
    ------
    UnfitError
        If no shift >= 0 fits, or eps_q needs more than 40 bits.
    """
    g, b = gamma / unit * 2.0**-fraction, beta / unit
    for shift in range(_LN_SHIFT_MAX, -1, -1):
        g16, b32 = np.floor(g * 2.0**shift + 0.5), np.floor(b * 2.0**shift + 0.5)
        if np.abs(g16).max() <= 32767 and np.abs(b32).max() <= 2**31 - 1:
            break
    else:
        raise UnfitError(f"{name}: gamma {np.abs(gamma).max():g} does not fit 16 bits")
    eps_q = math.floor(eps * len(gamma) ** 2 / z_scale**2 + 0.5)
    if eps_q >= 1 << 40:
        raise UnfitError(f"{name}: eps_q = {eps_q} needs more than 40 bits")
    return QLayerNorm(
        gamma=g16.astype(np.int16),
        beta=b32.astype(np.int32),
        shift=shift,
        fraction=fraction,
        eps=eps_q,
        out=out,
    )
