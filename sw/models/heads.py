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
from tilewright.sw.models.families import family_of
from tilewright.sw.models.functions import F32, HOST_FUNCTIONS, softmax, token_mean, unit_length
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
    """``logits = classifier(function(pooler(first token)))``.

    Attributes
    ----------
    pooler : Linear, [hidden, hidden]
    classifier : Linear, [hidden, labels]
    labels : tuple of str
    problem : str
        ``single_label_classification``, ``multi_label_classification`` or ``regression``.
    function : str
        Of `tilewright.sw.models.functions.HOST_FUNCTIONS`.
    """

    pooler: Linear
    classifier: Linear
    labels: tuple[str, ...]
    problem: str = "single_label_classification"
    function: str = "tanh"

    def __post_init__(self) -> None:
        if self.function not in HOST_FUNCTIONS:
            allowed = ", ".join(HOST_FUNCTIONS)
            raise ModelError(f"function {self.function!r} of a head: must be one of {allowed}")
        if self.problem not in _PROBLEMS:
            raise ModelError(f"config: problem_type {self.problem!r} is not supported")

    def __call__(self, y: F32, length: int) -> Classes:
        """Hidden states [S, hidden] -> classes."""
        _check(y, length)
        logits = self.classifier(HOST_FUNCTIONS[self.function](self.pooler(y[0])))
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
    """``logits = classifier(every token)``."""

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
    """Start and end logits of every token.

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
            raise ModelError(f"longest answer {self.longest}: must be at least 1")

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


_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def load_head(folder: Path) -> Head:
    """The head of a model folder.

    ``architectures`` decides: sequence classification, token classification and question answering
    of the model's family; everything else (`BertModel`, pre-training heads) gives a sentence
    embedding, pooled as ``1_Pooling/config.json`` says, else by the mean; its length is 1 unless
    ``modules.json`` lists no normalization. `left_out` tells of heads that are not run.

    Raises
    ------
    ModelError
        Missing tensor, wrong shape or type, NaN, another number of labels than the config says,
        architectures that are no names, a pooling that is not supported.
    """
    raw = read_json(folder / "config.json")
    family, task = family_of(raw), _task(raw)
    if task not in _TASKS:
        return load_pooling(folder)
    hidden, parts = family.integer(raw, "hidden_size"), family.classifier
    names = ("qa_outputs", "classifier", parts.pooler, parts.outputs)
    tensors = read_tensors(folder, lambda full: any(_is(full, name) for name in names))

    def linear(name: str, k: int, n: int) -> Linear:
        return _linear(tensors, name, k, n)

    if task == "ForQuestionAnswering":
        return SpanFinder(outputs=linear("qa_outputs", hidden, 2))
    labels = labels_of(raw)
    if task == "ForTokenClassification":
        return TokenClassifier(classifier=linear("classifier", hidden, len(labels)), labels=labels)
    alone = "regression" if len(labels) == 1 else "single_label_classification"
    return SequenceClassifier(
        pooler=linear(parts.pooler, hidden, hidden),
        classifier=linear(parts.outputs, hidden, len(labels)),
        labels=labels,
        problem=raw.get("problem_type") or alone,
        function=parts.function,
    )


def left_out(folder: Path) -> str | None:
    """The architecture of a folder whose head is not run, as masked words or a choice of answers.

    None where the head is run, where there is none, and where ``1_Pooling`` or ``modules.json``
    says that sentence embeddings are what the model is for.
    """
    raw = read_json(folder / "config.json")
    if any((folder / name).exists() for name in ("1_Pooling", "modules.json")):
        return None
    return None if _task(raw) in (*_TASKS, "Model") else _architecture(raw)


def _architecture(raw: dict[str, Any]) -> str:
    found = raw.get("architectures") or [f"{family_of(raw).classes}Model"]
    kind = found[0] if isinstance(found, list) else found
    if not isinstance(kind, str):
        raise ModelError(f"config: architectures = {found!r}: must be names")
    return kind


def _task(raw: dict[str, Any]) -> str:
    """What an architecture's name says behind the family's; the whole of a foreign name."""
    return _architecture(raw).removeprefix(family_of(raw).classes)


def _is(full: str, name: str) -> bool:
    """Whether a checkpoint's tensor is of a part, whatever prefix it carries."""
    return f".{full}".endswith((f".{name}.weight", f".{name}.bias"))


def labels_of(raw: dict[str, Any]) -> tuple[str, ...]:
    """Labels of a ``config.json``, by number; unnamed ones if it says nothing."""
    table = raw.get("id2label")
    if table is None:
        count = raw.get("num_labels", 2)
        if not isinstance(count, int) or count < 1:
            raise ModelError(f"config: num_labels = {count!r}: must be at least 1")
        return tuple(f"LABEL_{i}" for i in range(count))
    try:
        found = {int(number): str(label) for number, label in table.items()}
    except (AttributeError, ValueError) as error:
        raise ModelError(f"config: id2label is no table of numbered labels: {error}") from error
    if not found or sorted(found) != list(range(len(found))):
        raise ModelError(f"config: id2label numbers {sorted(found)}: must be 0, 1, 2 ...")
    return tuple(found[i] for i in range(len(found)))


def _linear(tensors: Tensors, name: str, k: int, n: int) -> Linear:
    def take(full: str, shape: tuple[int, ...]) -> F32:
        for candidate, tensor in tensors.items():
            if f".{candidate}".endswith(f".{full}"):
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
        raise ModelError(f"{length} valid tokens of hidden states {list(y.shape)}: must be 1 to S")
