"""Calibration: the largest magnitudes of every edge of an encoder over real sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.models.bert import Bert, LayerStates
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.functions import F32
from tilewright.sw.models.text import draw
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import texts

F64 = npt.NDArray[np.float64]

CALIBRATION_SEED = texts.SEED
"""Seed the calibration texts were drawn with."""
CALIBRATION_PASSAGES = texts.CALIBRATION_PASSAGES
PASSAGE_WORDS = texts.PASSAGE_WORDS
_MOMENT_TOKENS = 1024

_EDGES = ("x", "q", "k", "v", "z1", "x1", "a", "z2", "y")
OPERANDS = ("x", "ctx", "x1", "a")
"""Edges that products with weights read."""


@dataclass(frozen=True, kw_only=True)
class LayerRange:
    """Largest magnitude of each channel, [width] each, over all calibrated tokens of one layer.

    The names are those of `tilewright.sw.models.bert.LayerStates`. `sample` are the states of the
    first sequence, which a quantized layer is tried on.
    """

    x: F64
    q: F64
    k: F64
    v: F64
    z1: F64
    x1: F64
    a: F64
    z2: F64
    y: F64
    moments: Mapping[str, F64] | None = None
    sample: LayerStates | None = None

    def moment(self, edge: str) -> F64 | None:
        """Mean of ``x^T x`` of one of `OPERANDS`, [K, K]; None where it was not recorded."""
        return None if self.moments is None else self.moments[edge]


def _amax(states: LayerStates) -> dict[str, F64]:
    return {
        edge: np.abs(value.reshape(-1, value.shape[-1])).max(axis=0).astype(np.float64)
        for edge in _EDGES
        for value in (getattr(states, edge),)
    }


def calibrate(
    model: Bert,
    sequences: Iterable[npt.NDArray[np.integer[Any]]],
    *,
    moments: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[LayerRange, ...]:
    """Run unpadded sequences of ids [S] and record the ranges of every layer.

    Parameters
    ----------
    model : Bert
    sequences : iterable of [S]
    moments : bool
        Record the operands' second moments too, which GPTQ needs.
    progress : callable, optional
        Told the sequences done.

    Raises
    ------
    ModelError
        If there is no sequence.
    """
    total: list[dict[str, F64]] = []
    samples: list[LayerStates] = []
    operands = [_Moments() for _ in model.layers]
    for done, ids in enumerate(sequences, start=1):
        states = model.forward(ids)
        found = [_amax(layer) for layer in states]
        if not total:
            total, samples = found, states
        for have, new in zip(total, found, strict=True):
            for edge in _EDGES:
                np.maximum(have[edge], new[edge], out=have[edge])
        if moments:
            for sums, layer in zip(operands, states, strict=True):
                sums.add(layer)
        if progress is not None:
            progress(done)
    if not total:
        raise ModelError("calibration needs at least one sentence")
    means = [sums.mean() if moments else None for sums in operands]
    return tuple(
        LayerRange(**ranges, moments=mean, sample=sample)
        for ranges, mean, sample in zip(total, means, samples, strict=True)
    )


class _Moments:
    """Sums ``x^T x`` of a layer's operands, many tokens at a time (BLAS wants them so)."""

    def __init__(self) -> None:
        self._sums: dict[str, F64] = {}
        self._waiting: list[LayerStates] = []
        self._tokens = 0

    def add(self, states: LayerStates) -> None:
        self._waiting.append(states)
        if sum(len(layer.x) for layer in self._waiting) >= _MOMENT_TOKENS:
            self._flush()

    def mean(self) -> dict[str, F64]:
        self._flush()
        return {edge: total / self._tokens for edge, total in self._sums.items()}

    def _flush(self) -> None:
        if not self._waiting:
            return
        for edge in OPERANDS:
            x = np.concatenate([getattr(layer, edge) for layer in self._waiting])
            self._sums[edge] = self._sums.get(edge, np.float64(0)) + _squares(x)
        self._tokens += sum(len(layer.x) for layer in self._waiting)
        self._waiting = []


def _squares(x: F32) -> F64:
    """``x^T x``, in fp32 where that is wide enough: it is twice as fast."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = x.T @ x
    if np.isfinite(found).all():
        return found.astype(np.float64)
    wide = x.astype(np.float64)
    out: F64 = wide.T @ wide
    return out


def calibration_texts() -> list[str]:
    """The fixed calibration sentences, and the passages that join them."""
    return texts.texts("calibration")


def unseen_texts(count: int) -> list[str]:
    """Return `count` sentences of a seeded draw that no calibration text holds."""
    seen = "\n".join(calibration_texts())
    # A calibration text holds a few of the sentences drawn: some more than are wanted.
    pool = draw([count + count // 4 + 16], seed=CALIBRATION_SEED)[0]
    return [s.text for s in pool if s.text not in seen][:count]


def calibration_ids(
    tokenizer: Tokenizer, limit: int, chosen: Sequence[str] | None = None
) -> list[npt.NDArray[np.int32]]:
    """Token ids of the calibration texts, at most `limit` each.

    Parameters
    ----------
    tokenizer : Tokenizer
    limit : int
        The model's positions; texts are cut at 128 tokens in any case.
    chosen : sequence of str, optional
        Other texts than the fixed ones.
    """
    if chosen is None:
        chosen = calibration_texts()
    return [tokenizer(text, min(limit, texts.TOKENS)) for text in chosen]
