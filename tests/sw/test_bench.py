"""The benchmark: what it draws, the bounds, the file it resumes from, the documents it writes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator

from tests.sw.small_bert import CONFIG, small_bert
from tilewright.hw.config import preset_config
from tilewright.hw.registers import COUNTERS as REGISTERS
from tilewright.sw.bench import drawn, error, layers, onnx_runtime, parts, peers, runs, speed
from tilewright.sw.bench.markdown import Table, insert, section
from tilewright.sw.bench.part import Part
from tilewright.sw.bench.parts import PARTS, Bench
from tilewright.sw.bench.results import Item, Results, Row, Unavailable
from tilewright.sw.bench.sizes import BERT_BASE, MINILM, Gemm, LayerSize, array_cycles, bus_cycles
from tilewright.sw.cli.bench import command
from tilewright.sw.driver.backends import BACKENDS
from tilewright.sw.errors import ResultError, UserError
from tilewright.sw.sources import source_hash

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def quiet(text: str) -> None:
    pass


# ---- sizes and bounds ----


def test_products_of_a_layer():
    assert MINILM.macs(128) == 933_888 * 256
    assert BERT_BASE.macs(128) == 3_637_248 * 256
    # Everything divides by 16, so that no pass is padded.
    assert array_cycles(MINILM.gemms(128), 16, 16) == 933_888


def test_padded_passes():
    gemms = [Gemm(name="", count=3, m=5, k=17, n=9), Gemm(name="", count=1, m=100, k=16, n=8)]
    assert array_cycles(gemms, 16, 8) == 3 * 2 * 2 * 16 + 100


def test_bus():
    assert bus_cycles(1000, 100, 16) == 63
    assert bus_cycles(100, 1000, 4) == 250


# ---- drawing ----


def test_drawn_layers():
    draws = [drawn.draw(index) for index in range(drawn.COUNT)]
    assert draws == [drawn.draw(index) for index in range(drawn.COUNT)]
    assert draws[0] != drawn.draw(0, seed=drawn.SEED + 1)
    for one in draws:
        assert 64 <= one.size.hidden <= 1024
        assert one.size.hidden == one.size.heads * one.size.head_dim
        assert 8 <= one.sequence <= 512
        assert 4 <= min(one.config.rows, one.config.columns) <= 64
    square = [one.config.rows == one.config.columns for one in draws]
    assert any(square) and not all(square)  # noqa: PT018


def test_random_programs():
    cases = error.cases(quick=False)
    assert [c.spec for c in cases] == [c.spec for c in error.cases(quick=False)]
    assert len(cases) == error.COUNT + 1
    assert {c.config for c in cases} == {*error.CONFIGS, preset_config("huge")}
    assert {c.latency for c in cases} == set(error.LATENCIES)
    assert {c.spec["what"] for c in cases} == {"layer", "matmul"}


def test_quick_is_less():
    for part in PARTS.values():
        assert 0 < len(part.items(True)) < len(part.items(False))


def test_keys_are_unique():
    items = Bench(Results(Path("nowhere"))).items(list(PARTS))
    assert len({item.key for item in items}) == len(items)


# ---- results ----


def an_item(calls: list[str], result: object = 1, **spec: object) -> Item:
    def measure(tell):
        calls.append("measured")
        if isinstance(result, Exception):
            raise result
        return {"value": result}

    return Item(part="p", spec=spec, sources=(), measure=measure, label="an item")


def test_measured_once(tmp_path, monkeypatch):
    calls: list[str] = []
    path = tmp_path / "out" / "results.jsonl"
    item = an_item(calls, a=1)
    monkeypatch.setattr("tilewright.sw.bench.results.source_hash", lambda names: "one")
    first = Results(path).measure(item, quiet)
    # Another process, later, with a line that was cut off.
    with path.open("ab") as file:
        file.write('{"key": "½'.encode()[:-1])
    assert Results(path).measure(item, quiet) == first
    assert calls == ["measured"]
    for _ in range(2):
        Results(path).measure(an_item(calls, a=2), quiet)
        assert len(calls) == 2
    monkeypatch.setattr("tilewright.sw.bench.results.source_hash", lambda names: "another")
    assert not Results(path).find([item])
    Results(path).measure(item, quiet)
    assert len(calls) == 3


def test_source_hash(tmp_path):
    def found() -> str:
        source_hash.cache_clear()
        return source_hash(("code", "one.py"), tmp_path)

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    (tmp_path / "one.py").write_text("1")
    before = found()
    (tmp_path / "code" / "notes.txt").write_text("no source")
    assert found() == before
    (tmp_path / "code" / "b.h").write_text("2")
    after = found()
    (tmp_path / "one.py").write_text("2")
    assert len({before, after, found()}) == 3


def fake_part(items: list[Item]) -> Part:
    return Part(
        name="p",
        about="nothing",
        items=lambda quick: items,
        tables=lambda found: [
            Table(title="T", header=["v"], rows=[[str(r.result["value"])] for r in found["p"]])
        ],
    )


@pytest.fixture
def fake(monkeypatch):
    calls: list[str] = []
    items = [
        an_item(calls, Unavailable("not here"), n=0),
        an_item(calls, ResultError("wrong"), n=1),
        an_item(calls, 42, n=2),
    ]
    monkeypatch.setattr(parts, "PARTS", {"p": fake_part(items)})
    return calls


def test_one_item_does_not_end_the_others(fake, tmp_path):
    bench = Bench(Results(tmp_path / "results.jsonl"))
    seen: list[bool] = []
    bench.measure(["p"], quiet, lambda item, ok: seen.append(ok))
    assert seen == [False, False, True]
    assert bench.skipped == [("an item", "not here")]
    assert bench.failed == [("an item", "wrong")]
    text = bench.markdown(["p"])
    assert "| 42 |" in text
    assert "- an item: not here" in text


def test_command(fake, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- bench p -->\nold\n<!-- end -->\nb\n")
    result = CliRunner().invoke(command, ["-o", str(tmp_path), "--page", str(page)])
    assert isinstance(result.exception, ResultError)
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["parts"]["p"][0]["result"] == {"value": 42}
    assert document["skipped"] == [{"item": "an item", "reason": "not here"}]
    text = page.read_text()
    assert text.startswith("a\n") and text.endswith("b\n")  # noqa: PT018
    assert "| 42 |" in text and "old" not in text  # noqa: PT018


@pytest.mark.parametrize("content", [b"<!-- bench p -->\nold\n", b"\xff"])
def test_a_page_that_cannot_be_filled_is_refused_first(fake, tmp_path, content):
    page = tmp_path / "page.md"
    page.write_bytes(content)
    result = CliRunner().invoke(command, ["-o", str(tmp_path), "--page", str(page)])
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(f"--page {page}: ")
    assert not fake
    assert page.read_bytes() == content


def test_a_generator_that_fails_does_not_end_the_others(monkeypatch, tmp_path):
    monkeypatch.setattr(speed.sys, "executable", "/bin/false")
    (item,) = (item for item in speed.items(quick=True) if item.spec["what"] == "generate")
    monkeypatch.setattr(parts, "PARTS", {"p": fake_part([item])})
    bench = Bench(Results(tmp_path / "results.jsonl"))
    bench.measure(["p"], quiet, lambda item, ok: None)
    ((_, reason),) = bench.failed
    assert "generate" in reason


def test_outputs_appear_whole(fake, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("<!-- bench p -->\n<!-- end -->\n")
    written: list[str] = []
    monkeypatch.setattr(
        "tilewright.sw.cli.bench.write_whole", lambda path, data: written.append(path.name)
    )
    CliRunner().invoke(command, ["-o", str(tmp_path), "--page", str(page)])
    assert written == ["bench.md", "page.md"]


def test_unknown_part():
    result = CliRunner().invoke(command, ["nothing"])
    assert "part 'nothing' is unknown" in str(result.exception)


# ---- documents ----


def test_table():
    table = Table(title="T", header=["a", "b"], rows=[["1", "x|y"]], notes=["A note."])
    assert table.markdown() == ("### T\n\n| a | b |\n| --- | --- |\n| 1 | x\\|y |\n\nA note.\n\n")
    text = section([table], "the command", ["abc", "def"])
    assert text.endswith("```sh\nthe command\n```\n\nMeasured on abc, def.\n")


def test_insert():
    page = "<!-- bench a -->\n1\n<!-- end -->\n<!-- bench b -->\n2\n<!-- end -->\n"
    once = insert(page, "b", r"\1 new" + "\n")
    assert once == page.replace("2\n", "\\1 new\n")
    assert insert(once, "b", "2\n") == page
    with pytest.raises(UserError, match="0 places marked <!-- bench c -->"):
        insert(page, "c", "")


def test_the_page_has_a_place_for_each_part():
    text = PAGE.read_text(encoding="utf-8")
    for name in PARTS:
        insert(text, name, "")


# ---- tables ----

COUNTERS = {
    "load": {"busy": 300, "token": 0, "memory": 0, "port": 0, "idle": 700},
    "matmul": {"busy": 600, "token": 350, "weights": 40, "hazard": 0, "drain": 0, "idle": 10},
    "vector": {"busy": 900, "token": 0, "operand": 0, "row": 50, "drain": 0, "idle": 50},
    "store": {"busy": 10, "token": 0, "memory": 0, "port": 0, "idle": 990},
}


def a_row(item: Item, cycles: int = 1000, **result: object) -> Row:
    values = {
        "cycles": cycles,
        "counters": COUNTERS,
        "onchip_bytes": 1024,
        "read_bytes": 1600,
        "write_bytes": 0,
        "cpu": 1.0,
        "wall": 2.0,
        "bytes": 4096,
        "rate": 1e5,
        **result,
    }
    return Row(key="", part=item.part, spec=item.spec, result=values, commit="c", seconds=1.0)


SMALL = drawn.Draw(
    size=LayerSize(name="small", hidden=8, heads=1, head_dim=8, ffn=8),
    sequence=4,
    config=drawn.machine(4, 4),
)
"""112 cycles of passes, 16 until the input is there."""


def why(one: drawn.Draw = SMALL, **changes: Any) -> str:
    item = layers.CASES[0].item(runs.MODEL)
    return drawn.reason(one, a_row(item, **{"read_bytes": 160, **changes}).result)


def test_reason_of_the_array():
    # Passes longer than counted; what others do; and the weights, but not a hundredth.
    first, padding, token, weights = why().split("; ")
    assert first == "bound by the array, which is at work in 60% of the cycles"
    assert padding.startswith("in 49% (488 cycles) its passes are longer")
    assert token.startswith("in 35% (350 cycles) it waits for other units (the vector unit with ")
    assert "taken in 95% by the softmax of 4 rows of one head" in token
    assert "no other head" in token
    assert "input" not in token
    assert weights == "in 4% (40 cycles) it waits for the weights of its next tile"
    longer = replace(SMALL, sequence=100, size=replace(SMALL.size, heads=2))
    assert "softmax of 100 rows of each of 2 heads" in why(longer)
    assert "no other head" not in why(longer)
    assert "the input takes 400 cycles to come" in why(longer)
    loading = {**COUNTERS, "load": {**COUNTERS["load"], "busy": 960, "idle": 40}}
    assert "it waits for other units (LOAD is taken in 96%)" in why(counters=loading)


def test_reason_of_the_bus():
    assert why(replace(SMALL, sequence=3), read_bytes=3600).split("; ") == [
        "bound by the bus: weights come for 3 rows, 4 would balance array and bus",
        "LOAD is at work in 30% of the cycles",
        "in 70% (700 cycles) it has no load to run, as behind the last one, when product, "
        "LayerNorm and store remain",
    ]
    text = why(read_bytes=3600, write_bytes=4000)
    assert text.startswith("bound by the bus; STORE is at work in 1% of the cycles; in 99%")


@pytest.mark.parametrize("unit", drawn.WAITS)
def test_every_wait_has_words(unit):
    assert {*drawn.WAITS[unit]} - {"padding"} == {*REGISTERS[unit]} - {"busy"}


def test_layer_tables():
    case = layers.CASES[0]
    rows = [
        a_row(case.item(runs.RTL), 1_000_000),
        a_row(case.item(runs.MODEL, 3), 3_000_000),
        a_row(case.item(runs.MODEL, 4), 3_940_000),
    ]
    (table,) = layers.tables({"layers": rows})
    assert table.rows[0][4:] == [
        "1,000,000",
        "933,888",
        "93.4%",
        "95%, missed",
        "940,000 (99.3%)",
    ]


def test_scaling_is_noted():
    rows = [
        a_row(layers.CASES[index].item(runs.RTL), cycles)
        for index, cycles in ((3, 11_600_000), (5, 750_000))
    ]
    (table,) = layers.tables({"layers": rows})
    assert "1/15.47" in table.notes[-1]


def test_drawn_tables():
    items = drawn.items(quick=False)
    found = [
        a_row(items[0], 10**9),
        a_row(items[1], drawn.draw(1).array_bound),
        Row(**{**vars(a_row(items[2])), "result": {"refused": "too small"}}),
    ]
    (table,) = drawn.tables({"drawn": found})
    assert table.rows[0][-1].startswith("bound by the array, ")
    assert list(table.rows[1][-2:]) == ["1.000", ""]
    assert table.rows[2][-1] == "too small"
    assert table.notes[0].startswith("1 of 3 within")


def test_error_tables():
    case = error.cases(quick=False)[0]
    found = {
        "layers": [],
        "error": [a_row(case.item(runs.RTL), 1000), a_row(case.item(runs.MODEL), 1030)],
    }
    (table,) = error.tables(found)
    assert table.header[2] == "on chip"
    assert table.rows[0][1:] == [
        "tiny, 4×4",
        "103 KiB",
        "30",
        "1,000",
        "1,030",
        "3.00%, missed",
    ]
    assert "over 1 programs: at most 3.00%" in table.notes[0]


def test_peer_tables():
    items = peers.items(quick=False)
    timed = {"cpu": 0.01, "wall": 0.02, "least": 0.01}
    runtime: dict[str, Any] = {"onnxruntime": "1", "processor": "P", "cosine_int8": 0.99}
    found = {
        "layers": [],
        "peers": [
            a_row(items[0], 933_888),
            a_row(items[-2], fp32=timed, int8=timed, **runtime),
            a_row(items[-1], 5_000_000),
        ],
    }
    arrays, processors = peers.tables(found)
    assert arrays.rows == [["MiniLM", "128", "16×16", "647 KiB", "–", "–", "933,888 (100.0%)", "–"]]
    assert arrays.header[3] == "on chip"
    assert "`default`, 647 KiB on chip, takes 5,000,000 cycles" in processors.notes[-1]
    assert processors.rows[1] == ["int8", "10.0 ms", "20.0 ms", "500 MHz"]


def test_speed_tables():
    rows = [a_row(item) for item in speed.items(quick=False)]
    (table,) = speed.tables({"speed": rows})
    assert [row[0] for row in table.rows] == ["tiny", "small", "default", "large", "huge"]
    assert table.header[2] == "on chip"
    assert [row[2] for row in table.rows] == [
        "103 KiB",
        "199 KiB",
        "647 KiB",
        "1,287 KiB",
        "5,131 KiB",
    ]
    assert table.rows[2][5:] == ["2 s (≤ 120)", "1 s", "100,000 (≥ 100,000)"]


def test_peers_that_are_not_there(monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_PEERS", "/no/such/python")
    with pytest.raises(Unavailable, match="scripts/setup bench"):
        peers.ask(["x"])


# ---- runs ----


def test_run_in_rtl():
    work = runs.matmul_work(preset_config("tiny"), 8, 12, 4)
    figures = runs.run(work, runs.RTL, quiet, latency=50)
    usual = runs.run(work, runs.RTL, quiet)
    assert figures["cycles"] > usual["cycles"] > 8 * 3
    assert figures["macs"] == 8 * 12 * 4
    assert usual["read_bytes"] > 8 * 12 + 12 * 4
    assert usual["write_bytes"] == 8 * 4 * 4


def test_a_backend_that_is_not_there(monkeypatch):
    monkeypatch.delitem(BACKENDS, runs.MODEL, raising=False)
    with pytest.raises(Unavailable, match="there is no backend 'model'"):
        layers.CASES[0].item(runs.MODEL).measure(quiet)


def test_onnx_graph():
    bert, sequence = small_bert(3), 7
    ids = np.random.default_rng(3).integers(0, CONFIG.vocab, (1, sequence))
    model = onnx_runtime.Writer(bert, sequence).model()
    outputs: Any = ReferenceEvaluator(model).run(None, {"ids": ids})
    y = np.asarray(outputs[0], np.float32)
    np.testing.assert_allclose(y[0], bert.forward(ids[0])[-1].y, atol=1e-4)
    assert math.isclose(onnx_runtime.cosine(y[0], y[0]), 1, rel_tol=1e-5)
