"""Tokens of texts and pairs: types, spans, limits, and texts that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.sw.small_tokenizer import VOCABULARY, write_tokenizer
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.tokenize import Tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(write_tokenizer(tmp_path))


def test_one_text(tokenizer: Tokenizer) -> None:
    found = tokenizer.encode("The cat  sits", limit=8)
    assert found.tokens == ("[CLS]", "the", "cat", "sits", "[SEP]")
    assert found.ids.tolist() == [2, *(VOCABULARY[w] for w in ("the", "cat", "sits")), 3]
    assert found.types.tolist() == [0] * 5
    assert found.special.tolist() == [True, False, False, False, True]
    assert found.spans.tolist() == [[0, 0], [0, 3], [4, 7], [9, 13], [0, 0]]
    assert len(found) == 5


def test_a_pair(tokenizer: Tokenizer) -> None:
    found = tokenizer.encode("who sits", "the cat", limit=16)
    assert found.tokens == ("[CLS]", "who", "sits", "[SEP]", "the", "cat", "[SEP]")
    assert found.types.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert found.spans[5].tolist() == [4, 7]


def test_limits(tokenizer: Tokenizer) -> None:
    text = "cat " * 7
    assert len(tokenizer.encode(text, limit=9)) == 9
    with pytest.raises(ModelError, match="the text has 9 tokens, 8 are the limit"):
        tokenizer.encode(text, limit=8)
    cut = tokenizer.encode(text, limit=8, truncate=True)
    assert len(cut) == 8
    assert cut.tokens[-1] == "[SEP]"
    # Truncation of one text must not stay on for the next.
    assert len(tokenizer.encode(text, limit=9)) == 9
    pair = tokenizer.encode("who", text, limit=8, truncate=True)
    assert pair.types.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    with pytest.raises(ModelError, match="a length of 3 tokens, must be above 3"):
        tokenizer.encode("a", "b", limit=3)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b", "\x00\x01", "a\ud800"])
def test_empty_texts(tokenizer: Tokenizer, text: str) -> None:
    for pair in ((text,), ("cat", text), (text, "cat")):
        with pytest.raises(
            ModelError, match=r"text is empty|no token of the vocabulary|no Unicode"
        ):
            tokenizer.encode(*pair, limit=16)


def test_vocabulary_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "wordpiece"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, "[MASK]", "##s"]) + "\n")
    pieces = Tokenizer(folder).encode("The CATS", "dog", limit=16)
    assert pieces.tokens == ("[CLS]", "the", "cat", "##s", "[SEP]", "dog", "[SEP]")
    np.testing.assert_array_equal(pieces.types, [0, 0, 0, 0, 0, 1, 1])
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert Tokenizer(folder).encode("The", limit=16).tokens[1] == "[UNK]"


def test_files_refused(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"no tokenizer\.json and no vocab\.txt"):
        Tokenizer(folder)
    for content in ("", "{}", "[1]", '{"version": "1.0"}'):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=r"cannot read .*tokenizer\.json") as caught:
            Tokenizer(folder)
        assert "\n" not in str(caught.value)
