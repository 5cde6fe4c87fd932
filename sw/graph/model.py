"""Models by path: a folder of safetensors or an ONNX file, either way the same encoder and head."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tilewright.extras import install
from tilewright.sw.graph.encoder import Encoder, find_encoder, head_of
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.ir import Graph
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.config import read_json
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.heads import (
    Head,
    Pooling,
    SequenceClassifier,
    TokenClassifier,
    labels_of,
    load_head,
    load_pooling,
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder with its head.

    Attributes
    ----------
    bert : Bert
    head : Head
    folder : Path
        Where its tokenizer is.
    """

    bert: Bert
    head: Head
    folder: Path


def load_model(where: str | Path, outputs: Sequence[str] | None = None) -> Model:
    """Load a model.

    Parameters
    ----------
    where : str or Path
        A known name, a folder with ``config.json`` and ``model.safetensors``, or an ``.onnx`` file.
        Beside an ONNX file, or one folder above it, may lie ``config.json`` (names of the labels),
        ``1_Pooling`` and the tokenizer.
    outputs : sequence of str, optional
        Of an ONNX file: which outputs to import, all by default.

    Raises
    ------
    ModelError
        What cannot be read or is not supported, in one line.
    """
    path = Path(os.path.expanduser(where))
    if path.suffix.lower() != ".onnx":
        folder = resolve_model(where)
        return Model(bert=Bert.load(folder), head=load_head(folder), folder=folder)
    graph = load_onnx(path, outputs)
    encoder = find_encoder(graph)
    folder = next((one for one in (path.parent, path.parent.parent) if _is_home(one)), path.parent)
    return Model(bert=encoder.model, head=_named(graph, encoder, folder), folder=folder)


def load_onnx(path: Path | str, outputs: Sequence[str] | None = None) -> Graph:
    """The graph of an ONNX file; needs the `onnx` package, an extra of this one.

    Parameters
    ----------
    path : Path or str
    outputs : sequence of str, optional
        Which of the file's outputs to import; all by default.

    Returns
    -------
    Graph
        For `tilewright.run_graph`; an encoder's is better loaded by `tilewright.load`.

    Raises
    ------
    GraphError
        A file that cannot be read, an operator that is not supported, a graph that is quantized
        already, or the package `onnx` is missing.

    Examples
    --------
    >>> import tilewright as tw
    >>> graph = tw.load_graph("block.onnx")  # doctest: +SKIP
    """
    if importlib.util.find_spec("onnx") is None:
        raise GraphError(f"reading ONNX needs the package onnx; type: {install('onnx')}")
    from tilewright.sw.graph.onnx.load import import_onnx

    return import_onnx(Path(path), outputs)


def _is_home(folder: Path) -> bool:
    return any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt"))


def _named(graph: Graph, encoder: Encoder, folder: Path) -> Head:
    """The head of a graph, with what the files beside it say of labels and pooling."""
    head = head_of(graph, encoder)
    if isinstance(head, Pooling):
        # Hidden states as an output leave the pooling open; a selected first token does not.
        return load_pooling(folder) if head.mode == "mean" else head
    config = folder / "config.json"
    if isinstance(head, SequenceClassifier | TokenClassifier) and config.is_file():
        raw = read_json(config)
        if "id2label" not in raw:
            return head
        labels = labels_of(raw)
        if len(labels) != len(head.labels):
            raise GraphError(f"the graph has {len(head.labels)} labels, {config} {len(labels)}")
        if isinstance(head, SequenceClassifier) and raw.get("problem_type"):
            return replace(head, labels=labels, problem=str(raw["problem_type"]))
        return replace(head, labels=labels)
    return head
