"""Heads: which one a folder has, what it computes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.sw.small_bert import JSON, tensors, write
from tilewright.sw.models.bert import Linear
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.heads import (
    Pooling,
    SequenceClassifier,
    SpanFinder,
    TokenClassifier,
    load_head,
)

H = 48


def _y(seed: int, length: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((length, H)).astype(np.float32)


def _folder(
    path: Path, kind: str, weights: dict[str, tuple[int, ...]], **config: Any
) -> tuple[Path, dict[str, npt.NDArray[np.float32]]]:
    rng = np.random.default_rng(9)
    head = {name: rng.standard_normal(s).astype(np.float32) for name, s in weights.items()}
    body = {f"bert.{name}": tensor for name, tensor in tensors(3).items()}
    write(path, {**body, **head}, {**JSON, "architectures": [kind], **config})
    return path, head


SEQUENCE = {
    "bert.pooler.dense.weight": (H, H),
    "bert.pooler.dense.bias": (H,),
    "classifier.weight": (3, H),
    "classifier.bias": (3,),
}
LABELS = {"0": "no", "1": "maybe", "2": "yes"}


def test_pooling(tmp_path: Path) -> None:
    y = _y(1, 6)
    folder = write(tmp_path, tensors(3))
    head = load_head(folder)
    assert head == Pooling(mode="mean", unit=True)
    mean = y[:4].astype(np.float64).mean(axis=0)
    assert isinstance(head, Pooling)
    assert np.abs(head(y, 4) - mean / np.linalg.norm(mean)).max() < 1e-6
    assert abs(np.linalg.norm(head(y, 4)) - 1) < 1e-6

    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling"}]')
    head = load_head(folder)
    assert head == Pooling(mode="cls", unit=False)
    assert isinstance(head, Pooling)
    np.testing.assert_array_equal(head(y, 4), y[0])
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    assert load_head(folder) == Pooling(mode="cls", unit=True)
    for text, match in (
        ('[{"type": "sentence_transformers.models.Dense"}]', "module Dense is not supported"),
        ('[{"kind": 1}]', r"cannot read .*modules\.json"),
        ("3", r"cannot read .*modules\.json"),
        ("{", r"cannot read .*modules\.json"),
    ):
        (folder / "modules.json").write_text(text)
        with pytest.raises(ModelError, match=match):
            load_head(folder)
    (folder / "modules.json").unlink()
    for raw in ({"pooling_mode_max_tokens": True}, {"pooling_mode": "lasttoken"}, {}):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(raw))
        with pytest.raises(ModelError, match=r"pooling .* is not supported"):
            load_head(folder)


def test_sequence_classification(tmp_path: Path) -> None:
    kind = "BertForSequenceClassification"
    folder, w = _folder(tmp_path, kind, SEQUENCE, id2label=LABELS)
    head = load_head(folder)
    assert isinstance(head, SequenceClassifier)
    y = _y(2, 5)
    found = head(y, 5)
    pooled = np.tanh(w["bert.pooler.dense.weight"] @ y[0] + w["bert.pooler.dense.bias"])
    want = w["classifier.weight"] @ pooled + w["classifier.bias"]
    assert np.abs(found.logits - want).max() < 1e-5
    assert abs(found.scores.sum() - 1) < 1e-6
    assert found.label == LABELS[str(int(want.argmax()))]

    folder, _ = _folder(
        tmp_path, kind, SEQUENCE, id2label=LABELS, problem_type="multi_label_classification"
    )
    several = load_head(folder)
    assert isinstance(several, SequenceClassifier)
    assert np.abs(several(y, 5).scores - 1 / (1 + np.exp(-want))).max() < 1e-5
    one = {**SEQUENCE, "classifier.weight": (1, H), "classifier.bias": (1,)}
    folder, _ = _folder(tmp_path, kind, one, id2label={"0": "score"})
    regression = load_head(folder)
    assert isinstance(regression, SequenceClassifier)
    assert regression.problem == "regression"
    result = regression(y, 5)
    np.testing.assert_array_equal(result.scores, result.logits)


def test_token_classification(tmp_path: Path) -> None:
    weights = {name: shape for name, shape in SEQUENCE.items() if "classifier" in name}
    folder, w = _folder(tmp_path, "BertForTokenClassification", weights, id2label=LABELS)
    head = load_head(folder)
    assert isinstance(head, TokenClassifier)
    y = _y(3, 7)
    found = head(y, 5)
    want = y[:5] @ w["classifier.weight"].T + w["classifier.bias"]
    assert np.abs(found.logits - want).max() < 1e-5
    assert found.tags == tuple(LABELS[str(i)] for i in want.argmax(axis=1).tolist())


def test_question_answering(tmp_path: Path) -> None:
    weights = {"qa_outputs.weight": (2, H), "qa_outputs.bias": (2,)}
    folder, w = _folder(tmp_path, "BertForQuestionAnswering", weights)
    head = load_head(folder)
    assert isinstance(head, SpanFinder)
    y = _y(4, 9)
    found = head(y, 8)
    want = y[:8] @ w["qa_outputs.weight"].T + w["qa_outputs.bias"]
    assert np.abs(found.start_logits - want[:, 0]).max() < 1e-5
    assert np.abs(found.end_logits - want[:, 1]).max() < 1e-5


def _spans(start: list[float], end: list[float], longest: int = 30) -> tuple[SpanFinder, Any]:
    """A head whose logits are the hidden states' first two columns."""
    w = np.zeros((H, 2), np.float32)
    w[0, 0] = w[1, 1] = 1
    y = np.zeros((len(start), H), np.float32)
    y[:, 0], y[:, 1] = start, end
    return SpanFinder(outputs=Linear(w=w, b=np.zeros(2, np.float32)), longest=longest), y


