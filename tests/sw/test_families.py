"""Families of encoders from safetensors: what `transformers` computes, and its integers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sw.families import CASES, FAMILIES, HEADS, Recorded, errors, recorded
from tests.sw.same import same
from tests.sw.small_tokenizer import write_byte_bpe, write_tokenizer, write_unigram
from tilewright.hw.config import preset_config
from tilewright.sw.driver.device import Device
from tilewright.sw.graph.model import load_model
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.families import FAMILIES as KNOWN
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.heads import SequenceClassifier, Span, left_out, load_head
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.pipeline.device import DeviceEngine
from tilewright.sw.pipeline.engine import ReferenceEngine
from tilewright.sw.pipeline.pipeline import Pipeline
from tilewright.sw.quantize.calibrate import calibrate
from tilewright.sw.quantize.file import load, save
from tilewright.sw.quantize.formats import HostEmbedding, QModel
from tilewright.sw.quantize.quantize import quantize

SEQUENCE = HEADS[0]


def test_every_case_is_recorded() -> None:
    assert set(recorded()) == set(CASES)
    assert set(FAMILIES) == set(KNOWN)


@pytest.mark.parametrize("name", CASES)
def test_as_transformers(name: str, tmp_path: Path) -> None:
    one = recorded()[name]
    assert max(errors(one, one.write(tmp_path))) < 1e-5


def _case(family: str) -> Recorded:
    return recorded()[f"{family} {SEQUENCE}"]


def _quantized(bert: Bert) -> QModel:
    rng = np.random.default_rng(51)
    ids = [rng.integers(5, bert.config.vocab, n) for n in (9, 12, 16)]
    return quantize(bert, calibrate(bert, ids, moments=True))


def _runs(quantized: QModel, one: Recorded, backend: str) -> tuple[list[Any], list[Any]]:
    """Output of the golden functions and of a machine, of two texts that share a program."""
    z = [quantized.embedding.look_up(one.ids, one.types), quantized.embedding.look_up(one.ids[:4])]
    lengths = [len(row) for row in z]
    with Device(backend, preset_config("tiny")) as device:
        found = DeviceEngine(quantized, device, effort=1).encode(z, lengths)
    return ReferenceEngine(quantized).encode(z, lengths), found


@pytest.mark.parametrize("family", FAMILIES)
def test_integers(family: str, tmp_path: Path) -> None:
    """The machine's bits are the golden functions', and near the fp32 model."""
    one = _case(family)
    quantized = _quantized(Bert.load(one.write(tmp_path)))
    save(quantized, tmp_path / "model.npz")
    assert same(load(tmp_path / "model.npz"), quantized)
    reference, found = _runs(quantized, one, "iss")
    for want, got in zip(reference, found, strict=True):
        np.testing.assert_array_equal(got, want)
    real = quantized.layers[-1].output.to_real(reference[0])
    assert (real * one.hidden).sum() > 0.995 * np.linalg.norm(real) * np.linalg.norm(one.hidden)


def test_integers_of_a_projected_embedding_in_rtl(tmp_path: Path) -> None:
    one = _case("electra")
    quantized = _quantized(Bert.load(one.write(tmp_path)))
    assert isinstance(quantized.embedding, HostEmbedding)
    reference, found = _runs(quantized, one, "verilator")
    for want, got in zip(reference, found, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_projected_embedding_is_rounded_once(tmp_path: Path) -> None:
    one = _case("albert")
    bert = Bert.load(one.write(tmp_path))
    quantized = _quantized(bert)
    state = quantized.layers[0].input
    got = quantized.embedding.look_up(one.ids, one.types)
    off = state.to_real(got) - bert.embed(one.ids, one.types)
    assert np.abs(off / (state.scale * state.smooth)).max() < 0.51
    np.testing.assert_array_equal(quantized.embedding.look_up(one.ids[None])[0][:5], got[:5])


def test_layers_that_share_weights_are_one_object(tmp_path: Path) -> None:
    bert = Bert.load(recorded()["albert, groups of layers"].write(tmp_path))
    assert bert.config.layers == 6
    a, b, c, d, e, f = bert.layers
    assert (a, b) == (c, d)
    assert len({id(layer) for layer in (a, b, e, f)}) == 4


@pytest.mark.parametrize(
    ("family", "positions", "padding"),
    [("bert", 20, None), ("roberta", 18, 1), ("camembert", 16, 3), ("albert", 20, None)],
)
def test_positions(family: str, positions: int, padding: int | None, tmp_path: Path) -> None:
    """Rows up to the padding's are no positions of tokens."""
    bert = Bert.load(_case(family).write(tmp_path))
    assert (bert.config.positions, bert.config.padding) == (positions, padding)
    assert len(bert.embedding.position) == positions
    with pytest.raises(ModelError, match=f"tokens: must be at most {positions}"):
        bert.embed(np.full(positions + 1, 7))


