"""Text to token ids, types and masks, by the model's own tokenizer."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers.implementations import BertWordPieceTokenizer

from tilewright.sw.models.config import read_json
from tilewright.sw.models.errors import ModelError

_OTHERS = ("vocab.json", "sentencepiece.bpe.model", "spiece.model")
"""Vocabularies that `transformers` turns into a ``tokenizer.json``."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids [..., S] and which of them are valid, [..., S]; padding comes last."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One text, or a pair of texts, as tokens; special tokens included, nothing padded.

    Attributes
    ----------
    ids : ndarray of int32, [S]
    types : ndarray of int32, [S]
        What the tokenizer tells texts of a pair apart by, if it does: 1 in the second one.
    second : ndarray of bool, [S]
        Tokens of the second text.
    special : ndarray of bool, [S]
        Tokens that stand for no text.
    spans : ndarray of int64, [S, 2]
        First and one past the last character of each token in its text; (0, 0) where special.
    tokens : tuple of str
        As the vocabulary writes them.
    """

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.int32]
    second: npt.NDArray[np.bool_]
    special: npt.NDArray[np.bool_]
    spans: npt.NDArray[np.int64]
    tokens: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """The tokenizer of a model folder.

    Parameters
    ----------
    folder : Path
        Holds ``tokenizer.json``, or ``vocab.txt`` of a WordPiece tokenizer (then
        ``tokenizer_config.json`` says whether it folds case; it does by default). Also read is
        ``sentence_bert_config.json``.

    Attributes
    ----------
    limit : int or None
        Most tokens a text is meant to have, special ones included: ``max_seq_length``.

    Raises
    ------
    ModelError
        If the file is missing or unreadable, its vocabulary empty or without its unknown token.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _read(folder)
        path = folder / "sentence_bert_config.json"
        settings = read_json(path) if path.is_file() else {}
        limit = settings.get("max_seq_length")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ModelError(
                f"{path}: max_seq_length = {limit!r}: must be an integer of at least 1"
            )
        self.limit: int | None = limit
        if settings.get("do_lower_case"):
            steps = [tokenizers.normalizers.Lowercase(), self._tokenizer.normalizer]
            self._tokenizer.normalizer = tokenizers.normalizers.Sequence(
                [step for step in steps if step is not None]
            )
        # The file may bring its own padding and truncation; both are ours to decide.
        self._tokenizer.no_padding()

    def __call__(self, text: str, limit: int) -> npt.NDArray[np.int32]:
        """Ids of one sentence, special tokens included, truncated to `limit`, not padded: [S]."""
        return self._ids([text], limit)[0]

    def encode(
        self, text: str, pair: str | None = None, *, limit: int, truncate: bool = False
    ) -> Encoded:
        """Tokens of one text or of a pair.

        Parameters
        ----------
        text, pair : str
        limit : int
            Most tokens, special ones included.
        truncate : bool
            Cut what is longer, of a pair the longer text first, instead of refusing it.

        Raises
        ------
        ModelError
            Empty text, text without a token, too long, a limit without room for text.
        """
        self._check_limit(limit, pair is not None)
        for part in (text, pair):
            if part is not None and not part.strip():
                raise ModelError("the text is empty")
            if part is not None and any("\ud800" <= letter <= "\udfff" for letter in part):
                raise ModelError("the text is no Unicode: it holds half of a surrogate pair")
        self._tokenizer.no_truncation()
        with _one_line("the tokenizer cannot encode the text"):
            found = self._tokenizer.encode(text, pair)
        if len(found.ids) > limit:
            if not truncate:
                raise ModelError(f"the text has {len(found.ids)} tokens: must be at most {limit}")
            self._tokenizer.enable_truncation(max_length=limit)
            found = self._tokenizer.encode(text, pair)
        special = np.array(found.special_tokens_mask, dtype=np.bool_)
        types = np.array(found.type_ids, dtype=np.int32)
        # Characters such as a zero-width space are dropped: nothing may be left of a text.
        for sequence in range(1 if pair is None else 2):
            if sequence not in found.sequence_ids:
                raise ModelError("the text has no token of the vocabulary")
        return Encoded(
            ids=np.array(found.ids, dtype=np.int32),
            types=types,
            second=np.array([sequence == 1 for sequence in found.sequence_ids], dtype=np.bool_),
            special=special,
            spans=np.array(found.offsets, dtype=np.int64).reshape(-1, 2),
            tokens=tuple(found.tokens),
        )

    def batch(self, texts: Sequence[str], length: int) -> Tokens:
        """Ids and mask of several sentences, truncated and padded to `length`: [B, length].

        Raises
        ------
        ModelError
            If `length` leaves no room for the special tokens.
        """
        ids = np.zeros((len(texts), length), dtype=np.int32)
        mask = np.zeros((len(texts), length), dtype=np.bool_)
        for row, sentence in enumerate(self._ids(texts, length)):
            ids[row, : len(sentence)] = sentence
            mask[row, : len(sentence)] = True
        return Tokens(ids=ids, mask=mask)

    def _ids(self, texts: Sequence[str], limit: int) -> list[npt.NDArray[np.int32]]:
        self._check_limit(limit, False)
        self._tokenizer.enable_truncation(max_length=limit)
        with _one_line("the tokenizer cannot encode the text"):
            encoded = self._tokenizer.encode_batch(list(texts))
        return [np.array(e.ids, dtype=np.int32) for e in encoded]

    def _check_limit(self, limit: int, pair: bool) -> None:
        special = self._tokenizer.num_special_tokens_to_add(is_pair=pair)
        if limit <= special:
            raise ModelError(f"a length of {limit} tokens: must be above {special}")


def _read(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    vocabulary = folder / "vocab.txt"
    if not path.is_file():
        path = vocabulary
    if not path.is_file():
        other = next((name for name in _OTHERS if (folder / name).is_file()), None)
        hint = "" if other is None else f"; {other} is not read: convert it with {_convert(folder)}"
        raise ModelError(f"the model folder {folder} has no tokenizer.json and no vocab.txt{hint}")
    with _one_line(f"cannot read {path}"):
        if path == vocabulary:
            found = _word_pieces(path, folder / "tokenizer_config.json")
        else:
            found = tokenizers.Tokenizer.from_file(str(path))
    if not found.get_vocab_size(with_added_tokens=False):
        raise ModelError(f"{path}: the vocabulary is empty")
    if isinstance(found.model, (tokenizers.models.WordPiece, tokenizers.models.WordLevel)):
        unknown = found.model.unk_token
        if found.model.token_to_id(unknown) is None:
            raise ModelError(f"{path}: the vocabulary has no unknown token {unknown}")
    return found


def _word_pieces(path: Path, config: Path) -> tokenizers.Tokenizer:
    """BERT's tokenizer of a ``vocab.txt``, as ``tokenizer_config.json`` says."""
    if not path.read_text(encoding="utf-8").strip():
        raise ModelError(f"{path}: the vocabulary is empty")
    settings = read_json(config) if config.is_file() else {}
    # The implementation is a thin frame around the tokenizer itself.
    pieces = BertWordPieceTokenizer(
        str(path),
        lowercase=bool(settings.get("do_lower_case", True)),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
    )
    return tokenizers.Tokenizer.from_str(pieces.to_str())


def _convert(folder: Path) -> str:
    """Shell command that writes the ``tokenizer.json`` of a folder."""
    return (
        f"cd {shlex.quote(str(folder.absolute()))} && python -c "
        "\"import transformers as t; t.AutoTokenizer.from_pretrained('.').save_pretrained('.')\""
    )


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn whatever tokenizers says into an error of one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{what}: {said}") from error
