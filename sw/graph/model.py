"""Models by path: a folder of safetensors or an ONNX file, either way the same encoder and head."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tilewright._extras import install_command
from tilewright.sw.graph.encoder import Encoder, find_encoder, head_of
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.ir import Graph
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.config import read_json
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.heads import (
    Head,
    SequenceClassifier,
    TokenClassifier,
    labels_of,
    left_out,
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
    left_out : str or None
        The architecture, where its own head (masked words, a choice of answers …) is not run.
    """

    bert: Bert
    head: Head
    folder: Path
    left_out: str | None = None


def load_model(where: str | Path, outputs: Sequence[str] | None = None) -> Model:
    """Load a model.

    Parameters
    ----------
    where : str or Path
        A known name, a folder with ``config.json`` and ``model.safetensors``, or an ``.onnx`` file.
        Beside an ONNX file, or one folder above it, may lie ``config.json`` (names of the labels),
        ``1_Pooling`` and the tokenizer.
    outputs : sequence of str, optional
        Of an ONNX file: which outputs to import, or tensors inside; all outputs by default.

    Raises
    ------
    ModelError
        What cannot be read or is not supported, in one line; of an ONNX file with the outputs that
        could be, if there are any.
    """
    path = Path(os.path.expanduser(where))
    if path.suffix.lower() != ".onnx":
        if outputs:
            raise ModelError(f"output {outputs[0]!r} of {where}: only an ONNX file has outputs")
        folder = resolve_model(where)
        return Model(
            bert=Bert.load(folder),
            head=load_head(folder),
            folder=folder,
            left_out=left_out(folder),
        )
    folder = next((one for one in (path.parent, path.parent.parent) if _is_home(one)), path.parent)
    try:
        graph = load_onnx(path, outputs)
        encoder = find_encoder(graph)
        head = head_of(graph, encoder)
    except GraphError as error:
        others = _loadable(path)
        if not others:
            raise
        raise GraphError(f"{error}; can be loaded: output {' or '.join(others)}") from error
    return Model(bert=encoder.model, head=_named(head, folder), folder=folder)


def _loadable(path: Path) -> list[str]:
    """Outputs of a file with a head that is known; if there are none, the hidden states inside."""
    try:
        from tilewright.sw.graph.onnx.load import survey

        graph, outputs = survey(path)
        encoder = find_encoder(graph)
    except (GraphError, ImportError):
        return []
    return [name for name in outputs if _has_head(graph, encoder, name)] or [encoder.hidden]


def _has_head(graph: Graph, encoder: Encoder, output: str) -> bool:
    try:
        head_of(replace(graph, outputs=(output,)), encoder)
    except GraphError:
        return False
    return True


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
        raise GraphError(f"ONNX needs the package onnx; type: {install_command('onnx')}")
    from tilewright.sw.graph.onnx.load import import_onnx

    return import_onnx(Path(path), outputs)


def _is_home(folder: Path) -> bool:
    return any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt"))


def _named(head: Head | None, folder: Path) -> Head:
    """The head of a graph, with what the files beside it say of labels, and of pooling if it has
    none.
    """
    if head is None:
        return load_pooling(folder)
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
