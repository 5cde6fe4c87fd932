"""fp32 BERT: loading and its errors, the forward against float64, tokenizing, text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.sw.small_bert import CONFIG, JSON, small_bert, tensors, write
from tilewright.sw.models import text
from tilewright.sw.models.bert import Bert, BertConfig
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import fetch, resolve_model
from tilewright.sw.models.functions import erf, mean_pool, silu
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import texts


def _forward64(
    w: dict[str, npt.NDArray[np.float32]], ids: list[int], config: BertConfig
) -> npt.NDArray[np.float64]:
    """An independent float64 forward of one sentence, straight from the checkpoint's names."""

    def get(name: str) -> npt.NDArray[np.float64]:
        return w[name].astype(np.float64)

    def linear(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        out: npt.NDArray[np.float64] = x @ get(name + ".weight").T + get(name + ".bias")
        return out

    def norm(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        rows = []
        for row in x:
            d = row - row.mean()
            scaled = d / math.sqrt((d * d).mean() + config.eps)
            rows.append(scaled * get(name + ".weight") + get(name + ".bias"))
        return np.stack(rows)

    x = get("embeddings.word_embeddings.weight")[ids]
    x = x + get("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + get("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    d = config.hidden // config.heads
    for i in range(config.layers):
        at = f"encoder.layer.{i}."
        q, k, v = (linear(x, f"{at}attention.self.{n}") for n in ("query", "key", "value"))
        context = np.zeros_like(x)
        for head in range(config.heads):
            part = slice(head * d, (head + 1) * d)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(d))
            context[:, part] = scores / scores.sum(axis=1, keepdims=True) @ v[:, part]
        x = norm(
            x + linear(context, at + "attention.output.dense"), at + "attention.output.LayerNorm"
        )
        h = linear(x, at + "intermediate.dense")
        h = np.vectorize(lambda t: t / 2 * (1 + math.erf(t / math.sqrt(2))))(h)
        x = norm(x + linear(h, at + "output.dense"), at + "output.LayerNorm")
    return x


def test_forward_against_float64() -> None:
    weights = tensors(3)
    ids = np.random.default_rng(3).integers(0, CONFIG.vocab, 17)
    y = small_bert(3).forward(ids)[-1].y
    assert np.abs(y - _forward64(weights, ids.tolist(), CONFIG)).max() < 2e-5


def test_padding_changes_nothing() -> None:
    model = small_bert(4)
    ids = np.random.default_rng(4).integers(0, CONFIG.vocab, (2, 12))
    mask = np.arange(12) < np.array([[7], [12]])
    padded = model.forward(ids, mask)[-1].y
    alone = model.forward(ids[0, :7])[-1].y
    assert np.abs(padded[0, :7] - alone).max() < 1e-5
    assert np.abs(model.encode(ids, mask)[0] - mean_pool(alone, np.ones(7, bool))).max() < 1e-5


def test_erf_and_silu() -> None:
    x = np.linspace(-7, 7, 20001)
    want = np.array([math.erf(v) for v in x.tolist()])
    assert np.abs(erf(x.astype(np.float64)) - want).max() < 1e-11
    wide = np.array([-200, -1, 0, 1, 200], np.float32)
    assert np.allclose(silu(wide), [0, -0.26894142, 0, 0.73105858, 200])


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_load(tmp_path: Path, prefix: str) -> None:
    weights = {prefix + name: tensor for name, tensor in tensors(5).items()}
    weights["cls.predictions.bias"] = np.zeros(3, np.float32)
    model = Bert.load(write(tmp_path, weights))
    assert model.config == CONFIG
    assert np.array_equal(model.layers[1].ffn2.w, small_bert(5).layers[1].ffn2.w)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "relu"),
        ({"hidden_size": 50}, "no multiple of heads 4"),
        ({"num_hidden_layers": 0}, "layers = 0"),
        ({"hidden_size": "48"}, "hidden_size = '48'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"layer_norm_eps": None}, "bad entry"),
        ({"num_hidden_layers": 3}, "no tensor encoder.layer.2"),
        ({"vocab_size": 99}, "word_embeddings.weight has shape"),
    ],
)
def test_config_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write(tmp_path, tensors(6), {**JSON, **change})
    with pytest.raises(ModelError, match=message) as caught:
        Bert.load(folder)
    assert "\n" not in str(caught.value)


