"""Engines: what computes an encoder's integers, from the embedding's sum to the last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilewright.sim.golden.products import K_MAX
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.reference import enter, run_layer

I16 = npt.NDArray[np.int16]


class Engine(Protocol):
    """Runs the embedding's LayerNorm and every layer of one quantized model."""

    @property
    def limit(self) -> int | None:
        """Longest sequence, in tokens; None for no limit of its own."""

    def encode(self, batch: Sequence[I16], lengths: Sequence[int]) -> list[I16]:
        """Hidden states of a batch of sequences of any lengths.

        Parameters
        ----------
        batch : sequence of s16 [S, hidden]
            What `look_up` of the model's embedding gives, each S for itself.
        lengths : sequence of int
            Valid tokens of each, the first ones: 1 to S.

        Returns
        -------
        list of s16 [S, hidden]
            In the last layer's output format. Rows beyond the length mean nothing. The valid rows
            depend on nothing but the sequence itself: not on its padding, not on its neighbours.
        """


class ReferenceEngine:
    """The golden functions in NumPy, one sequence after the other.

    Parameters
    ----------
    quantized : QModel
    """

    def __init__(self, quantized: QModel) -> None:
        self._quantized = quantized

    @property
    def limit(self) -> int | None:
        """Keys a row of scores may have."""
        return K_MAX

    def encode(self, batch: Sequence[I16], lengths: Sequence[int]) -> list[I16]:
        """See `Engine.encode`."""
        out = []
        for z, length in zip(batch, lengths, strict=True):
            x = enter(self._quantized.embedding, z)
            for layer in self._quantized.layers:
                x = run_layer(layer, x, length)
            out.append(x)
        return out
