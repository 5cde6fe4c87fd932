"""Heads: what turns an encoder's output into a result, on the host, in fp32.

They are tiny beside the encoder (one product of a token, or of every token with a few columns), so
the hardware's part ends with the last layer's output. Which head a folder has says
``architectures`` of its ``config.json``; the sizes come from its tensors, which are checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.errors import reason
from tilewright.sw.models.bert import Linear
from tilewright.sw.models.config import read_json
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.functions import F32, softmax, token_mean, unit_length
from tilewright.sw.models.weights import Tensors, checked, read_tensors

Bool = npt.NDArray[np.bool_]

_PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """A sentence embedding from the hidden states.

    Attributes
    ----------
    mode : str
        ``mean`` over all valid tokens, or ``cls``: the first token.
    unit : bool
        Scale the embedding to length 1.
    """

    mode: str = "mean"
    unit: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("mean", "cls"):
            raise ModelError(f"pooling {self.mode!r} is not supported, only mean and cls")

    def __call__(self, y: F32, length: int) -> F32:
        """Hidden states [S, hidden], the first `length` valid -> embedding [hidden]."""
        _check(y, length)
        out = y[0] if self.mode == "cls" else token_mean(y[:length], np.ones(length, np.bool_))
        return unit_length(out) if self.unit else out


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What a sequence classifier found.

    Attributes
    ----------
    logits : ndarray of float32, [labels]
    scores : ndarray of float32, [labels]
        Softmax of the logits, sigmoid where several labels can hold at once, the logits themselves
        of a regression.
    labels : tuple of str
    """

    logits: F32
    scores: F32
    labels: tuple[str, ...]

    @property
    def label(self) -> str:
        """The label with the largest logit."""
        return self.labels[int(self.logits.argmax())]


@dataclass(frozen=True, kw_only=True)
class SequenceClassifier:
    """``logits = classifier(tanh(pooler(first token)))`` of `BertForSequenceClassification`.

    Attributes
    ----------
    pooler : Linear, [hidden, hidden]
    classifier : Linear, [hidden, labels]
    labels : tuple of str
    problem : str
        ``single_label_classification``, ``multi_label_classification`` or ``regression``.
    """

    pooler: Linear
    classifier: Linear
    labels: tuple[str, ...]
    problem: str = "single_label_classification"

    def __post_init__(self) -> None:
        if self.problem not in _PROBLEMS:
            raise ModelError(f"config: problem_type {self.problem!r} is not supported")

    def __call__(self, y: F32, length: int) -> Classes:
        """Hidden states [S, hidden] -> classes."""
        _check(y, length)
        logits = self.classifier(np.tanh(self.pooler(y[0])))
        if self.problem == "single_label_classification":
            scores = softmax(logits)
        elif self.problem == "multi_label_classification":
            scores = (0.5 + 0.5 * np.tanh(logits / 2)).astype(np.float32)
        else:
            scores = logits
        return Classes(logits=logits, scores=scores, labels=self.labels)


@dataclass(frozen=True, kw_only=True)
class TokenClasses:
    """What a token classifier found: logits f32 [S, labels] of the valid tokens."""

    logits: F32
    labels: tuple[str, ...]

    @property
    def tags(self) -> tuple[str, ...]:
        """The label with the largest logit, of each token."""
        return tuple(self.labels[i] for i in self.logits.argmax(axis=-1).tolist())


@dataclass(frozen=True, kw_only=True)
class TokenClassifier:
    """``logits = classifier(every token)`` of `BertForTokenClassification`."""

    classifier: Linear
    labels: tuple[str, ...]

    def __call__(self, y: F32, length: int) -> TokenClasses:
        """Hidden states [S, hidden] -> classes of the first `length` tokens."""
        _check(y, length)
        return TokenClasses(logits=self.classifier(y[:length]), labels=self.labels)


@dataclass(frozen=True, kw_only=True)
class Span:
    """An answer.

    Attributes
    ----------
    start_logits, end_logits : ndarray of float32, [S]
        Of the valid tokens.
    start, end : int
        First and last token of the answer.
    score : float
        Sum of their logits.
    """

    start_logits: F32
    end_logits: F32
    start: int
    end: int
    score: float


@dataclass(frozen=True, kw_only=True)
class SpanFinder:
    """Start and end logits of every token, of `BertForQuestionAnswering`.

    Attributes
    ----------
    outputs : Linear, [hidden, 2]
    longest : int
        Most tokens of an answer.
    """

    outputs: Linear
    longest: int = 30

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise ModelError(f"longest answer {self.longest}, must be at least 1")

    def __call__(self, y: F32, length: int, allowed: Bool | None = None) -> Span:
        """The best span: start <= end < start + longest, largest sum of logits.

        Parameters
        ----------
        y : [S, hidden]
        length : int
            Valid tokens, the first ones.
        allowed : [S], optional
            Tokens an answer may start and end at (those of the context); all by default.

        Raises
        ------
        ModelError
            If no token is allowed.
        """
        _check(y, length)
        logits = self.outputs(y[:length])
        start, end = logits[:, 0], logits[:, 1]
        open_ = np.ones(length, np.bool_) if allowed is None else allowed[:length]
        if not open_.any():
            raise ModelError("no token is left for an answer: the question fills the whole length")
        index = np.arange(length)
        distance = index[None, :] - index[:, None]
        fits = (distance >= 0) & (distance < self.longest) & open_[:, None] & open_[None, :]
        total = np.where(fits, start[:, None] + end[None, :], -np.inf)
        first, last = divmod(int(total.argmax()), length)
        return Span(
            start_logits=start,
            end_logits=end,
            start=first,
            end=last,
            score=float(total[first, last]),
        )


