"""Evaluation: the fixed texts, resuming, engines, losses of operations, the search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.sw.small_bert import CONFIG, small_bert
from tilewright.hw.config import preset_config
from tilewright.sw.compiler.cost import layer_cycles, model_cycles
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.text import SOURCES, sentences
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import texts
from tilewright.sw.quantize.calibrate import calibrate, unseen_texts
from tilewright.sw.quantize.edges import edge_losses
from tilewright.sw.quantize.evaluation import (
    Evaluation,
    Ids,
    Memory,
    evaluate,
    evaluation_ids,
    layerwise,
    reference,
)
from tilewright.sw.quantize.jsonlines import JsonLines
from tilewright.sw.quantize.precision import Mode, ModelPrecision, parse_precision, uniform
from tilewright.sw.quantize.quantize import Quantizer
from tilewright.sw.quantize.reference import run_layer
from tilewright.sw.quantize.search import Point, _cheapest, _Step, search, search_ids


@pytest.fixture(scope="module")
def small() -> tuple[Bert, Quantizer, list[Ids]]:
    model = small_bert(31)
    rng = np.random.default_rng(31)
    ids = [rng.integers(0, CONFIG.vocab, n).astype(np.int32) for n in rng.integers(4, 40, 38)]
    return model, Quantizer(model, calibrate(model, ids[:30], moments=True)), ids[30:]


def test_the_texts_share_nothing() -> None:
    sets = {name: texts.indices(name) for name in ("calibration", "evaluation")}
    flat = [i for chosen in sets.values() for text in chosen for i in text]
    assert len(set(flat)) == len(flat)
    assert {name: len(chosen) for name, chosen in sets.items()} == {
        "calibration": 4 * 64 + 16,
        "evaluation": 4 * 45 + 20,
    }
    pool = sentences()
    for chosen in sets.values():
        for text in chosen:
            assert list(text) == list(range(text[0], text[0] + len(text)))
            assert len(text) == 1 or {pool[i].source for i in text} == {"nyt"}
    evaluation = sets["evaluation"]
    counted = [pool[text[0]].source for text in evaluation if len(text) == 1]
    assert {source: counted.count(source) for source in SOURCES} == dict.fromkeys(SOURCES, 45)
    assert not set(unseen_texts(50)) & {pool[i].text for text in sets["calibration"] for i in text}


def test_passages_are_long() -> None:
    tokenizer = Tokenizer(resolve_model("minilm"))
    lengths = [len(tokenizer(text, 512)) for text in texts.texts("evaluation")[9::10]]
    assert len(lengths) == 20
    assert all(100 <= length <= 128 for length in lengths)
    assert max(len(ids) for ids in evaluation_ids(tokenizer, 20)) <= 128


def test_the_texts_are_what_their_command_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked_in = {name: texts.indices(name) for name in ("calibration", "evaluation")}
    pool = sentences()
    calibration = texts.draw_calibration(pool)
    assert calibration == checked_in["calibration"]
    used = {i for text in calibration for i in text}
    tokenizer = Tokenizer(resolve_model("minilm"))
    drawn = texts.draw_evaluation(pool, used, tokenizer)
    assert drawn == checked_in["evaluation"]
    texts.write("evaluation", drawn, tmp_path)
    folder = Path(texts.__file__).parent / "data"
    assert (tmp_path / "evaluation.json").read_text() == (folder / "evaluation.json").read_text()


def test_counts_of_texts() -> None:
    assert texts.texts("evaluation", 3) == texts.texts("evaluation")[:3]
    for count in (0, 201):
        with pytest.raises(ModelError, match=rf"{count} evaluation texts: must be 1 to 200"):
            texts.texts("evaluation", count)


def test_metrics() -> None:
    rng = np.random.default_rng(32)
    want = rng.standard_normal((6, 8)).astype(np.float32)
    same = Evaluation(got=2 * want, want=want)
    assert same.summary.worst == pytest.approx(1)
    assert same.spearman == pytest.approx(1)
    turned = want.copy()
    turned[2] *= -1
    assert Evaluation(got=turned, want=want).summary.worst == pytest.approx(-1)
    assert Evaluation(got=turned, want=want).spearman < 0.9


class Stopped(Exception):
    pass


@pytest.mark.parametrize("torn", ["", '{"text": "8', "\x00\x00"])
def test_resuming(small: tuple[Bert, Quantizer, list[Ids]], tmp_path: Path, torn: str) -> None:
    """Interrupted anywhere, also within a line: nothing is lost and nothing computed twice."""
    model, quantizer, sequences = small
    quantized = quantizer("w8a8")
    golden = reference(quantized)
    whole = evaluate(model, quantized, sequences)
    store = tmp_path / "results" / "w8a8.jsonl"
    calls: list[int] = []

    def engine(x: np.ndarray, length: int) -> np.ndarray:
        calls.append(length)
        if len(calls) in (4, 7):
            raise Stopped
        return golden(x, length)

    for _ in range(2):
        with pytest.raises(Stopped):
            evaluate(model, quantized, sequences, engine=engine, store=store)
        with store.open("a") as file:
            file.write(torn)
    done: list[tuple[int, int]] = []
    again = evaluate(
        model,
        quantized,
        sequences,
        engine=engine,
        store=store,
        progress=lambda *state: done.append(state),
    )
    assert done == [(i + 1, 8) for i in range(8)]
    # Each text once, and the two at which it was stopped once more.
    assert calls == [len(ids) for i, ids in enumerate(sequences) for _ in range(1 + (i in (3, 5)))]
    np.testing.assert_array_equal(again.got, whole.got)
    np.testing.assert_array_equal(again.want, whole.want)
    lines = [json.loads(line) for line in store.read_text().splitlines()]
    assert len(lines) == 9
    assert len({line["text"] for line in lines[1:]}) == 8
    assert [line["cosine"] for line in lines[1:]] == pytest.approx(whole.cosines.tolist())


def test_results_of_another_model_are_refused(
    small: tuple[Bert, Quantizer, list[Ids]], tmp_path: Path
) -> None:
    model, quantizer, sequences = small
    store = tmp_path / "results.jsonl"
    evaluate(model, quantizer("w8a8"), sequences[:1], store=store)
    with pytest.raises(ModelError, match="holds results of"):
        evaluate(model, quantizer("w8a16"), sequences[:1], store=store)
    with pytest.raises(ModelError, match="holds results of"):
        evaluate(model, quantizer("w8a8"), sequences[:1], store=store, name="rtl")
    lines = store.read_text().splitlines()
    store.write_text(lines[0] + "\n{}\n")
    with pytest.raises(ModelError, match="line 2 is damaged"):
        evaluate(model, quantizer("w8a8"), sequences[:1], store=store)
    store.write_text(lines[0] + "\n[1]\n")
    with pytest.raises(ModelError, match="no JSON object"):
        evaluate(model, quantizer("w8a8"), sequences[:1], store=store)
    with pytest.raises(ModelError, match="at least one text"):
        evaluate(model, quantizer("w8a8"), [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"my": "only copy"}', "holds no results"),
        ('{"my": "only copy"}\n{"its": "la', "holds results of"),
        ("a\nb", "cannot read"),
    ],
)
def test_somebody_else_s_file_stays(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "precious.json"
    file.write_text(content)
    with pytest.raises(ModelError, match=message):
        JsonLines(file, {"search": "1"})
    assert file.read_text() == content


def test_a_header_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    file = tmp_path / "points.jsonl"
    for cut in ("", "{", '{"search": "1"}'):
        file.write_text(cut)
        assert JsonLines(file, {"search": "1"}).records == []
        assert file.read_text() == '{"search": "1"}\n'


def test_a_padding_engine(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    """An engine of a fixed sequence pads; one that runs wrong is seen."""
    model, quantizer, sequences = small
    quantized = quantizer("w8a8")

    def padded(index: int, x: np.ndarray, length: int) -> np.ndarray:
        whole = np.full((40, CONFIG.hidden), 77, np.int16)
        whole[:length] = x[:length]
        return run_layer(quantized.layers[index], whole, length)

    want = evaluate(model, quantized, sequences)
    got = evaluate(model, quantized, sequences, engine=layerwise(padded, 2))
    np.testing.assert_array_equal(got.got, want.got)
    wrong = evaluate(
        model, quantized, sequences, engine=lambda x, _: np.roll(reference(quantized)(x, len(x)), 1)
    )
    assert wrong.summary.mean < 0.9


def test_memory(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    model, quantizer, sequences = small
    memory = Memory(limit=20)
    for text in ("w8a8", "w8a8,1.ffn2=w8a16", "w8a8", "w8a16"):
        quantized = quantizer(text)
        got = memory.evaluate(model, quantized, sequences)
        want = evaluate(model, quantized, sequences)
        np.testing.assert_array_equal(got.got, want.got)
        np.testing.assert_array_equal(got.want, want.want)


def test_edge_losses(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    _, quantizer, sequences = small
    rows = list(edge_losses(quantizer, sequences, parse_precision("w8a8", 2)))
    names = [(row.operation, row.layer) for row in rows]
    assert names == [(None, None)] + [
        (operation, layer)
        for operation in ("qkv", "o", "ffn1", "ffn2", "attention")
        for layer in (None, 0, 1)
    ]
    assert [row.width for row in rows[:2]] == ["w16a16", "w8a8"]
    assert rows[-1].width == "8"
    floor = rows[0].loss
    by = {name: row.loss for name, row in zip(names, rows, strict=True)}
    for operation in ("qkv", "o", "ffn1", "ffn2", "attention"):
        parts = by[operation, 0] + by[operation, 1]
        assert by[operation, None] > floor
        # Losses of independent roundings add up.
        assert 0.5 * parts < by[operation, None] < 2 * parts
    # What is 16 bits wide is not a row, and precisions of another model are refused.
    mixed = parse_precision("w16a16,0.ffn2=w4a8", 2)
    rows = list(edge_losses(quantizer, sequences, mixed, each_layer=False))
    assert [(row.operation, row.width) for row in rows] == [
        (None, "w16a16"),
        ("ffn2", "w4a8/w16a16"),
    ]
    with pytest.raises(ModelError, match="3 layers"):
        next(edge_losses(quantizer, sequences, uniform(Mode.W8A8, 3)))


def _cost(precision: ModelPrecision) -> int:
    machine = preset_config("default")
    return model_cycles(machine, CONFIG.hidden, CONFIG.heads, CONFIG.ffn, 32, precision)


def test_search(small: tuple[Bert, Quantizer, list[Ids]], tmp_path: Path) -> None:
    _, quantizer, sequences = small
    start = uniform(Mode.W8A8, 2)
    ends = [
        evaluate(quantizer.model, quantizer(text), sequences).summary.mean
        for text in ("w8a8", "w8a16")
    ]
    target = 0.5 * ends[0] + 0.5 * ends[1]
    store = tmp_path / "points.jsonl"
    seen: list[Point] = []

    def stop(point: Point) -> None:
        seen.append(point)
        if len(seen) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        search(quantizer, sequences, _cost, target=target, start=start, store=store, report=stop)
    found = search(quantizer, sequences, _cost, target=target, start=start, reserve=0, store=store)
    lines = [json.loads(line)["precision"] for line in store.read_text().splitlines()[1:]]
    assert lines == [point.text for point in found.points]
    assert [p.mean for p in found.points[:5]] == [p.mean for p in seen]
    assert found.met
    assert found.best.mean >= target
    # Half of the loss is gained by well below half of the cycles.
    narrow, wide = _cost(start), _cost(uniform(Mode.W8A16, 2))
    assert 0 < found.best.cycles - narrow < 0.4 * (wide - narrow)
    # Behind the start, everything and each step held back, the first guess is near already.
    assert 0 < found.points[12].cycles - narrow < 0.5 * (wide - narrow)
    summary = evaluate(quantizer.model, quantizer(found.best.precision), sequences).summary
    assert (summary.mean, summary.worst) == (found.best.mean, found.best.worst)
    cheaper = [p for p in found.points if p.cycles < found.best.cycles]
    assert all(p.mean < target for p in cheaper)


def test_the_cheapest_steps_are_exact() -> None:
    """The knapsack against all subsets."""
    rng = np.random.default_rng(33)
    for _ in range(30):
        steps = [
            _Step(
                layer=i,
                operation="o",
                width=Mode.W8A16,
                gain=float(rng.integers(-2, 20)),
                cycles=int(rng.integers(0, 9)),
            )
            for i in range(8)
        ]
        sets = [[s for i, s in enumerate(steps) if chosen >> i & 1] for chosen in range(256)]
        for wanted in (0.5, 20.0, 55.0, 400.0):
            enough = [s for s in sets if sum(step.gain for step in s) >= wanted]
            found = _cheapest(steps, wanted)
            assert (found is None) == (not enough)
            if found is not None:
                assert sum(step.gain for step in found) >= wanted
                best = min(sum(step.cycles for step in s) for s in enough)
                assert sum(step.cycles for step in found) == best


def test_search_beyond_one_step(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    """A target W8A16 misses takes 16-bit weights; one that nothing meets gives the best."""
    _, quantizer, sequences = small
    start = uniform(Mode.W8A8, 2)
    ends = [
        evaluate(quantizer.model, quantizer(text), sequences[:4]).summary.mean
        for text in ("w8a16", "w16a16")
    ]
    target = 0.5 * ends[0] + 0.5 * ends[1]
    found = search(quantizer, sequences[:4], _cost, target=target, start=start, reserve=0)
    assert found.met
    assert Mode.W16A16 in {mode for layer in found.best.precision for mode in layer.modes()}
    hopeless = search(quantizer, sequences[:4], _cost, target=1 - 1e-9, start=start)
    assert not hopeless.met
    assert hopeless.best.text == "w16a16"
    met = search(quantizer, sequences[:4], _cost, target=0.5, start=start)
    assert [point.text for point in met.points] == ["w8a8"]
    for target in (0.0, 1.0):
        with pytest.raises(ModelError, match="target"):
            search(quantizer, sequences, _cost, target=target, start=start)
    with pytest.raises(ModelError, match="reserve"):
        search(quantizer, sequences, _cost, target=0.9, start=start, reserve=1.0)


def test_search_texts_are_not_the_evaluation() -> None:
    tokenizer = Tokenizer(resolve_model("minilm"))
    evaluation = {ids.tobytes() for ids in evaluation_ids(tokenizer)}
    chosen = search_ids(tokenizer, 64)
    assert len({ids.tobytes() for ids in chosen}) == 64
    assert not evaluation & {ids.tobytes() for ids in chosen}
    assert sum(len(ids) == 128 for ids in chosen) >= 3


def test_cost() -> None:
    """By the cycle model; what the array alone takes is in docs/architecture.md."""

    def cycles(text: str) -> int:
        precision = parse_precision(text, 1)[0]
        return layer_cycles(preset_config("default"), 384, 12, 1536, 128, precision)

    base = cycles("w8a8")
    assert base == pytest.approx(933_888, rel=0.02)
    assert cycles("w8a8,ffn2=w8a16") - base == pytest.approx(294_912, rel=0.05)
    # The vector unit's part in it, the rows' maxima above all, is not all hidden.
    assert 4 * 24_576 < cycles("w8a8,attention=16") - base < 6 * 24_576
    assert (
        model_cycles(preset_config("default"), 384, 12, 1536, 128, parse_precision("w8a8", 3))
        == 3 * base
    )


def test_further_texts_are_in_no_set() -> None:
    fixed = {
        i for name in ("calibration", "evaluation") for text in texts.indices(name) for i in text
    }
    known = {sentences()[i].text for i in fixed}
    more = texts.further(300)
    assert len(set(more)) == 300
    assert not known & set(more)
    with pytest.raises(ModelError, match="further texts: must be at most"):
        texts.further(10**6)
