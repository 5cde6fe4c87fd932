"""Figures, trace and picture of a run; on a small layer in RTL, and on made-up spans."""

import json
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tilewright.hw.commands import Opcode, Unit
from tilewright.hw.config import preset_config
from tilewright.hw.encoding import Command
from tilewright.sim.trace import Span
from tilewright.sw.driver import Device
from tilewright.sw.driver.machine import RunResult
from tilewright.sw.errors import UserError
from tilewright.sw.profiling import perfetto, picture
from tilewright.sw.profiling.figures import GROUPS, UNITS, Profile
from tilewright.sw.profiling.work import parse_shape, shape_work
from tilewright.sw.program import Executable, OperationNames, Program

CONFIG = preset_config("tiny")
PEAK = CONFIG.rows * CONFIG.columns


@pytest.fixture(scope="module")
def profile() -> Profile:
    work = shape_work(
        "hidden=24,heads=2,ffn=40", CONFIG, sequence=13, precision="w8a16", tell=lambda text: None
    )
    with Device("verilator", CONFIG, spans=True) as device:
        outputs = device.load(work.executable).run(work.inputs, work.scalars)
    return Profile(executable=work.executable, result=outputs.result, scalars=work.scalars)


def made_up() -> Profile:
    """A load, two multiplications with a gap, a vector command under the second, a store."""
    move = {"length": 40, "runs": 3, "planes": 1, "sp_chunk": 1}
    body = [
        (Command(Opcode.LOAD, {"region": 1, **move}), "head 0 / qkv", (0, 20, 10, 5, 14)),
        (Command(Opcode.MATMUL, {}), "head 0 / qkv", (20, 60, 30, 21, 50)),
        (Command(Opcode.MATMUL, {}), "head 1 / qkv", (30, 100, 20, 71, 90)),
        (Command(Opcode.VECTOR, {}), "ffn1", (60, 85, 5, 61, 80)),
        (Command(Opcode.STORE, {"region": 1, **move}), "ffn1", (90, 118, 10, 95, 110)),
    ]
    operations = OperationNames.of(
        [name for _, name, _ in body], {"head 0 / qkv": 240, "head 1 / qkv": 80}
    )
    executable = Executable(
        config=CONFIG,
        program=Program(CONFIG, [command for command, _, _ in body]),
        regions={1: 4096},
        metadata={"macs": 320, "operations": operations.to_metadata()},
    )
    spans = tuple(
        Span(
            index=index,
            unit=command.unit,
            start=start,
            end=end,
            busy=busy,
            first_busy=first,
            last_busy=last,
        )
        for index, (command, _, (start, end, busy, first, last)) in enumerate(body, start=1)
    )
    return Profile(
        executable=executable,
        result=RunResult(cycles=120, commands=7, counters={}, seconds=0.0, spans=spans),
    )


# ---- figures ----


def test_figures_of_made_up_spans() -> None:
    profile = made_up()
    qkv, ffn = profile.operations()
    assert (qkv["operation"], qkv["count"], qkv["commands"], qkv["macs"]) == ("qkv", 2, 3, 320)
    # From 21, where the array begins, to 60, and from 71 to 100.
    assert (qkv["start"], qkv["end"], qkv["cycles"]) == (21, 100, 68)
    assert qkv["utilization"] == pytest.approx(320 / PEAK / 68)
    # Up to 51 all but 30 cycles, up to 91 all but 20.
    assert (qkv["array"], qkv["lost"], qkv["load"], qkv["vector"]) == (50, 21 + 20, 10, 0)
    assert (qkv["loaded"], qkv["stored"], qkv["intensity"]) == (120, 0, 320 / 120)
    assert qkv["roofline"] == max(320 / PEAK, 120 / CONFIG.axi_bytes)
    assert qkv["bound"] == ("memory" if CONFIG.axi_bytes * 320 < PEAK * 120 else "compute")
    # Of the load's cycles, 5 to 14, none is among those of the work.
    assert qkv["active"] == 68 + 10
    assert qkv["attained"] == qkv["roofline"] / 78
    assert ffn["active"] == ffn["cycles"]
    assert (ffn["start"], ffn["end"], ffn["vector"], ffn["stored"]) == (61, 118, 5, 120)
    assert (ffn["array"], ffn["lost"]) == (0, 120 - 91)
    assert ffn["utilization"] is ffn["intensity"] is ffn["bound"] is ffn["attained"] is None
    names = [row["operation"] for row in profile.operations("head")]
    assert names == ["head 0 / qkv", "ffn1", "head 1 / qkv"], "in the order in which they begin"
    total = profile.total()
    assert (total["cycles"], total["macs"], total["array"], total["lost"]) == (120, 320, 50, 70)