Head = Pooling | SequenceClassifier | TokenClassifier | SpanFinder
Result = F32 | Classes | TokenClasses | Span


def load_head(folder: Path) -> Head:
    """The head of a model folder.

    ``architectures`` decides: `BertForSequenceClassification`, `BertForTokenClassification`,
    `BertForQuestionAnswering`; everything else (`BertModel`, pre-training heads) gives a sentence
    embedding, pooled as ``1_Pooling/config.json`` says, else by the mean; its length is 1 unless
    ``modules.json`` lists no normalization.

    Raises
    ------
    ModelError
        Missing tensor, wrong shape or type, NaN, another number of labels than the config says,
        architectures that are no names, a pooling that is not supported.
    """
    raw = read_json(folder / "config.json")
    found = raw.get("architectures") or ["BertModel"]
    kind = found[0] if isinstance(found, list) else found
    if not isinstance(kind, str):
        raise ModelError(f"config: architectures = {found!r}, must be names")
    if kind not in _HEADS:
        return load_pooling(folder)
    body = ("embeddings.", "encoder.layer.")
    tensors = read_tensors(folder, lambda name: not any(part in name for part in body))
    return head_from_tensors(kind, raw, tensors)


def head_from_tensors(kind: str, raw: dict[str, Any], tensors: Tensors) -> Head:
    """A head from named tensors.

    Parameters
    ----------
    kind : str
        Architecture, such as ``BertForSequenceClassification``.
    raw : dict
        ``config.json``.
    tensors : dict
        By checkpoint names; prefixes are ignored.
    """
    hidden = raw.get("hidden_size")
    if not isinstance(hidden, int):
        raise ModelError(f"config: hidden_size = {hidden!r}, must be an integer")
    classifier = _HEADS[kind]
    labels = ("start", "end") if kind == "BertForQuestionAnswering" else labels_of(raw)
    outputs = _linear(tensors, classifier, hidden, len(labels))
    if kind == "BertForQuestionAnswering":
        return SpanFinder(outputs=outputs)
    if kind == "BertForTokenClassification":
        return TokenClassifier(classifier=outputs, labels=labels)
    problem = raw.get("problem_type") or (
        "regression" if len(labels) == 1 else "single_label_classification"
    )
    pooler = _linear(tensors, "pooler.dense", hidden, hidden)
    return SequenceClassifier(pooler=pooler, classifier=outputs, labels=labels, problem=problem)


_HEADS = {
    "BertForSequenceClassification": "classifier",
    "BertForTokenClassification": "classifier",
    "BertForQuestionAnswering": "qa_outputs",
}


def labels_of(raw: dict[str, Any]) -> tuple[str, ...]:
    """Labels of a ``config.json``, by number; unnamed ones if it says nothing."""
    table = raw.get("id2label")
    if table is None:
        count = raw.get("num_labels", 2)
        if not isinstance(count, int) or count < 1:
            raise ModelError(f"config: num_labels = {count!r}, must be at least 1")
        return tuple(f"LABEL_{i}" for i in range(count))
    try:
        found = {int(number): str(label) for number, label in table.items()}
    except (AttributeError, ValueError) as error:
        raise ModelError(f"config: id2label is no table of numbered labels: {error}") from error
    if not found or sorted(found) != list(range(len(found))):
        raise ModelError(f"config: id2label numbers {sorted(found)}, must be 0, 1, 2 ...")
    return tuple(found[i] for i in range(len(found)))


def _linear(tensors: Tensors, name: str, k: int, n: int) -> Linear:
    def take(full: str, shape: tuple[int, ...]) -> F32:
        for candidate, tensor in tensors.items():
            if candidate == full or candidate.endswith("." + full):
                return checked(tensor, full, shape)
        raise ModelError(f"the model has no tensor {full}")

    weight = take(f"{name}.weight", (n, k))
    return Linear(w=np.ascontiguousarray(weight.T), b=take(f"{name}.bias", (n,)))


def load_pooling(folder: Path) -> Pooling:
    """How sentence embeddings are pooled, from ``1_Pooling/config.json`` and ``modules.json``."""
    path, modules = folder / "1_Pooling" / "config.json", folder / "modules.json"
    mode = "mean"
    if path.is_file():
        raw = read_json(path)
        found = [key for key, value in raw.items() if key.startswith("pooling_mode_") and value]
        mode = str(raw.get("pooling_mode", ", ".join(found) or "none"))
        mode = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get(mode, mode)
    if not modules.is_file():
        return Pooling(mode=mode)
    try:
        listed = json.loads(modules.read_text(encoding="utf-8"))
        kinds = [str(one["type"]).rpartition(".")[2] for one in listed]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"cannot read {modules}: {reason(error)}") from error
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ModelError(f"{modules}: module {kind} is not supported")
    return Pooling(mode=mode, unit="Normalize" in kinds)


def _check(y: F32, length: int) -> None:
    if y.ndim != 2 or not 1 <= length <= len(y):
        raise ModelError(f"{length} valid tokens of hidden states {list(y.shape)}, must be 1 to S")