def test_config_without_key(tmp_path: Path) -> None:
    config = {key: value for key, value in JSON.items() if key != "vocab_size"}
    with pytest.raises(ModelError, match="vocab_size"):
        Bert.load(write(tmp_path, tensors(6), config))


def test_weights_refused(tmp_path: Path) -> None:
    weights = tensors(7)
    weights["encoder.layer.1.output.dense.bias"][3] = np.nan
    with pytest.raises(ModelError, match=r"layer\.1\.output\.dense\.bias holds NaN"):
        Bert.load(write(tmp_path, weights))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match="cannot read"):
        Bert.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read"):
        Bert.load(tmp_path)


def test_ids_refused() -> None:
    model = small_bert(8)
    with pytest.raises(ModelError, match=r"0 to 100: must be"):
        model.embed(np.array([0, 100]))
    with pytest.raises(ModelError, match="41 tokens"):
        model.embed(np.zeros(41, np.int32))


def test_minilm_tokens_and_similarity() -> None:
    """The real model tells related sentences from unrelated ones."""
    folder = resolve_model("minilm")
    model, tokenizer = Bert.load(folder), Tokenizer(folder)
    tokens = tokenizer.batch(
        ["A cat sits on the mat.", "A kitten rests on a rug.", "Share prices fell in Tokyo."], 16
    )
    assert tokens.ids[0, :9].tolist() == [101, 1037, 4937, 7719, 2006, 1996, 13523, 1012, 102]
    assert tokens.mask.sum(axis=-1).tolist() == [9, 9, 8]
    assert tokens.ids[0, 9:].tolist() == [0] * 7
    assert len(tokenizer("word " * 600, 512)) == 512
    e = model.encode(tokens.ids, tokens.mask)
    assert e[0] @ e[1] > 0.5 > 0.2 > e[0] @ e[2]
    with pytest.raises(ModelError, match="2 tokens"):
        tokenizer.batch(["x"], 2)


def test_sentences() -> None:
    found = text.sentences(fetch("sentences"))
    assert len(found) == len({s.text for s in found}) == 23619
    assert {s.source for s in found} == set(text.SOURCES)
    assert all(-4 <= s.rating <= 4 for s in found)


def test_draws_are_disjoint_and_stable() -> None:
    first, second = text.draw([20, 30], seed=9)
    text.check_disjoint([first, second])
    assert text.draw([20], seed=9)[0] == first
    assert text.draw([20], seed=10)[0] != first
    with pytest.raises(ModelError, match="share"):
        text.check_disjoint([first, [first[0]]])
    with pytest.raises(ModelError, match="cannot draw"):
        text.draw([2], seed=0, pool=first[:1])


def test_passages() -> None:
    found = text.passages(3, 300, seed=1)
    assert len(found) == 3
    assert all(len(p.split()) >= 300 for p in found)
    with pytest.raises(ModelError, match="passages of 300 words"):
        text.passages(10_000, 300, seed=1)


def test_text_refused(tmp_path: Path) -> None:
    for file in text.SOURCES.values():
        (tmp_path / file).write_text("1\t0.5\tgood\n")
    (tmp_path / text.SOURCES["nyt"]).write_text("1\tnot a number\tgood\n")
    with pytest.raises(ModelError, match="line 1 is damaged, must be"):
        text.sentences(tmp_path)
    (tmp_path / text.SOURCES["nyt"]).write_text("1\t0.5\tgood\n2\t0.5")
    with pytest.raises(ModelError, match=r"line 2 is damaged, .*type `tilewright fetch sentences`"):
        text.sentences(tmp_path)


def test_a_text_cache_with_fewer_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was cut at the end of a line."""
    few = text.sentences()[:99]
    monkeypatch.setattr(texts, "sentences", lambda: few)
    for name in ("calibration", "evaluation"):
        with pytest.raises(ModelError, match="sentences in the cache are damaged: it holds only"):
            texts.texts(name)
