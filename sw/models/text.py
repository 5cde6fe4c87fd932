"""Real text: the rated sentences of the VADER study, drawn with a seed, and long passages.

Source: Hutto and Gilbert, ICWSM-14: movie reviews, Amazon reviews, New York Times editorials and
tweets, with a human rating in [-4, 4] each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tilewright.sw.errors import reason
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import fetch

SOURCES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
"""File of each source."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One rated sentence: its source, its identifier there, its mean rating, its text."""

    source: str
    ident: str
    rating: float
    text: str


@cache
def _read(folder: Path) -> tuple[Sentence, ...]:
    found: dict[str, Sentence] = {}
    for source, file in SOURCES.items():
        path = folder / file
        try:
            raw = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ModelError(f"cannot read {path}: {reason(error)}") from error
        # Not splitlines: the text itself holds characters that Unicode counts as line ends.
        for number, line in enumerate(raw.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                ident, rated, text = line.strip("\r").split("\t", 2)
                rating, text = float(rated), text.strip()
            except ValueError as error:
                raise ModelError(
                    f"{path} line {number} is damaged, must be identifier, rating and text: "
                    "type `tilewright fetch sentences`"
                ) from error
            # A sentence that occurs twice must not end up in two draws.
            if text:
                found.setdefault(
                    text, Sentence(source=source, ident=ident, rating=rating, text=text)
                )
    return tuple(found.values())


def sentences(folder: Path | None = None) -> tuple[Sentence, ...]:
    """All distinct sentences, in the order of the files; fetched when `folder` is not given."""
    return _read(fetch("sentences") if folder is None else folder)


def draw(
    counts: Iterable[int], *, seed: int, pool: Iterable[Sentence] | None = None
) -> list[list[Sentence]]:
    """Draw several sets that share no sentence.

    Parameters
    ----------
    counts : iterable of int
        Size of each set. A set depends on the sizes before it only: the first is the same
        whatever is drawn after it.
    seed : int
        Of the draw.
    pool : iterable of Sentence, optional
        Where from; all sentences by default.

    Raises
    ------
    ModelError
        If the pool is too small.
    """
    source = tuple(sentences() if pool is None else pool)
    sizes = list(counts)
    if min(sizes, default=0) < 0 or sum(sizes) > len(source):
        raise ModelError(f"cannot draw {sizes} sentences out of {len(source)}")
    order = np.random.default_rng(seed).permutation(len(source)).tolist()
    sets, first = [], 0
    for size in sizes:
        sets.append([source[i] for i in order[first : first + size]])
        first += size
    check_disjoint(sets)
    return sets


def check_disjoint(sets: list[list[Sentence]]) -> None:
    """Refuse sets that share a text.

    Raises
    ------
    ModelError
        Naming the first shared text.
    """
    seen: set[str] = set()
    for one in sets:
        texts = {sentence.text for sentence in one}
        shared = sorted(seen & texts)
        if shared:
            raise ModelError(f"two draws share the sentence {shared[0]!r}")
        seen |= texts


def passages(count: int, words: int, *, seed: int) -> list[str]:
    """Long passages: consecutive New York Times snippets joined until `words` words are reached.

    Parameters
    ----------
    count : int
        Number of passages; no snippet is used twice.
    words : int
        Least number of words in each (a word is about 1.3 tokens).
    seed : int
        Chooses where the passages start.

    Raises
    ------
    ModelError
        If there is not enough text.
    """
    snippets = [s.text for s in sentences() if s.source == "nyt"]
    whole: list[str] = []
    part: list[str] = []
    have = 0
    for text in snippets:
        part.append(text)
        have += len(text.split())
        if have >= words:
            whole.append(" ".join(part))
            part, have = [], 0
    if not 0 <= count <= len(whole):
        raise ModelError(f"{count} passages of {words} words: must be at most {len(whole)}")
    order = np.random.default_rng(seed).permutation(len(whole))[:count]
    return [whole[i] for i in order.tolist()]
