"""Table activations (GELU, SiLU, tanh) and the smoothing factor behind them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.hw.tables import ACTIVATIONS
from tilewright.sim.golden.primitives import Fmt, IntArray, Ints, i64, interpolate, rsh, saturate


def activation(x: IntArray, name: str) -> npt.NDArray[np.int16]:
    """A table activation, s16 Q10 in and out.

    ``i = (x - lo) >> 7``, interpolated with the low 7 bits inside [lo, hi); outside by the
    table's rule (x above and 0 below; tanh +-1).

    Parameters
    ----------
    x : integers, any shape, s16 Q10
    name : str
        ``gelu`` (erf form), ``silu`` or ``tanh``.

    Returns
    -------
    ndarray of int16, Q10

    Raises
    ------
    ValueError
        If there is no table of that name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation table {name!r}: must be one of {', '.join(ACTIVATIONS)}")
    table = ACTIVATIONS[name]
    value = i64(x)
    index = np.clip(value, table.lo, table.hi - 1) - table.lo
    inside = interpolate(table.values, index >> table.lg, index & ((1 << table.lg) - 1), table.lg)
    above = value if table.above is None else np.int64(table.above)
    y = np.where(value >= table.hi, above, np.where(value < table.lo, table.below, inside))
    return y.astype(np.int16)


def smooth(y: IntArray, factor: Ints, shift: Ints, fmt: Fmt = Fmt.S16) -> IntArray:
    """Divide an activation's output by the smoothing: ``g = SAT16(RSH(y * G[c], sG))``.

    Parameters
    ----------
    y : [..., rows, cols], s16 Q10
    factor : [cols], u16
        G[c].
    shift : integer
        sG, one per tensor.
    fmt : Fmt
        S16, or SYM16 where the operand is sent 16 bits wide.

    Returns
    -------
    ndarray of int16
    """
    return saturate(rsh(i64(y) * i64(factor), shift), fmt)
