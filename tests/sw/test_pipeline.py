"""Text to results: heads, batches, limits, ONNX against safetensors, the sentiment task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.sw.onnx_graphs import DIALECTS, EncoderWriter
from tests.sw.same import same
from tests.sw.small_bert import JSON, tensors, write
from tests.sw.small_tokenizer import VOCABULARY, write_tokenizer
from tilewright.sw.errors import InputError
from tilewright.sw.graph.model import load_model, load_onnx
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.heads import Classes, Pooling, Span, SpanFinder, TokenClasses
from tilewright.sw.models.text import Sentence
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.pipeline.engine import I16, Engine, ReferenceEngine
from tilewright.sw.pipeline.pipeline import Pipeline
from tilewright.sw.pipeline.sentiment import POINT, Probe, measure, rated
from tilewright.sw.quantize.calibrate import calibrate
from tilewright.sw.quantize.quantize import quantize

TEXTS = ["the cat sits on the mat", "it is not very good", "a dog", "who runs in the house and"]


def model_folder(path: Path, **config: Any) -> Path:
    """A model whose vocabulary is that of the small tokenizer, with every head's tensors."""
    rng = np.random.default_rng(31)
    weights = tensors(31)
    name = "embeddings.word_embeddings.weight"
    weights[name] = weights[name][: len(VOCABULARY)]
    positions = "embeddings.position_embeddings.weight"
    weights[positions] = weights[positions][: config.get("max_position_embeddings")]
    for head, rows in (("pooler.dense", 48), ("classifier", 3), ("qa_outputs", 2)):
        weights[f"{head}.weight"] = rng.standard_normal((rows, 48)).astype(np.float32)
        weights[f"{head}.bias"] = rng.standard_normal(rows).astype(np.float32)
    labels = {"id2label": {"0": "x", "1": "y", "2": "z"}}
    write(path, weights, {**JSON, "vocab_size": len(VOCABULARY), **labels, **config})
    return write_tokenizer(path)


def _pipeline(folder: Path, engine: Engine | None = None) -> Pipeline:
    model, tokenizer = load_model(folder), Tokenizer(folder)
    ids = [tokenizer(text, 40) for text in TEXTS]
    quantized = quantize(model.bert, calibrate(model.bert, ids, moments=True))
    return Pipeline(
        model=model.bert,
        tokenizer=tokenizer,
        head=model.head,
        quantized=quantized,
        engine=engine or ReferenceEngine(quantized),
    )


class _Padded:
    """An engine of one fixed length: rows behind the text hold anything."""

    def __init__(self, inner: Engine, length: int) -> None:
        self.inner, self.limit = inner, length
        self.lengths: list[int] = []

    def encode(self, batch: Sequence[I16], lengths: Sequence[int]) -> list[I16]:
        self.lengths += lengths
        rng = np.random.default_rng(32)
        padded = []
        for z in batch:
            rows = rng.integers(-20000, 20000, (self.limit or 0, z.shape[1])).astype(np.int16)
            rows[: len(z)] = z
            padded.append(rows)
        return self.inner.encode(padded, lengths)


def test_embeddings(tmp_path: Path) -> None:
    pipeline = _pipeline(model_folder(tmp_path))
    for output in pipeline(TEXTS):
        assert isinstance(output.result, np.ndarray)
        assert output.hidden.shape == (len(output.tokens), 48)
        want = pipeline.model.forward(output.tokens.ids)[-1].y.mean(axis=0)
        assert output.result @ want / np.linalg.norm(want) > 0.99
        with pytest.raises(ModelError, match="only question answering"):
            _ = output.answer
    assert pipeline([]) == []


def test_batches_equal_single_runs(tmp_path: Path) -> None:
    """Neighbours and padding change no bit."""
    pipeline = _pipeline(model_folder(tmp_path))
    together = pipeline(TEXTS)
    padded = _Padded(pipeline.engine, 24)
    behind = Pipeline(
        model=pipeline.model,
        tokenizer=pipeline.tokenizer,
        head=pipeline.head,
        quantized=pipeline.quantized,
        engine=padded,
    )(TEXTS)
    assert padded.lengths == [len(output.tokens) for output in together]
    for text, one, other in zip(TEXTS, together, behind, strict=True):
        (alone,) = pipeline([text])
        np.testing.assert_array_equal(alone.hidden, one.hidden)
        np.testing.assert_array_equal(alone.hidden, other.hidden)
        assert same(alone.result, one.result)
        assert same(alone.result, other.result)


def test_texts_longer_than_a_row_of_scores_are_refused(tmp_path: Path) -> None:
    pipeline = _pipeline(model_folder(tmp_path))
    pipeline.model = replace(pipeline.model, config=replace(pipeline.model.config, positions=5000))
    with pytest.raises(ModelError, match="the text has 4102 tokens: must be at most 4096"):
        pipeline(["cat " * 4100])


