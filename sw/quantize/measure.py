"""How near the integers come to fp32: cosines of layers and of sentence embeddings.

``python -m sw.quantize.measure [MODEL] [--sentences N]`` prints them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sw.models.bert import Bert, mean_pool
from sw.models.fetch import resolve_model
from sw.models.tokenize import Tokenizer, Tokens
from sw.quantize.calibrate import unseen_texts
from sw.quantize.formats import QModel
from sw.quantize.quantize import quantize_folder
from sw.quantize.reference import run_embedding, run_layer

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cosines:
    """Mean and worst of a set of cosines."""

    mean: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float] | F64) -> Cosines:
        """Summarize."""
        array = np.asarray(values, dtype=np.float64)
        return cls(mean=float(array.mean()), worst=float(array.min()))


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> F64:
    """Cosine over the last axis, in float64; 0 where a vector is 0."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    length = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    out: F64 = (x * y).sum(axis=-1) / np.maximum(length, 1e-300)
    return out


def layer_cosines(model: Bert, quantized: QModel, tokens: Tokens) -> list[Cosines]:
    """Per layer: cosine of every valid token's output against fp32, fed with fp32 states.

    Parameters
    ----------
    tokens : Tokens
        [B, S], padded.
    """
    found: list[list[float]] = [[] for _ in quantized.layers]
    for ids, mask in zip(tokens.ids, tokens.mask, strict=True):
        valid = int(mask.sum())
        for i, states in enumerate(model.forward(ids, mask)):
            layer = quantized.layers[i]
            y = layer.output.to_real(run_layer(layer, layer.input.to_int(states.x), valid))
            found[i] += cosine(y[:valid], states.y[:valid]).tolist()
    return [Cosines.of(values) for values in found]


def encode(quantized: QModel, ids: npt.NDArray[np.integer[Any]], length: int) -> F64:
    """Sentence embedding of the integer model: ids [S], the first `length` valid -> [hidden]."""
    x = run_embedding(quantized.embedding, ids)
    for layer in quantized.layers:
        x = run_layer(layer, x, length)
    real = quantized.layers[-1].output.to_real(x)
    return mean_pool(real, np.arange(len(ids)) < length).astype(np.float64)


def embedding_cosines(model: Bert, quantized: QModel, tokens: Tokens) -> tuple[Cosines, float]:
    """Whole model: cosine of sentence embeddings, and Spearman's rho of pairwise similarities."""
    got, want = [], []
    for ids, mask in zip(tokens.ids, tokens.mask, strict=True):
        length = int(mask.sum())
        # Padding changes no valid token, so it is left out: the same numbers, sooner.
        got.append(encode(quantized, ids[:length], length))
        want.append(model.encode(ids[:length], mask[:length]))
    a, b = np.stack(got), np.stack(want).astype(np.float64)
    upper = np.triu_indices(len(a), 1)
    ranks = []
    for x in (a, b):
        ranks.append(np.argsort(np.argsort((x @ x.T)[upper])))
    rho = float(np.asarray(np.corrcoef(ranks))[0, 1]) if len(a) > 2 else 1.0
    return Cosines.of(cosine(a, b)), rho


def evaluation_tokens(tokenizer: Tokenizer, count: int, length: int = 128) -> Tokens:
    """Sentences that share nothing with the calibration's, padded to `length`."""
    return tokenizer.batch(unseen_texts(count), length)


def main() -> None:
    """Print layer and embedding cosines of a model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", nargs="?", default="minilm")
    parser.add_argument("--sentences", type=int, default=200)
    options = parser.parse_args()
    folder = resolve_model(options.model)
    model, quantized = quantize_folder(folder)
    tokens = evaluation_tokens(Tokenizer(folder), options.sentences)
    print(f"{options.sentences} sentences, {int(tokens.mask.sum())} tokens; mean / worst cosine")
    for i, c in enumerate(layer_cosines(model, quantized, tokens)):
        print(f"layer {i}: {c.mean:.5f} / {c.worst:.5f}")
    whole, rho = embedding_cosines(model, quantized, tokens)
    print(f"sentence embedding: {whole.mean:.5f} / {whole.worst:.5f}, Spearman {rho:.5f}")


if __name__ == "__main__":
    main()
