"""A small random BERT, for tests that need no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from tilewright.sw.models.bert import Bert, BertConfig

CONFIG = BertConfig(
    hidden=48, heads=4, layers=2, ffn=96, vocab=100, positions=40, types=2, act="gelu", eps=1e-12
)

JSON: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def tensors(seed: int, config: BertConfig = CONFIG) -> dict[str, npt.NDArray[np.float32]]:
    """Random weights by their checkpoint names, with a few loud channels."""
    rng = np.random.default_rng(seed)
    h, f = config.hidden, config.ffn
    out: dict[str, npt.NDArray[np.float32]] = {}

    def normal(name: str, *shape: int, scale: float) -> None:
        out[name] = (rng.standard_normal(shape) * scale).astype(np.float32)

    def norm(name: str) -> None:
        normal(f"{name}.bias", h, scale=0.1)
        gamma = 1 + 0.2 * rng.standard_normal(h)
        gamma[rng.integers(h, size=2)] *= 4
        out[f"{name}.weight"] = gamma.astype(np.float32)

    def linear(name: str, k: int, n: int) -> None:
        normal(f"{name}.weight", n, k, scale=k**-0.5)
        normal(f"{name}.bias", n, scale=0.1)

    normal("embeddings.word_embeddings.weight", config.vocab, h, scale=0.5)
    normal("embeddings.position_embeddings.weight", config.positions, h, scale=0.1)
    normal("embeddings.token_type_embeddings.weight", config.types, h, scale=0.1)
    norm("embeddings.LayerNorm")
    for i in range(config.layers):
        at = f"encoder.layer.{i}."
        for part in ("query", "key", "value"):
            linear(f"{at}attention.self.{part}", h, h)
        linear(f"{at}attention.output.dense", h, h)
        norm(f"{at}attention.output.LayerNorm")
        linear(f"{at}intermediate.dense", h, f)
        linear(f"{at}output.dense", f, h)
        norm(f"{at}output.LayerNorm")
    return out


def small_bert(seed: int, config: BertConfig = CONFIG) -> Bert:
    """The model itself."""
    return Bert.from_tensors(config, dict(tensors(seed, config)))


def write(
    folder: Path, weights: dict[str, npt.NDArray[Any]], config: dict[str, Any] | None = None
) -> Path:
    """A model folder on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(JSON if config is None else config))
    save_file(weights, folder / "model.safetensors")
    return folder