def test_look_up(tmp_path: Path) -> None:
    embedding = _pipeline(model_folder(tmp_path)).quantized.embedding
    ids = np.arange(6)
    np.testing.assert_array_equal(embedding.look_up(ids, 0 * ids), embedding.look_up(ids))
    types = np.array([0, 0, 0, 1, 1, 1])
    want = embedding.look_up(ids).astype(int) + (embedding.type[1].astype(int) - embedding.type[0])
    np.testing.assert_array_equal(embedding.look_up(ids, types)[3:], want[3:])
    np.testing.assert_array_equal(embedding.look_up(ids, types)[:3], embedding.look_up(ids)[:3])


def test_classes(tmp_path: Path) -> None:
    sequence = _pipeline(model_folder(tmp_path, architectures=["BertForSequenceClassification"]))
    (one,) = sequence([("the cat", "a dog")])
    assert isinstance(one.result, Classes)
    assert one.result.logits.shape == (3,)
    assert one.result.label in "xyz"
    tokens = _pipeline(model_folder(tmp_path, architectures=["BertForTokenClassification"]))
    (two,) = tokens(["the cat sits"])
    assert isinstance(two.result, TokenClasses)
    assert two.result.logits.shape == (5, 3)
    assert len(two.result.tags) == len(two.tokens.tokens) == 5


def test_answers(tmp_path: Path) -> None:
    pipeline = _pipeline(model_folder(tmp_path, architectures=["BertForQuestionAnswering"]))
    (output,) = pipeline([("who sits", "the Cat  sits on the mat")])
    found = output.result
    assert isinstance(found, Span)
    assert isinstance(pipeline.head, SpanFinder)
    assert 4 <= found.start <= found.end < len(output.tokens) - 1
    words = output.tokens.tokens[found.start : found.end + 1]
    assert output.answer.lower().split() == list(words)
    with pytest.raises(ModelError, match="text 1: an answer needs a pair"):
        pipeline(["the cat"])


def test_texts_refused(tmp_path: Path) -> None:
    pipeline = _pipeline(model_folder(tmp_path))
    assert pipeline.limit == 40
    long = "cat " * 39
    for texts, match in (
        (["cat", ""], "text 2: the text is empty"),
        ([long], "text 1: the text has 41 tokens: must be at most 40"),
        ([("cat", " ")], "text 1: the text is empty"),
    ):
        with pytest.raises(ModelError, match=match) as caught:
            pipeline(texts)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="texts: expected a list of texts, got '"):
        pipeline("the cat")
    wrong: Any
    for wrong in (None, 5, b"cat", ["cat"], ("a", "b", "c"), ("a", None)):
        with pytest.raises(InputError, match="text 2: expected a text or a pair, got"):
            pipeline(["the cat", wrong])
    (cut,) = pipeline([long], truncate=True)
    assert len(cut.tokens) == 40
    pipeline.engine = _Padded(pipeline.engine, 16)
    with pytest.raises(ModelError, match="41 tokens: must be at most 16"):
        pipeline([long])


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    pipeline = _pipeline(model_folder(tmp_path))
    pipeline.model = Bert.load(write(tmp_path / "other", tensors(3)))
    few = {**JSON, "vocab_size": 9}
    weights = tensors(31)
    name = "embeddings.word_embeddings.weight"
    weights[name] = weights[name][:9]
    pipeline.model = Bert.load(write(tmp_path / "few", weights, few))
    with pytest.raises(ModelError, match=r"text 1: token ids .*: must be 0 to 8"):
        pipeline(["the cat is good"])


@pytest.mark.parametrize("dialect", ["parts", "fused"])
def test_onnx_gives_the_same_bits(tmp_path: Path, dialect: str) -> None:
    folder = model_folder(tmp_path / "a")
    real = load_model(folder)
    home = write_tokenizer(_made(tmp_path / "b"))
    (home / "onnx").mkdir()
    path = home / "onnx" / "model.onnx"
    onnx.save(EncoderWriter(real.bert, DIALECTS[dialect]).write(), path)
    found = load_model(path)
    assert same(found.bert, real.bert)
    assert found.head == real.head
    assert found.folder == home
    ids = [Tokenizer(folder)(text, 40) for text in TEXTS]
    a, b = (calibrate(model.bert, ids, moments=True) for model in (real, found))
    assert same(a, b)
    assert same(quantize(real.bert, a).layers, quantize(found.bert, b).layers)


def pooled_onnx(bert: Bert, home: Path) -> tuple[Path, str, str, str]:
    """A file with three outputs, the last of which no machine has: hidden, first token, largest."""
    writer = EncoderWriter(bert, DIALECTS["plain"])
    writer.write()
    first = writer.b.op("Gather", writer.hidden, writer.b.const(0, np.int64), axis=1)
    largest = writer.b.op("ReduceMax", writer.hidden, writer.b.ints(1), keepdims=0)
    path = home / "model.onnx"
    onnx.save(writer.model([writer.hidden, first, largest]), path)
    return path, writer.hidden, first, largest


