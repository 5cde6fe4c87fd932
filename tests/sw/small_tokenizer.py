"""A word-level tokenizer with BERT's special tokens, for tests that need no download."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = ("the", "a", "cat", "dog", "sits", "runs", "on", "in", "mat", "house", "who", "what")
_MORE = ("where", "good", "bad", "is", "it", "not", "very", "and")
VOCABULARY = {word: i for i, word in enumerate((*_SPECIAL, *_WORDS, *_MORE))}


def write_tokenizer(folder: Path) -> Path:
    """``tokenizer.json`` of the vocabulary above, pairs with types 0 and 1."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
