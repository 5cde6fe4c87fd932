"""Calibration: the largest magnitudes of every edge of an encoder over real sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sw.models.bert import Bert, LayerStates
from sw.models.errors import ModelError
from sw.models.text import draw, passages
from sw.models.tokenize import Tokenizer

F64 = npt.NDArray[np.float64]

CALIBRATION_SEED = 1
"""Seed of the sentences used for calibration; evaluation draws behind them (`text.draw`)."""
CALIBRATION_COUNT = 256
"""Number of sentences used for calibration."""
CALIBRATION_TOKENS = 128
"""Longest sentence, in tokens."""
CALIBRATION_PASSAGES = 16
"""Long passages that join them: without, late positions leave the ranges of short sentences (the
separator at position 127 fell to a cosine of .981 behind layer 0)."""
PASSAGE_WORDS = 110
"""Words of a passage: about 128 tokens and more."""

_EDGES = ("x", "q", "k", "v", "z1", "x1", "a", "z2", "y")


@dataclass(frozen=True, kw_only=True)
class LayerRange:
    """Largest magnitude of each channel, [width] each, over all calibrated tokens of one layer.

    The names are those of `sw.models.bert.LayerStates`.
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


def _amax(states: LayerStates) -> dict[str, F64]:
    return {
        edge: np.abs(value.reshape(-1, value.shape[-1])).max(axis=0).astype(np.float64)
        for edge in _EDGES
        for value in (getattr(states, edge),)
    }


def calibrate(
    model: Bert, sequences: Iterable[npt.NDArray[np.integer[Any]]]
) -> tuple[LayerRange, ...]:
    """Run unpadded sequences of ids [S] and record the ranges of every layer.

    Raises
    ------
    ModelError
        If there is no sequence.
    """
    total: list[dict[str, F64]] = []
    for ids in sequences:
        found = [_amax(states) for states in model.forward(ids)]
        if not total:
            total = found
        for have, new in zip(total, found, strict=True):
            for edge in _EDGES:
                np.maximum(have[edge], new[edge], out=have[edge])
    if not total:
        raise ModelError("calibration needs at least one sentence")
    return tuple(LayerRange(**ranges) for ranges in total)


def calibration_texts() -> list[str]:
    """The seeded draw of sentences, and the passages that join them."""
    texts = [s.text for s in draw([CALIBRATION_COUNT], seed=CALIBRATION_SEED)[0]]
    return texts + passages(CALIBRATION_PASSAGES, PASSAGE_WORDS, seed=CALIBRATION_SEED)


def unseen_texts(count: int) -> list[str]:
    """Return `count` sentences of a seeded draw that no calibration text holds."""
    seen = "\n".join(calibration_texts())
    # A passage holds a few of the sentences drawn: some more than are wanted.
    pool = draw([CALIBRATION_COUNT, count + count // 4 + 16], seed=CALIBRATION_SEED)[1]
    return [s.text for s in pool if s.text not in seen][:count]


def calibration_ids(
    tokenizer: Tokenizer, limit: int, texts: Sequence[str] | None = None
) -> list[npt.NDArray[np.int32]]:
    """Token ids of the calibration sentences, at most `limit` each.

    Parameters
    ----------
    tokenizer : Tokenizer
    limit : int
        The model's positions; sentences are cut at `CALIBRATION_TOKENS` in any case.
    texts : sequence of str, optional
        Other sentences than the seeded draw.
    """
    if texts is None:
        texts = calibration_texts()
    return [tokenizer(text, min(limit, CALIBRATION_TOKENS)) for text in texts]