def test_spans() -> None:
    head, y = _spans([0, 9, 1, 0], [5, 0, 0, 4])
    found = head(y, 4)
    assert (found.start, found.end, found.score) == (1, 3, 13)
    # The end never comes before the start; padding does not count; spans have a longest length.
    assert (head(y, 3).start, head(y, 3).end) == (1, 1)
    short, y = _spans([0, 9, 1, 0], [5, 0, 0, 4], longest=2)
    assert (short(y, 4).start, short(y, 4).end) == (1, 1)
    allowed = np.array([False, False, True, True])
    assert (head(y, 4, allowed).start, head(y, 4, allowed).end) == (2, 3)
    with pytest.raises(ModelError, match="no token is left"):
        head(y, 4, np.zeros(4, bool))
    with pytest.raises(ModelError, match="longest answer 0"):
        _spans([0], [0], longest=0)


@pytest.mark.parametrize(
    ("weights", "config", "match"),
    [
        ({"classifier.bias": None}, {}, r"no tensor classifier\.bias"),
        ({"bert.pooler.dense.weight": None}, {}, r"no tensor pooler\.dense\.weight"),
        ({}, {"id2label": {"0": "a", "1": "b"}}, r"classifier\.weight has shape \[3, 48\]"),
        ({}, {"id2label": {"0": "a", "2": "b"}}, r"id2label numbers \[0, 2\]"),
        ({}, {"id2label": {"zero": "a"}}, "no table of numbered labels"),
        ({}, {"id2label": ["a"]}, "no table of numbered labels"),
        ({}, {"id2label": None, "num_labels": 0}, "num_labels = 0"),
        ({}, {"problem_type": "ranking"}, "problem_type 'ranking'"),
        ({}, {"hidden_size": None}, "hidden_size = None"),
    ],
)
def test_refused(
    tmp_path: Path, weights: dict[str, Any], config: dict[str, Any], match: str
) -> None:
    kept = {name: shape for name, shape in SEQUENCE.items() if weights.get(name, 1) is not None}
    options = {"id2label": LABELS, **config}
    folder, _ = _folder(tmp_path, "BertForSequenceClassification", kept, **options)
    with pytest.raises(ModelError, match=match) as caught:
        load_head(folder)
    assert "\n" not in str(caught.value)


def test_lengths_refused() -> None:
    for length in (0, 7):
        with pytest.raises(ModelError, match=f"{length} valid tokens"):
            Pooling()(_y(1, 6), length)


@pytest.mark.parametrize("value", [[["x"]], {"a": 1}, 3, [None]])
def test_architectures_that_are_no_names(tmp_path: Path, value: Any) -> None:
    write(tmp_path, tensors(3), {**JSON, "architectures": value})
    with pytest.raises(ModelError, match=r"config: architectures = .*: must be names"):
        load_head(tmp_path)