def _changed(one: Recorded, config: dict[str, Any], **tensors: list[int] | None) -> Recorded:
    raw = {key: value for key, value in {**one.config, **config}.items() if value != "missing"}
    names = {name.replace("__", "."): shape for name, shape in tensors.items()}
    shapes = {name: shape for name, shape in {**one.shapes, **names}.items() if shape is not None}
    return dataclasses.replace(one, config=raw, shapes=shapes)


@pytest.mark.parametrize(
    ("family", "config", "tensors", "match"),
    [
        ("roberta", {"pad_token_id": None}, {}, "pad_token_id = None: must be an integer"),
        ("roberta", {"pad_token_id": 19}, {}, "positions = 0: must be"),
        ("roberta", {"pad_token_id": 2}, {}, None),
        ("bert", {"model_type": "mpnet"}, {}, "model_type 'mpnet' is not supported, only bert, "),
        ("bert", {"model_type": ["bert"]}, {}, r"model_type \['bert'\] is not supported"),
        ("distilbert", {"dim": "missing"}, {}, "config.json has no dim"),
        ("distilbert", {"activation": "relu"}, {}, "activation 'relu' is not supported"),
        (
            "distilbert",
            {},
            {"distilbert__transformer__layer__2__ffn__lin1__bias": [24]},
            r"has a tensor transformer\.layer\.2\.ffn\.lin1\.bias",
        ),
        (
            "electra",
            {},
            {"electra__embeddings_project__bias": None},
            r"no tensor embeddings_project\.bias",
        ),
        ("electra", {"embedding_size": 16}, {}, r"has shape \[40, 8\]: must have \[40, 16\]"),
        ("ernie", {"use_task_id": False}, {}, r"has a tensor embeddings\.task_type_embeddings"),
        ("ernie", {"task_type_vocab_size": 2}, {}, r"has shape \[3, 16\]: must have \[2, 16\]"),
        ("albert", {"num_hidden_groups": 0}, {}, "num_hidden_groups = 0: must be an integer"),
        ("albert", {"inner_group_num": 2}, {}, r"no tensor encoder\.albert_layer_groups\.0\.alb"),
        ("albert", {"num_hidden_groups": 2}, {}, r"no tensor encoder\.albert_layer_groups\.1\.alb"),
    ],
)
def test_refused(
    family: str,
    config: dict[str, Any],
    tensors: dict[str, list[int] | None],
    match: str | None,
    tmp_path: Path,
) -> None:
    folder = _changed(_case(family), config, **tensors).write(tmp_path)
    if match is None:
        Bert.load(folder)
        return
    with pytest.raises(ModelError, match=match) as caught:
        Bert.load(folder)
    assert "\n" not in str(caught.value)


def test_old_configurations(tmp_path: Path) -> None:
    """What a configuration may leave out has the family's value, not BERT's."""
    one = _changed(_case("albert"), {"hidden_act": "missing", "num_hidden_groups": "missing"})
    assert Bert.load(one.write(tmp_path)).config.tanh_form
    old = {"hidden_size": 16, "dim": "missing", "n_layers": "missing", "num_hidden_layers": 2}
    one = _changed(_case("distilbert"), old)
    assert same(
        Bert.load(one.write(tmp_path / "old")), Bert.load(_case("distilbert").write(tmp_path / "b"))
    )


