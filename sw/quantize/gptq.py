"""GPTQ: weights rounded one input at a time, the error of each made good by those that follow.

Source: Frantar, Ashkboos, Hoefler and Alistarh, GPTQ, 2022; the order of rows by their operand's
power is that paper's ``act-order``.
"""

from __future__ import annotations

import numpy as np

from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize.formats import F64
from tilewright.sw.quantize.weights import Grid, Weights, grid

_BLOCK = 128


def gptq(w: F64, moment: F64, bits: int, *, damping: float = 0.01, ordered: bool = True) -> Weights:
    """Weights with a small error of the product ``x @ w`` over the operands of the calibration.

    Rows of K are rounded one after the other; what a rounding changes in the product is taken up,
    as far as it can be, by the rows not yet rounded.

    Parameters
    ----------
    w : [K, N]
    moment : [K, K]
        Mean of ``x^T x`` over the operands.
    bits : int
        4, 8 or 16.
    damping : float
        Added to the diagonal, relative to its mean.
    ordered : bool
        Rows with the strongest operand first (groups of 4-bit weights are chosen beforehand then).

    Raises
    ------
    ModelError
        If the moment has another shape or is not positive definite even when damped.
    """
    k = len(w)
    if moment.shape != (k, k):
        raise ModelError(f"moment of shape {moment.shape}, weights have K = {k}")
    power = moment.diagonal()
    order = np.argsort(-power, kind="stable") if ordered else np.arange(k)
    upper = _inverse_root(moment[np.ix_(order, order)], damping)
    values: Grid = grid(w, bits, power, static=ordered)
    left = w.copy()
    for first in range(0, k, _BLOCK):
        block = order[first : first + _BLOCK]
        errors = np.zeros((len(block), w.shape[1]))
        for i, row in enumerate(block):
            at = first + i
            # A group that starts here is chosen from its rows as they stand now.
            values.enter(int(row), left)
            q = values.round(int(row), left[row])
            errors[i] = (left[row] - q) / upper[at, at]
            rest = block[i + 1 :]
            left[rest] -= np.outer(upper[at, at + 1 : first + len(block)], errors[i])
        behind = order[first + len(block) :]
        left[behind] -= upper[first : first + len(block), first + len(block) :].T @ errors
    return values.result()


def _inverse_root(moment: F64, damping: float) -> F64:
    """Upper Cholesky factor of the inverse of the damped moment."""
    damped = moment + np.eye(len(moment)) * max(damping * float(moment.diagonal().mean()), 1e-30)
    try:
        root: F64 = np.linalg.cholesky(np.linalg.inv(damped)).T
    except np.linalg.LinAlgError as error:
        raise ModelError(f"GPTQ: the operands' moment cannot be inverted: {error}") from error
    return root