def test_outputs_of_onnx(tmp_path: Path) -> None:
    """What a graph does itself is not done again, or otherwise, by what lies beside it."""
    folder = model_folder(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    path, hidden, first, largest = pooled_onnx(load_model(folder).bert, folder)
    assert load_model(path, [hidden]).head == Pooling(mode="cls", unit=True)
    assert load_model(path, [first]).head == Pooling(mode="cls", unit=False)
    assert load_model(path, [hidden, first]).head == Pooling(mode="cls", unit=False)
    can = f"can be loaded: output {hidden} or {first}$"
    for outputs, match in (
        (None, rf"operator ReduceMax .* is not supported; {can}"),
        ([largest], rf"operator ReduceMax .* is not supported; {can}"),
        (["nothing"], rf"has no output 'nothing'; it has {hidden}, .*; {can}"),
        ([load_onnx(path, [hidden]).nodes[2].out], rf"no encoder.*; {can}"),
    ):
        with pytest.raises(ModelError, match=match) as caught:
            load_model(path, outputs)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"output 'x' of .*: only an ONNX file has outputs"):
        load_model(folder, ["x"])
    one = Pipeline.load(path, outputs=[first])(["the cat"])[0]
    np.testing.assert_array_equal(one.result, one.hidden[0])


def test_a_pooler_alone_is_no_embedding(tmp_path: Path) -> None:
    writer = EncoderWriter(load_model(model_folder(tmp_path)).bert, DIALECTS["plain"])
    writer.write()
    b, w = writer.b, np.eye(48, dtype=np.float32)
    first = b.op("Gather", writer.hidden, b.const(0, np.int64), axis=1)
    pooled = b.op("Tanh", b.op("Gemm", first, b.const(w), b.const(w[0])))
    path = tmp_path / "model.onnx"
    onnx.save(writer.model([pooled]), path)
    can = f"can be loaded: output {writer.hidden}"
    with pytest.raises(ModelError, match=rf"output {pooled}: no head that is known \(.*; {can}$"):
        load_model(path)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_models_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a known model"):
        load_model("nothing")
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "nothing.onnx")


# ---- the task -----------------------------------------------------------------------------------


def test_probe() -> None:
    """It finds a direction in noise, and what it predicts does not depend on a shift."""
    rng = np.random.default_rng(33)
    direction = rng.standard_normal(48)
    x = rng.standard_normal((600, 48)).astype(np.float32)
    positive = x @ direction + 0.5 * rng.standard_normal(600) > 0
    probe = Probe.fit(x[:400], positive[:400])
    assert (probe(x[400:]) == positive[400:]).mean() > 0.85
    moved = Probe.fit(x[:400] + 3, positive[:400])
    assert (moved(x[400:] + 3) == probe(x[400:])).all()
    with pytest.raises(ModelError, match="both positive and negative"):
        Probe.fit(x, np.ones(600, bool))


def _sentences(count: int) -> list[Sentence]:
    rng = np.random.default_rng(34)
    found = []
    for i in range(count):
        good = bool(rng.integers(2))
        words = rng.choice(["the", "cat", "dog", "house", "mat", "runs"], rng.integers(2, 8))
        text = " ".join([*words, "good" if good else "bad"])
        rating = 2.0 if good else -2.0
        found.append(Sentence(source="made", ident=str(i), rating=rating, text=text))
    return found


def test_sentiment_of_a_small_model(tmp_path: Path) -> None:
    pipeline = _pipeline(model_folder(tmp_path))
    made, told = _sentences(160), list[int]()
    found = measure(pipeline, made[:100], made[100:], progress=told.append)
    assert (found.train, found.test, told[-1]) == (100, 60, 220)
    assert found.fp32 > found.majority + 0.2
    assert found.engine > found.majority + 0.2
    assert found.changed >= abs(round((found.fp32 - found.engine) * found.test))
    with pytest.raises(ModelError, match="sentences to train"):
        measure(pipeline, [], made)
    tagger = model_folder(tmp_path, architectures=["BertForTokenClassification"])
    pipeline.head = load_model(tagger).head
    with pytest.raises(ModelError, match="sentence embeddings"):
        measure(pipeline, made, made)


def test_rated_sentences_are_clear_and_apart() -> None:
    train, test = rated(300, 500)
    assert (len(train), len(test)) == (300, 500)
    assert not {s.text for s in train} & {s.text for s in test}
    assert all(abs(s.rating) >= 1 for s in train + test)
    assert rated(100, 500)[1] == test
    with pytest.raises(ModelError, match="cannot draw"):
        rated(30_000, 10)


@pytest.mark.slow
def test_sentiment_of_minilm() -> None:
    """W8A8 within a point of fp32 on 500 sentences."""
    found = measure(Pipeline.load(resolve_model("minilm")), *rated(1000, 500))
    assert found.fp32 > found.majority + 0.15
    assert found.engine >= found.fp32 - POINT
