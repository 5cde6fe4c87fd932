"""Small models of every family, and what `transformers` makes of them.

``python -m tests.sw.families`` (with torch and transformers, as `make test-export` installs them)
writes ``tests/data/families.npz``: configuration, tensor names and shapes, token ids and outputs of
each case. Weights are not kept, they follow from their names. It also prints the table of errors
that docs/models.md has.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

F32 = npt.NDArray[np.float32]
Shapes = dict[str, list[int]]

PATH = Path(__file__).parent.parent / "data" / "families.npz"
TOKENS = 9
LABELS = 3
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")

_SIZES = {
    "vocab_size": 40,
    "max_position_embeddings": 20,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
_DISTILBERT = {
    "vocab_size": 40,
    "max_position_embeddings": 20,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SIZES),
    "roberta": ("Roberta", {**_SIZES, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "xlm-roberta": ("XLMRoberta", {**_SIZES, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "camembert": ("Camembert", {**_SIZES, "type_vocab_size": 1, "pad_token_id": 3}),
    "distilbert": ("DistilBert", _DISTILBERT),
    "electra": ("Electra", {**_SIZES, "embedding_size": 8}),
    "ernie": ("Ernie", {**_SIZES, "use_task_id": True, "task_type_vocab_size": 3}),
    "albert": ("Albert", {**_SIZES, "embedding_size": 8}),
}
"""Classes and configuration of each family."""

_MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "electra, embeddings of its width": ("Electra", {**_SIZES, "embedding_size": 16}),
    "ernie without tasks": ("Ernie", _SIZES),
    "albert, groups of layers": (
        "Albert",
        {
            **_SIZES,
            "embedding_size": 16,
            "num_hidden_layers": 3,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
        },
    ),
}

CASES = {
    **{
        f"{name} {head}": (kind + head, raw)
        for name, (kind, raw) in FAMILIES.items()
        for head in HEADS
    },
    **{name: (kind + "Model", raw) for name, (kind, raw) in _MORE.items()},
}
"""Architecture and configuration by name."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One case as `transformers` had it.

    Attributes
    ----------
    config : dict
        ``config.json`` as it was saved.
    shapes : dict
        Of every tensor, by its name in the checkpoint.
    ids : ndarray of int64, [S]
    types : ndarray of int64, [S]
    hidden : ndarray of float32, [S, hidden]
        The last hidden states.
    logits : ndarray of float32 or None
        [labels], [S, labels], or [2, S] of starts and ends.
    """

    config: dict[str, Any]
    shapes: Shapes
    ids: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]
    hidden: F32
    logits: F32 | None

    def write(self, folder: Path) -> Path:
        """A model folder on disk."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(weights(self.shapes), folder / "model.safetensors")
        return folder


def weights(shapes: Shapes) -> dict[str, F32]:
    """Weights that depend on names and shapes only: the same on every machine."""
    return {name: _weight(name, tuple(shape)) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> F32:
    count = int(np.prod(shape))
    # SplitMix64's finalizer; uniform in -1 ... 1.
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(zlib.crc32(name.encode()))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    uniform = ((x >> np.uint64(40)).astype(np.float64) / 2**23 - 1).reshape(shape)
    if len(shape) == 1:
        out = 0.2 * uniform + (1 if "norm.weight" in name.lower() else 0)
    else:
        out = uniform * (1 if "embeddings." in name else 2 / np.sqrt(shape[1]))
    return out.astype(np.float32)


def ids_and_types(config: dict[str, Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Tokens of a case: none is any family's padding, the last four of the second type."""
    ids = (np.arange(TOKENS, dtype=np.int64) * 11) % 35 + 5
    two = config.get("type_vocab_size", 1 if "dim" in config else 2) > 1
    return ids, np.where(np.arange(TOKENS) >= TOKENS - 4, 1, 0) * int(two)


@cache
def recorded() -> dict[str, Recorded]:
    """Every case of the file."""
    with np.load(PATH) as archive:
        document = json.loads(archive["json"].tobytes())
        return {
            name: Recorded(
                config=entry["config"],
                shapes=entry["shapes"],
                ids=archive[f"{name}/ids"],
                types=archive[f"{name}/types"],
                hidden=archive[f"{name}/hidden"],
                logits=archive.get(f"{name}/logits"),
            )
            for name, entry in document.items()
        }


def _packages() -> tuple[Any, Any]:
    """PyTorch and transformers; types are checked without them."""
    return import_module("torch"), import_module("transformers")


def run_transformers(name: str, folder: Path) -> Recorded:
    """Make a case with `transformers` and run it."""
    torch, transformers = _packages()
    kind, raw = CASES[name]
    architecture = getattr(transformers, kind)
    labels = {} if kind.endswith("Model") else {"num_labels": 2 if "Answer" in kind else LABELS}
    config = architecture.config_class(**raw, **labels)
    architecture(config).save_pretrained(folder)
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    save_file(weights(shapes), folder / "model.safetensors", metadata={"format": "pt"})
    model = architecture.from_pretrained(folder).eval()
    ids, types = ids_and_types(raw)
    inputs = {"input_ids": torch.tensor(ids)[None]}
    if types.any():
        inputs["token_type_ids"] = torch.tensor(types)[None]
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    logits = None
    if "Answer" in kind:
        logits = torch.stack([found.start_logits[0], found.end_logits[0]]).numpy()
    elif not kind.endswith("Model"):
        logits = found.logits[0].numpy()
    return Recorded(
        config=json.loads((folder / "config.json").read_text()),
        shapes=shapes,
        ids=ids,
        types=types,
        hidden=found.hidden_states[-1][0].numpy(),
        logits=logits,
    )


def errors(one: Recorded, folder: Path) -> tuple[float, float]:
    """Largest differences of hidden states and logits of a folder to what was recorded."""
    from tilewright.sw.models.bert import Bert
    from tilewright.sw.models.heads import Span, load_head

    model, head = Bert.load(folder), load_head(folder)
    hidden = model.forward(one.ids, types=one.types)[-1].y
    worst = float(np.abs(hidden - one.hidden).max())
    if one.logits is None:
        return worst, 0
    found: Any = head(hidden, len(hidden))
    span = isinstance(found, Span)
    logits = np.stack([found.start_logits, found.end_logits]) if span else found.logits
    return worst, float(np.abs(logits - one.logits).max())


def main() -> None:
    """Record every case, and print the errors."""
    from tempfile import TemporaryDirectory

    _, transformers = _packages()
    transformers.utils.logging.disable_progress_bar()
    found: dict[str, tuple[float, float]] = {}
    document: dict[str, Any] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in CASES:
        with TemporaryDirectory() as folder:
            one = run_transformers(name, Path(folder))
            found[name] = errors(one, Path(folder))
        document[name] = {"config": one.config, "shapes": one.shapes}
        arrays |= {f"{name}/{key}": getattr(one, key) for key in ("ids", "types", "hidden")}
        if one.logits is not None:
            arrays[f"{name}/logits"] = one.logits
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    np.savez_compressed(PATH, allow_pickle=False, json=text, **arrays)
    print(
        "| family | hidden states | sequence | tokens | answers |\n| --- | --- | --- | --- | --- |"
    )
    for name in (*FAMILIES, *_MORE):
        heads = [f"{name} {head}" for head in HEADS if name in FAMILIES]
        hidden = max(found[case][0] for case in heads or [name])
        cells = [f"{value:.1e}" for value in (hidden, *(found[case][1] for case in heads))]
        print(f"| {name} | {' | '.join(cells + ['–'] * (4 - len(cells)))} |")


if __name__ == "__main__":
    main()
