"""Sentences to token ids and masks, by the model's own ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers

from sw.models.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids [..., S] and which of them are valid, [..., S]; padding comes last."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Valid tokens of each sentence."""
        out: npt.NDArray[np.int64] = self.mask.sum(axis=-1)
        return out


class Tokenizer:
    """The tokenizer of a model folder.

    Parameters
    ----------
    folder : Path
        Holds ``tokenizer.json``.

    Raises
    ------
    ModelError
        If the file is missing or unreadable.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"the model folder {folder} has no tokenizer.json")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"cannot read {path}: {error}") from error
        # The file may bring its own padding and truncation; both are ours to decide.
        self._tokenizer.no_padding()

    def __call__(self, text: str, limit: int) -> npt.NDArray[np.int32]:
        """Ids of one sentence, special tokens included, truncated to `limit`, not padded: [S]."""
        return self._ids([text], limit)[0]

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
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if limit <= special:
            raise ModelError(f"a length of {limit} tokens, must be above {special}")
        self._tokenizer.enable_truncation(max_length=limit)
        encoded = self._tokenizer.encode_batch(list(texts))
        return [np.array(e.ids, dtype=np.int32) for e in encoded]
