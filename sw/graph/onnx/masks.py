"""Attention masks: what a mask means, told by its value for a sample, however it was computed."""

from __future__ import annotations

import numpy as np

from tilewright.sw.graph.onnx.values import Array, Known

LARGE = 1000.0
"""What is at least subtracted from a score that counts for nothing."""


def sample_mask(batch: int, sequence: int) -> Array:
    """Ones where tokens are valid: row b loses its last b + 1 (or all but the first), [B, S]."""
    lengths = np.maximum(sequence - 1 - np.arange(batch), 1)
    return (np.arange(sequence) < lengths[:, None]).astype(np.int64)


def _valid(shape: tuple[int, ...]) -> Array:
    """Sample of valid columns of scores [B, heads, S, S]."""
    out: Array = np.broadcast_to(sample_mask(shape[0], shape[-1])[:, None, None] == 1, shape)
    return out


def added(mask: Known, shape: tuple[int, ...], seen: tuple[int, ...]) -> str | None:
    """The input whose mask is added to scores.

    Parameters
    ----------
    mask : Known
        What is added.
    shape : [B, heads, S, S]
    seen : tuple of int
        Shape of the scores in the ONNX graph.

    Returns
    -------
    str or None
        None where a constant masks nothing.

    Raises
    ------
    ValueError
        If it is no mask of valid tokens; the message completes "operator … ".
    """
    array = np.broadcast_to(mask.array, seen).reshape(shape).astype(np.float64)
    return _input(mask, array == 0, array <= -LARGE)


def chosen(mask: Known, shape: tuple[int, ...], seen: tuple[int, ...]) -> str | None:
    """The input whose mask is true where scores count; as `added`."""
    array = np.broadcast_to(mask.array, seen).reshape(shape).astype(np.bool_)
    return _input(mask, array, ~array)


def tokens(mask: Known, batch: int, sequence: int) -> str | None:
    """The input whose mask is given as valid tokens [B, S] or as their number [B]; as `added`."""
    array = mask.array
    if array.shape == (batch,):
        array = np.arange(sequence) < array[:, None]
    elif array.shape != (batch, sequence):
        raise ValueError(f"has a mask of shape {list(array.shape)}, which is not supported")
    on = array.astype(np.bool_)[:, None, None, :]
    return _input(mask, on, ~on)


def averaged(weights: Known) -> tuple[str | None, bool]:
    """What a sum of tokens, each times its weight, comes to.

    Parameters
    ----------
    weights : Known, [B, S]

    Returns
    -------
    mask : str or None
        The input that marks the tokens summed; None for all of them.
    mean : bool
        Whether their weights make the sum a mean.

    Raises
    ------
    ValueError
        If the tokens are not the valid ones, or their weights differ; as `added`.
    """
    array = weights.array.astype(np.float64)
    valid = array > 0
    wide = array[:, None, None]
    name = _input(weights, wide > 0, wide == 0)
    if not np.allclose(array, valid * array.max(axis=1, keepdims=True)):
        raise ValueError("weighs tokens differently, which is not supported")
    share = array * valid.sum(axis=1, keepdims=True)
    return name, np.allclose(share[valid], 1, rtol=1e-3)


def _input(mask: Known, on: Array, off: Array) -> str | None:
    if mask.constant:
        if on.all():
            return None
        raise ValueError("has a constant mask: only valid tokens can be masked")
    if len(mask.sources) != 1:
        raise ValueError(f"has a mask made from {' and '.join(sorted(mask.sources))}")
    valid = _valid(on.shape)
    if not (on[valid].all() and off[~valid].all()):
        raise ValueError("has a mask that is not that of valid tokens (a causal one?)")
    return next(iter(mask.sources))
