"""Balance of q and k: what one is divided by and the other multiplied by, channel by channel.

Only products of a channel of q with the same channel of k are ever used, so a factor may move
between the two. It matters to the integers: q and k have one scale each for the whole tensor, and a
channel that is large in q and small in k takes resolution from all others in q, and has none in k.
"""

from __future__ import annotations

import numpy as np

from tilewright.sw.quantize.formats import F64, I32

_UNBALANCED = 2.0
"""Channels whose ratio of q to k is more than 2^2 from the median are balanced. Others keep their
bits: what they could gain is not measurable."""
_SILENT = 2.0**-20
"""A channel that reaches less of its tensor's largest value counts as reaching this much."""


def balancing_steps(q: F64, k: F64) -> I32:
    """Exponents e [N] for which ``q / 2^e`` and ``k * 2^e`` are in about one ratio in all channels.

    Powers of two, since they change no bit of a significand: scores in fp32 stay the same.

    Parameters
    ----------
    q, k : [N]
        Largest magnitude of each channel.
    """
    if not (q.any() and k.any()):
        return np.zeros(len(q), np.int32)
    ratio = np.log2(np.maximum(q, q.max() * _SILENT)) - np.log2(np.maximum(k, k.max() * _SILENT))
    ratio -= np.median(ratio)
    return np.where(np.abs(ratio) > _UNBALANCED, np.round(ratio / 2), 0).astype(np.int32)