@pytest.mark.parametrize(
    ("family", "function"),
    [("bert", "tanh"), ("roberta", "tanh"), ("distilbert", "relu"), ("electra", "gelu")],
)
def test_functions_of_classifiers(family: str, function: str, tmp_path: Path) -> None:
    head = load_head(_case(family).write(tmp_path))
    assert isinstance(head, SequenceClassifier)
    assert head.function == function
    with pytest.raises(ModelError, match=r"function 'elu' of a head: must be one of gelu, .*relu"):
        dataclasses.replace(head, function="elu")


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_are_not_run(family: str, tmp_path: Path) -> None:
    kind = FAMILIES[family][0]
    for task in ("ForMaskedLM", "ForNextSentencePrediction", "ForMultipleChoice", "ForPreTraining"):
        folder = _changed(_case(family), {"architectures": [kind + task]}).write(tmp_path)
        assert left_out(folder) == kind + task
        assert load_head(folder) is not None
    for architectures in ([kind + "Model"], [], None, [kind + SEQUENCE]):
        folder = _changed(_case(family), {"architectures": architectures}).write(tmp_path)
        assert left_out(folder) is None
    folder = _changed(_case(family), {"architectures": [kind + "ForMaskedLM"]}).write(tmp_path)
    (folder / "modules.json").write_text(json.dumps([]))
    assert left_out(folder) is None


def _pipeline(folder: Path, texts: list[str]) -> Pipeline:
    model, tokenizer = load_model(folder), Tokenizer(folder)
    quantized = quantize(
        model.bert, calibrate(model.bert, [tokenizer(t, 16) for t in texts], moments=True)
    )
    return Pipeline(model=model.bert, tokenizer=tokenizer, head=model.head, quantized=quantized)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert"])
def test_answers_without_token_types(family: str, tmp_path: Path) -> None:
    """The context is told by the tokenizer's sequences; the pad token is refused in a text."""
    one = recorded()[f"{family} ForQuestionAnswering"]
    word = next(name for name in one.shapes if "word_embeddings" in name)
    one = _changed(one, {"vocab_size": 300, "max_position_embeddings": 44})
    one.shapes[word] = [300, 16]
    one.shapes[word.replace("word", "position")] = [44, 16]
    folder = one.write(tmp_path)
    write_unigram(folder) if family == "xlm-roberta" else write_byte_bpe(folder)
    pipeline = _pipeline(folder, ["who sits", "the cats sits"])
    (output,) = pipeline([("who sits", "the cats sit")])
    assert isinstance(output.result, Span)
    assert output.tokens.second[[output.result.start, output.result.end]].all()
    assert output.answer
    assert output.answer in "the cats sit"
    want = pipeline.model.forward(output.tokens.ids)[-1].y
    assert (output.hidden * want).sum() > 0.99 * (want * want).sum()
    if family != "camembert":
        with pytest.raises(ModelError, match="text 1: the text holds the padding token 1"):
            pipeline([("who", "the <pad> cat")])
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    pipeline.tokenizer = Tokenizer(folder)
    assert pipeline.limit == 6
    with pytest.raises(ModelError, match=r"text 1: the text has \d+ tokens: must be at most 6"):
        pipeline([("who sits", "the cats sit")])


def test_types_a_model_has_no_table_of(tmp_path: Path) -> None:
    """DistilBERT's tokenizer tells pairs by types, which the model does not read."""
    one = recorded()["distilbert ForSequenceClassification"]
    pipeline = _pipeline(write_tokenizer(one.write(tmp_path)), ["the cat", "a dog"])
    (output,) = pipeline([("the cat", "a dog")])
    assert output.tokens.second.any()
    assert not output.tokens.types.any()


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = _case("bert").write(tmp_path / "a model")
    for name in ("pytorch_model.bin", "pytorch_model-00001-of-00002.bin"):
        (folder / "model.safetensors").rename(folder / name)
        with pytest.raises(
            ModelError, match=r"convert it with: cd '.*a model' && python -c"
        ) as caught:
            resolve_model(folder)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        (folder / name).rename(folder / "model.safetensors")
    (folder / "pytorch_model.bin").touch()
    assert resolve_model(folder) == folder