def test_busy_is_spread_over_a_command() -> None:
    profile = made_up()
    edges = np.array([0, 21, 51, 71, 91, 120], dtype=np.float64)
    np.testing.assert_allclose(profile.busy(Unit.MATMUL, edges), [0, 1, 0, 1, 0])
    np.testing.assert_allclose(profile.busy(Unit.LOAD, np.array([0.0, 10, 20])), [0.5, 0.5])
    assert profile.busy(Unit.FETCH, edges).sum() == 0


@pytest.mark.parametrize(("preset", "hidden"), [("large", 64), ("huge", 96)])
def test_loads_ahead_are_part_of_what_is_attained(preset: str, hidden: int) -> None:
    """A few rows on a large array: loads take longest, and most of them run before the work."""
    config = preset_config(preset)
    work = shape_work(
        f"hidden={hidden},heads=2,ffn={2 * hidden}",
        config,
        sequence=3,
        precision="w8a8",
        tell=lambda text: None,
    )
    with Device("model", config, spans=True, values=False) as device:
        result = device.load(work.executable).run(work.inputs, work.scalars).result
    profile = Profile(executable=work.executable, result=result, scalars=work.scalars)
    for by in GROUPS:
        rows = [row for row in profile.operations(by) if row["bound"] is not None]
        assert any(row["cycles"] < row["roofline"] for row in rows), "nothing to show here"
        for row in [*rows, profile.total()]:
            assert row["cycles"] <= row["active"] <= result.cycles
            assert row["load"] <= row["active"]
            assert 0 < row["attained"] <= 1


@pytest.mark.parametrize("by", GROUPS)
def test_sums(profile: Profile, by: str) -> None:
    rows, total = profile.operations(by), profile.total()
    for name in ("commands", "macs", "array", "lost", "vector", "load", "store", "loaded"):
        assert sum(row[name] for row in rows) == total[name], name
    assert total["array"] + total["lost"] == total["cycles"] == profile.result.cycles
    assert total["macs"] == profile.executable.metadata["macs"]
    assert total["utilization"] == pytest.approx(
        profile.executable.utilization(profile.result.cycles)
    )
    assert total["commands"] == len(profile.executable.program) - 2
    for row in rows:
        assert 0 <= row["start"] < row["end"] <= profile.result.cycles
        assert 0 < row["cycles"] <= row["end"] - row["start"]
        assert row["utilization"] is None or 0 < row["utilization"] <= 1
        assert row["attained"] is None or 0 < row["attained"] <= 1
    json.dumps(rows)


def test_rows_of_a_layer(profile: Profile) -> None:
    kinds = [row["operation"] for row in profile.operations()]
    tail = {"output", "layernorm1", "ffn1", "ffn2", "layernorm2"}
    assert set(kinds) == {"qkv", "scores", "softmax", "context"} | tail
    assert len(kinds) == 9
    assert kinds[0] == "qkv"
    assert profile.operations("layer") == [
        {**row, "operation": row["operation"]} for row in profile.operations()
    ]
    assert len(profile.operations("head")) == 2 * 4 + 5


def test_units_add_up(profile: Profile) -> None:
    units = profile.units()
    assert [unit["unit"] for unit in units] == ["load", "matmul", "vector", "store"]
    for unit in units:
        assert sum(unit["reasons"].values()) == unit["cycles"] == profile.result.cycles
    assert sum(unit["commands"] for unit in units) == len(profile.steps)
    by_name = {unit["unit"]: unit for unit in units}
    total = profile.total()
    for name, key in (("matmul", "array"), ("load", "load"), ("store", "store")):
        assert by_name[name]["reasons"]["busy"] == total[key]
    reasons = by_name["vector"]["reasons"]
    assert reasons["busy"] + reasons["row"] == total["vector"]
    assert by_name["load"]["bytes"] == total["loaded"]


def test_a_program_without_operations() -> None:
    profile = made_up()
    plain = Executable(config=CONFIG, program=profile.executable.program, regions={1: 4096})
    (row,) = Profile(executable=plain, result=profile.result).operations()
    assert (row["operation"], row["commands"], row["macs"]) == ("program", 5, 0)


