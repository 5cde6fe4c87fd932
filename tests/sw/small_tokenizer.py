"""Small tokenizers of the kinds that families have, for tests that need no download."""

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


def write_byte_bpe(folder: Path) -> Path:
    """Byte-level BPE with RoBERTa's special tokens: padding is 1, every token's type 0."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("c", "a"),
        ("ca", "t"),
        ("Ġ", "cat"),
        ("s", "i"),
        ("si", "t"),
    ]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(tokens[:4])
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=32)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_unigram(folder: Path, unknown: int | None = 3) -> Path:
    """SentencePiece's Unigram as XLM-RoBERTa has it."""
    pieces = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    words = ("▁the", "▁cat", "▁sit", "s", "▁who", "▁dog", "▁")
    pieces += [(word, -float(i + 1)) for i, word in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
