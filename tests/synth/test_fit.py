"""Which machines fit which boards: the table, from stubbed, cached and real syntheses."""

import json

import pytest
from click.testing import CliRunner

from tilewright.hw.config import PRESETS, Config, preset_config
from tilewright.sw.cli import call as tilewright
from tilewright.sw.cli import cli, fit
from tilewright.synth import boards, timing, tools, yosys
from tilewright.synth.boards import BOARDS, Need, at_least, needed
from tilewright.synth.targets import TARGETS
from tilewright.synth.units import units

LIMITS = Need(lut=83_640, ff=83_640, dsp=156, bram=208)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    # A narrow terminal folds the columns.
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def stub(monkeypatch):
    """Estimates of some of the resources of an ULX3S-85F at 50 MHz; gives what was asked for."""
    asked = []

    def estimate(board, config, folder, tell):
        asked.append((board.target, board.speed, config.name))
        need = {"lut": 8_364, "ff": 41_820, "dsp": 39, "bram": 52}
        return {"need": need, "period": 20.0}

    monkeypatch.setattr(fit, "_estimate", estimate)
    monkeypatch.setattr(tools, "need", lambda *names: None)
    return asked


def run(capsys, *words):
    assert tilewright(["fit", *words, "--json", "-"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out)["rows"], captured.err


def test_boards_hold_what_nextpnr_counts():
    assert BOARDS["ulx3s-85f"].holds == LIMITS
    assert {board.target for board in BOARDS.values()} <= set(TARGETS)
    for board in BOARDS.values():
        assert min(vars(board.holds).values()) > 0
        assert 0 < board.dram.share <= 1


def test_the_limit_is_the_largest_share():
    board = BOARDS["ulx3s-85f"]
    assert board.limit(Need(lut=83_640, ff=0, dsp=78, bram=0)) == ("lut", 1.0)
    assert board.limit(Need(lut=0, ff=0, dsp=312, bram=52)) == ("dsp", 2.0)


def test_beats_of_a_memory():
    dram = BOARDS["ulx3s-85f"].dram
    assert dram.beats(4, 47) == 1
    assert dram.beats(4, 94) == 0.5
    assert dram.beats(128, 10_000) == 0.001


def test_luts_of_the_device():
    ecp5, xc7 = TARGETS["ecp5"], TARGETS["xc7"]
    assert ecp5.device_luts({"LUT4": 3, "CCU2C": 2, "TRELLIS_DPR16X4": 1, "PFUMX": 9}) == 13
    assert xc7.device_luts({"LUT6": 3, "INV": 1, "CARRY4": 2, "RAM32M": 1, "FDRE": 9}) == 8


def test_a_line_says_what_fits_and_how_fast(stub, capsys):
    (row,), shown = run(capsys, "--board", "ulx3s-85f", "--preset", "tiny")
    assert row["fits"]
    assert row["limit"] == "FF 50%"
    assert (row["lut"], row["ff"], row["dsp"], row["bram"]) == (0.1, 0.5, 0.25, 0.25)
    assert row["clock"] == 50
    assert row["dram"] == 188
    assert row["rate"] is None
    assert "sequences/s" not in shown
    assert stub == [("ecp5", 6, "tiny")]


def test_an_estimate_is_made_once_for_a_target(stub, capsys):
    words = "--board", "ulx3s-85f,ulx3s-45f,orangecrab-85f,arty-a7-100t", "--preset", "tiny"
    for _ in range(2):
        rows, _ = run(capsys, *words)
        assert [row["board"] for row in rows] == words[1].split(",")
    assert stub == [("ecp5", 6, "tiny"), ("ecp5", 8, "tiny"), ("xc7", 1, "tiny")]


def test_what_does_not_fit_is_a_line(stub, capsys):
    """With its limit, and exit code 0; what is plain without a synthesis gets none."""
    rows, shown = run(capsys, "--board", "ulx3s-25f,ulx3s-85f", "--preset", "default")
    assert [row["fits"] for row in rows] == [False, False]
    assert rows[0]["limit"] == "DSP ≥ 914%"
    assert rows[1]["limit"] == "DSP ≥ 164%"
    assert rows[0]["lut"] is None
    assert rows[0]["clock"] is None
    assert stub == []
    (row,), _ = run(capsys, "--board", "ulx3s-25f", "--preset", "tiny", "--set", "sp_depth=64")
    assert row["limit"] == "FF 172%"
    assert (row["fits"], row["exact"]) == (False, True)
    assert "no" in shown


def test_all_boards_and_presets_by_default(stub, capsys):
    rows, _ = run(capsys)
    assert {(row["board"], row["machine"]) for row in rows} == {
        (board, preset) for board in BOARDS for preset in PRESETS
    }


def test_a_changed_machine_is_named_so(stub, capsys):
    (row,), _ = run(capsys, "--board", "kv260", "--preset", "tiny", "--set", "lanes=4")
    assert row["machine"] == preset_config("tiny").with_settings(["lanes=4"]).title != "tiny"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--board", "nosuch"], "--board: board 'nosuch' is unknown; one of ulx3s-25f, "),
        (["--board", "ulx3s-85f,"], "--board: board '' is unknown"),
        (["--preset", "nosuch"], "'nosuch' is unknown"),
        (["--preset", "tiny", "--config", "x.toml"], "exclude each other"),
        (["nosuch"], "nosuch"),
    ],
)
def test_bad_input_is_one_line(words, message, stub, capsys):
    assert tilewright(["fit", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_tool_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    assert tilewright(["fit", "--preset", "tiny", "--board", "ulx3s-85f"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'pyosys" in error
    assert error.count("\n") == 1


# With a model.


class Shape:
    """Two small layers."""

    layers, hidden, heads, ffn, positions = 2, 64, 2, 128, 64


@pytest.fixture
def model(monkeypatch):
    from types import SimpleNamespace

    from tilewright.sw.graph import model

    monkeypatch.setattr(
        model, "load_model", lambda where: SimpleNamespace(bert=SimpleNamespace(config=Shape))
    )


def test_sequences_a_second(stub, model, capsys):
    """The cycle model's cycles at the clock, with the board's memory."""
    from tilewright.sim.cycles import Memory
    from tilewright.sw.compiler.cost import model_cycles
    from tilewright.sw.quantize.precision import parse_precision

    words = "some", "--preset", "tiny", "--seq", "16", "--board"
    (row,), shown = run(capsys, *words, "ulx3s-85f")
    beats = round(188 / (4 * 50), 3)
    cycles = model_cycles(
        preset_config("tiny"),
        *(64, 2, 128, 16),
        parse_precision("w8a8", 2),
        Memory(latency=13, bandwidth=beats),
    )
    assert (row["cycles"], row["beats"]) == (cycles, beats)
    assert row["rate"] == pytest.approx(50e6 / cycles)
    assert "sequences/s" in shown
    words = "some", "--preset", "small", "--seq", "16", "--board"
    (slow, quick), _ = run(capsys, *words, "colorlight-i9,arty-a7-100t")
    assert (slow["bound"], quick["bound"]) == ("memory", "core")
    assert slow["rate"] < quick["rate"]


def test_a_model_beyond_the_memory_or_the_machine_has_no_rate(stub, model, monkeypatch, capsys):
    monkeypatch.setattr(Shape, "hidden", 4096)
    (row,), shown = run(capsys, "big", "--seq", "16", "--preset", "tiny", "--board", "ulx3s-85f")
    assert (row["fits"], row["rate"]) == (True, None)
    assert "ulx3s-85f: its memory of 32 MB is less than the 136.3 of weights" in shown
    (row,), shown = run(capsys, "big", "--seq", "16", "--preset", "tiny", "--board", "kv260")
    assert (row["fits"], row["rate"]) == (True, None)
    assert "kv260: tiny: " in shown


def test_a_sequence_that_the_model_has_no_positions_for(stub, model, capsys):
    assert tilewright(["fit", "some", "--seq", "65"]) == 2
    assert "--seq 65: expected 1 to 64" in capsys.readouterr().err


# Real ones.


def test_at_least_is_less_than_what_is_synthesised(synthesized):
    """Of all that a synthesis counts the bound without one is a lower bound, and a close one."""
    pytest.importorskip("pyosys", reason="the extra `synth` is not installed")
    synthesis = synthesized("tiny", "ecp5")
    need, least = needed(synthesis), at_least(synthesis.config)
    assert need.lut > synthesis.resources.lut
    assert (need.ff, need.dsp) == (synthesis.resources.ff, synthesis.resources.dsp)
    assert least.dsp == 16 <= need.dsp
    assert least.bram <= need.bram <= 2 * least.bram


def test_one_real_unit(monkeypatch, capsys):
    """From the generated Verilog to the line, by way of the cache, with one unit as the machine."""
    pytest.importorskip("pyosys", reason="the extra `synth` is not installed")
    built: list[str] = []

    def small(config, verilog):
        (unit,) = [u for u in units(config, verilog) if u.module == "tilewright_counters"]
        renamed = unit.text.replace("tilewright_counters", "tilewright")
        return [type(unit)(module="tilewright", text=renamed)]

    build = yosys._build
    monkeypatch.setattr(yosys, "units", small)

    def counted(unit, *arguments, **options):
        built.append(unit.module)
        return build(unit, *arguments, **options)

    monkeypatch.setattr(yosys, "_build", counted)
    words = "--preset", "tiny", "--board", "ulx3s-85f"
    (row,), _ = run(capsys, *words)
    assert row["fits"]
    assert row["need"]["dsp"] == 0
    assert 100 < row["need"]["lut"] < 2000
    assert 20 < row["clock"] < 400
    (again,), _ = run(capsys, *words)
    assert again == row
    # What the unit takes is known at another speed grade: only its timing is estimated anew.
    (faster,), _ = run(capsys, "--preset", "tiny", "--board", "orangecrab-85f")
    assert faster["clock"] > row["clock"]
    assert faster["need"] == row["need"]
    assert built == ["tilewright"]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "target"), [("tiny", "xc7"), ("small", "ecp5")])
def test_whole_machines(synthesized, preset, target):
    from tilewright.synth.delays import delays

    synthesis = synthesized(preset, target)
    made = timing.estimate(synthesis, delays(target))
    assert 40 < made.fmax < 200
    board = next(one for one in BOARDS.values() if one.target == target)
    assert board.limit(needed(synthesis))[0] in boards.NAMES
    assert isinstance(synthesis.config, Config)


def test_help_has_examples():
    result = CliRunner().invoke(cli, ["fit", "--help"])
    assert result.exit_code == 0
    assert "tilewright fit --board ulx3s-85f,arty-a7-100t --preset small" in result.output
