"""Tokens of texts and pairs: types, spans, limits, and texts that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sw.small_tokenizer import VOCABULARY, write_byte_bpe, write_tokenizer, write_unigram
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
    with pytest.raises(ModelError, match="the text has 9 tokens: must be at most 8"):
        tokenizer.encode(text, limit=8)
    cut = tokenizer.encode(text, limit=8, truncate=True)
    assert len(cut) == 8
    assert cut.tokens[-1] == "[SEP]"
    # Truncation of one text must not stay on for the next.
    assert len(tokenizer.encode(text, limit=9)) == 9
    pair = tokenizer.encode("who", text, limit=8, truncate=True)
    assert pair.types.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    with pytest.raises(ModelError, match="a length of 3 tokens: must be above 3"):
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
    (folder / "sentencepiece.bpe.model").touch()
    with pytest.raises(ModelError, match=r"sentencepiece\.bpe\.model is not read: convert it with"):
        Tokenizer(folder)
    for content in ("", "{}", "[1]", '{"version": "1.0"}'):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=r"cannot read .*tokenizer\.json") as caught:
            Tokenizer(folder)
        assert "\n" not in str(caught.value)


def test_byte_level_bpe(tmp_path: Path) -> None:
    """Pairs have no types; the file's own padding is not used."""
    tokenizer = Tokenizer(write_byte_bpe(tmp_path))
    pair = tokenizer.encode("the cat", "cats é", limit=32)
    assert pair.tokens == ("<s>", "the", "Ġcat", "</s>", "</s>", "cat", "s", "Ġ", "Ã", "©", "</s>")
    assert not pair.types.any()
    assert np.flatnonzero(pair.second).tolist() == [5, 6, 7, 8, 9]
    assert np.flatnonzero(pair.special).tolist() == [0, 3, 4, 10]
    assert pair.spans[5:10].tolist() == [[0, 3], [3, 4], [5, 5], [5, 6], [5, 6]]
    assert len(tokenizer("the cat", 32)) == 4
    with pytest.raises(ModelError, match="a length of 4 tokens: must be above 4"):
        tokenizer.encode("the", "cat", limit=4)


def test_unigram(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_unigram(tmp_path))
    pair = tokenizer.encode("who sits", "the cat", limit=32)
    assert pair.ids.tolist() == [0, 8, 6, 7, 2, 2, 4, 5, 2]
    assert not pair.types.any()
    assert np.flatnonzero(pair.second).tolist() == [6, 7]
    assert tokenizer.encode("the ?", limit=32).ids.tolist() == [0, 4, 10, 3, 2]
    tokenizer = Tokenizer(write_unigram(tmp_path, unknown=None))
    for run in (lambda: tokenizer.encode("the ?", limit=32), lambda: tokenizer("the ?", 32)):
        with pytest.raises(ModelError, match="tokenizer cannot encode the text: ") as caught:
            run()
        assert "\n" not in str(caught.value)


def test_settings_of_sentence_transformers(tmp_path: Path) -> None:
    folder = write_byte_bpe(tmp_path)
    path = folder / "sentence_bert_config.json"
    assert Tokenizer(folder).limit is None
    path.write_text('{"max_seq_length": 12, "do_lower_case": true}')
    tokenizer = Tokenizer(folder)
    assert tokenizer.limit == 12
    found = tokenizer.encode("THE Cat", limit=8)
    assert found.tokens == ("<s>", "the", "Ġcat", "</s>")
    assert found.spans[2].tolist() == [4, 7]
    path.write_text('{"max_seq_length": null}')
    assert Tokenizer(folder).limit is None
    for value in ("0", "true", "1.5", '"many"'):
        path.write_text(f'{{"max_seq_length": {value}}}')
        with pytest.raises(
            ModelError, match=r"max_seq_length = .*: must be an integer of at least"
        ):
            Tokenizer(folder)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the vocabulary is empty"),
        ("\n \n", "the vocabulary is empty"),
        ("[PAD]\n[CLS]\n[SEP]\ncat\n", r"the vocabulary has no unknown token \[UNK\]"),
        ("[PAD]\n[UNK]\n[CLS]\ncat\n", r"cannot read .*vocab\.txt: .*not found"),
        (b"\xff\xfe\x00", r"cannot read .*vocab\.txt"),
    ],
)
def test_vocabularies_refused(tmp_path: Path, text: str | bytes, match: str) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ModelError, match=match) as caught:
        Tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "vocabulary", "match"),
    [
        ("WordLevel", {"the": 0}, r"has no unknown token \[UNK\]"),
        ("WordPiece", {"the": 0}, r"has no unknown token \[UNK\]"),
        ("WordLevel", {}, "the vocabulary is empty"),
        ("WordPiece", {}, "the vocabulary is empty"),
        ("BPE", {}, "the vocabulary is empty"),
    ],
)
def test_tokenizers_refused(tmp_path: Path, kind: str, vocabulary: Any, match: str) -> None:
    path = write_tokenizer(tmp_path) / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["model"] = {"type": kind, "vocab": vocabulary, "unk_token": "[UNK]"}
    raw["model"] |= {"WordLevel": {}, "BPE": {"merges": []}}.get(
        kind, {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    )
    path.write_text(json.dumps(raw))
    with pytest.raises(ModelError, match=match) as caught:
        Tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