def test_backends_that_record_nothing() -> None:
    work = shape_work(
        "hidden=8,heads=1,ffn=8", CONFIG, sequence=3, precision="w8a8", tell=lambda text: None
    )
    with Device("iss", CONFIG, spans=True) as device:
        result = device.load(work.executable).run(work.inputs, work.scalars).result
    assert result.spans == ()
    assert Profile(executable=work.executable, result=result, scalars=work.scalars).steps == ()


# ---- the trace ----


def test_the_trace_is_in_its_format(profile: Profile) -> None:
    document: dict[str, Any] = json.loads(perfetto.to_bytes(profile))
    assert "cycle" in document["otherData"]["note"]
    events = document["traceEvents"]
    for event in events:
        assert event["ph"] in "MXbeC"
        assert isinstance(event["pid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] != "M":
            assert 0 <= event["ts"] <= profile.result.cycles
    commands = [event for event in events if event["ph"] == "X"]
    assert sorted(event["args"]["index"] for event in commands) == list(
        range(1, len(profile.steps) + 1)
    )
    for unit in UNITS:
        track = [event for event in commands if event["tid"] == unit]
        for one, other in pairwise(event for event in track if event["dur"]):
            assert one["ts"] + one["dur"] <= other["ts"], "bars of a track do not overlap"
        named = [e for e in events if e["name"] == "thread_name" and e["tid"] == unit]
        assert [event["args"]["name"] for event in named] == [unit.name]
    matmul = next(event for event in commands if event["cat"] == "MATMUL")
    assert matmul["name"] == "head 0 / qkv / MATMUL"
    assert matmul["args"]["m"] > 0
    assert matmul["args"]["mode"] in ("HIGH", "LOW")
    begun = {event["id"]: event["ts"] for event in events if event["ph"] == "b"}
    ended = {event["id"]: event["ts"] for event in events if event["ph"] == "e"}
    assert len(begun) == len(ended) == len(profile.executable.operations.names)
    assert all(begun[number] < ended[number] for number in begun)
    shares = [event["args"]["busy"] for event in events if event["ph"] == "C"]
    assert all(0 <= share <= 100.01 for share in shares)


# ---- the picture ----


def test_bars_are_merged() -> None:
    bars = [picture.Bar(*bar) for bar in (("a", 0, 5), ("a", 6, 8), ("b", 8, 9), ("a", 9, 10))]
    assert picture.merged(bars, 1) == [
        picture.Bar("a", 0, 8),
        picture.Bar("b", 8, 9),
        picture.Bar("a", 9, 10),
    ]
    assert len(picture.merged(bars, 0.5)) == 4
    assert picture.merged([], 1) == []


def test_window() -> None:
    profile = made_up()
    assert picture.window(profile, 0, 0) == (0, 120)
    assert picture.window(profile, 100, 50) == (100, 120)
    assert picture.window(profile, 10, 5) == (10, 15)
    for start, cycles in ((120, 0), (-1, 5), (0, -1)):
        with pytest.raises(UserError, match="cycles 0 to 119"):
            picture.window(profile, start, cycles)


@pytest.mark.parametrize("span", [(0, 0), (500, 300)])
def test_pictures(profile: Profile, span: tuple[int, int]) -> None:
    pytest.importorskip("matplotlib")
    span = picture.window(profile, *span)
    first = picture.pictures(profile, "a title", span)
    assert first == picture.pictures(profile, "a title", span), "equal runs give equal files"
    assert first["png"].startswith(b"\x89PNG")
    text = "".join(ElementTree.fromstring(first["svg"]).itertext())
    for word in ("a title", "LOAD", "MATMUL", "VECTOR", "STORE", "qkv"):
        assert word in text


# ---- sizes ----


def test_shapes() -> None:
    assert parse_shape("hidden=768, heads=12,ffn=3072") == {
        "hidden": 768,
        "heads": 12,
        "ffn": 3072,
        "head_dim": 64,
    }
    assert parse_shape("hidden=10,heads=3,ffn=8,head_dim=4")["head_dim"] == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hidden is missing"),
        ("hidden=8,heads=2", "ffn is missing"),
        ("hidden=8,heads=2,ffn=0", "ffn = '0'"),
        ("hidden=8,heads=2,ffn=x", "ffn = 'x'"),
        ("hidden=8,heads=2,fn=8", "'fn' must be one of hidden, heads, ffn, head_dim"),
        ("hidden=8,heads=3,ffn=8", "must be a multiple of heads"),
    ],
)
def test_shapes_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_shape(text)
