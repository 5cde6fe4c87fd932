"""The fixed texts of calibration and evaluation, which share no sentence.

``python -m tilewright.sw.quantize.texts`` draws them anew and writes ``data/*.json``: lists of
texts, each a list of indices into `tilewright.sw.models.text.sentences`, joined by blanks. They are
checked in, so that figures can be compared whatever NumPy's generator does one day.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.text import SOURCES, Sentence, passages, sentences
from tilewright.sw.models.tokenize import Tokenizer

SEED = 1
"""Of both draws."""
TOKENS = 128
"""Longest text, in tokens; what is longer is cut."""
CALIBRATION_SENTENCES = 64
"""Calibration sentences of each source."""
CALIBRATION_PASSAGES = 16
"""Long passages among them: without, late positions leave the ranges of short sentences (the
separator at position 127 fell to a cosine of .981 behind layer 0)."""
PASSAGE_WORDS = 110
"""Words of a calibration passage: about 128 tokens and more."""
EVALUATION_SENTENCES = 45
"""Evaluation sentences of each source."""
EVALUATION_PASSAGES = 20
"""Evaluation passages, of 100 to 128 tokens."""
_LEAST_TOKENS = 100
_EVERY = 10

Indices = tuple[tuple[int, ...], ...]
"""Texts as indices of the sentences they are made of."""


@cache
def indices(name: str) -> Indices:
    """The checked-in list of a set: ``calibration`` or ``evaluation``."""
    path = Path(__file__).parent / "data" / f"{name}.json"
    return tuple(tuple(text) for text in json.loads(path.read_text(encoding="utf-8"))["texts"])


def texts(name: str, count: int | None = None) -> list[str]:
    """The first `count` texts of a set, all by default.

    Every tenth evaluation text is a passage and the sources take turns, so that a part of the set
    stands for the whole.

    Raises
    ------
    ModelError
        If the set has fewer texts.
    """
    chosen = indices(name)
    if count is not None and not 1 <= count <= len(chosen):
        raise ModelError(f"{count} {name} texts: must be 1 to {len(chosen)}")
    pool = sentences()
    if max(i for text in chosen for i in text) >= len(pool):
        raise ModelError(
            f"the sentences in the cache are damaged: it holds only {len(pool):,}; "
            "type `tilewright fetch sentences`"
        )
    return [" ".join(pool[i].text for i in text) for text in chosen[:count]]


def further(count: int) -> list[str]:
    """Sentences of a seeded draw that neither set holds.

    Raises
    ------
    ModelError
        If there are fewer.
    """
    used = {i for name in ("calibration", "evaluation") for text in indices(name) for i in text}
    pool = sentences()
    free = [i for i in range(len(pool)) if i not in used]
    if count > len(free):
        raise ModelError(f"{count} further texts: must be at most {len(free)}")
    picked = np.random.default_rng(SEED).permutation(free)[:count]
    return [pool[i].text for i in picked.tolist()]


def draw_calibration(pool: Sequence[Sentence]) -> Indices:
    """Sentences of each source in turn, then passages."""
    long = passages(CALIBRATION_PASSAGES, PASSAGE_WORDS, seed=SEED)
    whole = tuple(_parts(text, pool) for text in long)
    used = {i for text in whole for i in text}
    short = _sentences(pool, CALIBRATION_SENTENCES, used)
    return (*((i,) for i in short), *whole)


def draw_evaluation(pool: Sequence[Sentence], used: set[int], tokenizer: Tokenizer) -> Indices:
    """Sentences of each source in turn, every tenth text a passage, without the `used` ones."""
    long = _passages(pool, used, tokenizer)
    taken = used | {i for text in long for i in text}
    short = iter(_sentences(pool, EVALUATION_SENTENCES, taken))
    out: list[tuple[int, ...]] = []
    for passage in long:
        out += [(next(short),) for _ in range(_EVERY - 1)]
        out.append(passage)
    return tuple(out)


def _parts(passage: str, pool: Sequence[Sentence]) -> tuple[int, ...]:
    """Indices of the consecutive snippets a passage was joined of."""
    for first, sentence in enumerate(pool):
        if sentence.source == "nyt" and passage.startswith(sentence.text):
            joined, last = sentence.text, first
            while len(joined) < len(passage):
                last += 1
                joined += " " + pool[last].text
            if joined == passage:
                return tuple(range(first, last + 1))
    raise ModelError(f"a passage is not made of consecutive snippets: {passage[:40]!r}")


def _sentences(pool: Sequence[Sentence], count: int, used: Iterable[int]) -> list[int]:
    """`count` unused sentences of each source, the sources in turn."""
    seen = set(used)
    rng = np.random.default_rng(SEED)
    columns = []
    for source in SOURCES:
        free = [i for i, s in enumerate(pool) if s.source == source and i not in seen]
        columns.append(rng.permutation(free)[:count].tolist())
    return [i for row in zip(*columns, strict=True) for i in row]


def _passages(pool: Sequence[Sentence], used: set[int], tokenizer: Tokenizer) -> Indices:
    """Runs of unused consecutive snippets with 100 to 128 tokens together."""
    rng = np.random.default_rng(SEED)
    taken = set(used)
    found: list[tuple[int, ...]] = []
    starts = [i for i, sentence in enumerate(pool) if sentence.source == "nyt"]
    for first in rng.permutation(starts).tolist():
        run: list[int] = []
        tokens = 0
        while tokens < _LEAST_TOKENS:
            i = first + len(run)
            if i >= len(pool) or pool[i].source != "nyt" or i in taken:
                break
            run.append(i)
            tokens = len(tokenizer(" ".join(pool[j].text for j in run), 512))
        if _LEAST_TOKENS <= tokens <= TOKENS:
            found.append(tuple(run))
            taken.update(run)
        if len(found) == EVALUATION_PASSAGES:
            return tuple(found)
    raise ModelError(f"{EVALUATION_PASSAGES} passages: the text is enough for {len(found)}")


def write(name: str, chosen: Indices, folder: Path) -> None:
    """Write a set's list, one text a line."""
    lines = ",\n".join(f"  {list(text)}" for text in chosen)
    (folder / f"{name}.json").write_text(
        '{"made by": "python -m tilewright.sw.quantize.texts",\n "texts": [\n' + lines + "\n]}\n",
        encoding="utf-8",
    )


def main() -> None:
    """Draw both sets and write them."""
    pool = sentences()
    folder = Path(__file__).parent / "data"
    calibration = draw_calibration(pool)
    used = {i for text in calibration for i in text}
    write("calibration", calibration, folder)
    tokenizer = Tokenizer(resolve_model("minilm"))
    write("evaluation", draw_evaluation(pool, used, tokenizer), folder)


if __name__ == "__main__":
    main()
