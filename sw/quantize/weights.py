"""Weights to integers of 4, 8 and 16 bits, each output channel with its own scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import GROUP_ROWS, SYM16_MAX
from tilewright.sim.golden import expand_w4
from tilewright.sw.quantize.encode import round_half_up
from tilewright.sw.quantize.formats import F64, I8, I16, U8, Groups

G_MAX = 15
"""Largest factor of a group of 4-bit weights."""
W4_MIN, W4_MAX = -8, 7
"""Range of 4-bit weights."""
LIMITS = {8: 127, 16: SYM16_MAX}
"""Largest magnitude of 8 and 16-bit weights."""
_SHRINK = np.linspace(1.0, 0.6, 9)
"""Scales tried for a channel of 4-bit weights, relative to the one that clips nothing."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """``w[k, n] ~ weight[k, n] * scale[n]``.

    Attributes
    ----------
    weight : ndarray of int8 or int16, [K, N]
    scale : ndarray of float64, [N]
    groups : Groups or None
        The 4-bit form.
    """

    weight: I8 | I16
    scale: F64
    groups: Groups | None = None

    def without(self, columns: npt.NDArray[np.bool_]) -> Weights:
        """The same with zeros in some columns [N]."""
        kept = (~columns).astype(np.int8)
        groups = self.groups and Groups(w4=self.groups.w4 * kept, g=self.groups.g)
        return replace(self, weight=self.weight * kept, groups=groups)


class Grid(Protocol):
    """The values weights may take, one row of K at a time, in any order."""

    def enter(self, k: int, w: F64) -> None:
        """Row k is next; w [K, N] are the weights as they stand now."""

    def round(self, k: int, row: F64) -> F64:
        """The nearest values to row k, [N] -> [N]; they are kept as the result."""

    def result(self) -> Weights:
        """What all rows were rounded to."""


def column_scale(w: F64, limit: int) -> F64:
    """Scale of each column for magnitudes up to `limit`: [K, N] -> [N].

    A column that is (nearly) zero takes a scale a millionth of the largest, so that its multiplier
    stays within range; its weights are then zero.
    """
    top = np.abs(w).max(axis=0)
    scale: F64 = np.maximum(top, max(float(top.max()) * 1e-6, 1e-30)) / limit
    return scale


class ColumnGrid:
    """8 or 16-bit weights: multiples of the column's scale within +-127 or +-32639.

    Parameters
    ----------
    w : [K, N]
    bits : int
        8 or 16.
    """

    def __init__(self, w: F64, bits: int) -> None:
        self._limit = LIMITS[bits]
        self._scale = column_scale(w, self._limit)
        self._weight: I8 | I16
        if bits == 8:
            self._weight = np.zeros(w.shape, np.int8)
        else:
            self._weight = np.zeros(w.shape, np.int16)

    def enter(self, k: int, w: F64) -> None:
        pass

    def round(self, k: int, row: F64) -> F64:
        q = np.clip(round_half_up(row / self._scale), -self._limit, self._limit)
        self._weight[k] = q
        return q * self._scale

    def result(self) -> Weights:
        return Weights(weight=self._weight, scale=self._scale)


class GroupGrid:
    """4-bit weights: w4 * g * scale[n], g of each group of 32 rows chosen from 0 ... 15.

    A group's g is the one of the least squared error on the weights as they stand when its first
    row is entered (`static`: as they stood in the beginning, so that rows may come in any order).

    Parameters
    ----------
    w : [K, N]
    weight : [K], optional
        How much a row's error counts: the mean square of its operand.
    static : bool
        Choose every g in the beginning.
    """

    def __init__(self, w: F64, weight: F64 | None = None, *, static: bool = False) -> None:
        k, n = w.shape
        self._importance = np.ones(k) if weight is None else weight
        self._w4: I8 = np.zeros((k, n), np.int8)
        self._g: U8 = np.zeros((-(-k // GROUP_ROWS), n), np.uint8)
        self._scale = self._best_scale(w)
        self._static = static
        if static:
            for group in range(len(self._g)):
                self._choose(group, w)

    def _best_scale(self, w: F64) -> F64:
        """Of a few scales the one with the least error, for each channel."""
        whole = np.maximum(w / W4_MAX, w / W4_MIN).max(axis=0)
        whole = np.maximum(whole, max(float(whole.max()) * 1e-6, 1e-30)) / G_MAX
        errors = [
            sum(self._errors(group, w, whole * s).min(axis=0) for group in range(len(self._g)))
            for s in _SHRINK
        ]
        best: F64 = whole * _SHRINK[np.argmin(errors, axis=0)]
        return best

    def _errors(self, group: int, w: F64, scale: F64) -> F64:
        """Squared error of a group for every g, [16, N]."""
        span = slice(group * GROUP_ROWS, (group + 1) * GROUP_ROWS)
        part, importance = w[span], self._importance[span, None]
        if not importance.any():  # silent operands say nothing of the weights
            importance = np.ones_like(importance)
        out = [(importance * part**2).sum(axis=0)]
        for g in range(1, G_MAX + 1):
            q = np.clip(np.floor(part / (scale * g) + 0.5), W4_MIN, W4_MAX)
            out.append((importance * (part - q * (scale * g)) ** 2).sum(axis=0))
        return np.array(out)

    def _choose(self, group: int, w: F64) -> None:
        self._g[group] = self._errors(group, w, self._scale).argmin(axis=0)

    def enter(self, k: int, w: F64) -> None:
        if not self._static and k % GROUP_ROWS == 0:
            self._choose(k // GROUP_ROWS, w)

    def round(self, k: int, row: F64) -> F64:
        step = self._scale * self._g[k // GROUP_ROWS]
        q = np.clip(round_half_up(row / np.where(step > 0, step, np.inf)), W4_MIN, W4_MAX)
        self._w4[k] = q
        return q * step

    def result(self) -> Weights:
        groups = Groups(w4=self._w4, g=self._g)
        return Weights(weight=expand(groups), scale=self._scale, groups=groups)


def expand(groups: Groups) -> I8:
    """The s8 weights of 4-bit ones, [K, N]; the last group may be short."""
    k = len(groups.w4)
    padded = np.pad(groups.w4, ((0, len(groups.g) * GROUP_ROWS - k), (0, 0)))
    return expand_w4(padded, groups.g, GROUP_ROWS)[:k]


def grid(w: F64, bits: int, importance: F64 | None = None, *, static: bool = False) -> Grid:
    """The grid of 4, 8 or 16-bit weights; see `GroupGrid` for the optional parameters."""
    return GroupGrid(w, importance, static=static) if bits == 4 else ColumnGrid(w, bits)


def nearest(w: F64, bits: int) -> Weights:
    """Round every weight [K, N] to the nearest value, half up."""
    values = grid(w, bits)
    for k, row in enumerate(w):
        values.enter(k, w)
        values.round(k, row)
    return values.result()
