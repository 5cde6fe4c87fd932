"""Spans recorded in RTL: every command once, and together exactly what the counters count."""

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.random_runs import run_in_rtl
from tilewright.hw.commands import Opcode, Unit
from tilewright.hw.config import preset_config
from tilewright.sim.native.simulator import BusOptions, NativeSimulator
from tilewright.sim.random_program import KINDS, random_program
from tilewright.sim.trace import Span
from tilewright.sw.driver.simulators import simulator_library

CONFIG = preset_config("tiny")
BUS = BusOptions(outstanding=CONFIG.axi_outstanding, max_burst=CONFIG.axi_max_burst)
AWKWARD = replace(BUS, latency=(1, 60), back_pressure=0.2, lite_delay=0.2, interleave=True)


@pytest.fixture(scope="module")
def library():
    return simulator_library(CONFIG, spans=True)


def run(library, kind, seed, bus=BUS, runs=1):
    """Commands of a random program, and the results of running it."""
    program = random_program(CONFIG, seed, kind=kind, commands=30)
    _, results = run_in_rtl(library, program, bus, runs=runs)
    return program.commands, results


def busy(spans, commands, *opcodes):
    return sum(span.busy for span in spans if commands[span.index].opcode in opcodes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_spans_of_random_programs(library, kind, seed):
    bus = replace(AWKWARD, seed=seed) if seed % 2 else BUS
    commands, results = run(library, kind, seed, bus, runs=2)
    for result in results:
        spans, counters = result.spans, result.counters
        assert [span.index for span in spans] == list(range(1, len(commands) - 1))
        assert busy(spans, commands, Opcode.LOAD) == counters["load"]["busy"]
        assert busy(spans, commands, Opcode.STORE) == counters["store"]["busy"]
        assert busy(spans, commands, Opcode.MATMUL) == counters["matmul"]["busy"]
        assert busy(spans, commands, Opcode.VECTOR) == counters["vector"]["busy"]
        assert busy(spans, commands, Opcode.ROW) == counters["vector"]["row"]
        for span in spans:
            assert span.unit == commands[span.index].unit
            assert 0 <= span.start < span.end <= result.cycles
            if span.busy:
                assert span.start < span.first_busy <= span.last_busy < span.end
                assert span.busy <= span.last_busy - span.first_busy + 1
            else:
                assert span.first_busy == span.last_busy == span.start
        for unit in Unit:
            own = [span for span in spans if span.unit == unit]
            for one, other in pairwise(own):
                assert one.start < other.start
                assert one.end < other.end
            bars = [span.bar for span in own if span.busy]
            for one, other in pairwise(bars):
                assert one[1] <= other[0], "what a unit works on does not overlap"


def test_a_matmul_is_busy_a_row_a_cycle(library):
    commands, (result,) = run(library, "matmul", 1)
    rows = {
        index: int(command["m"]) * int(command["kt"]) * int(command["nt"])
        for index, command in enumerate(commands)
        if command.opcode == Opcode.MATMUL
        and all(isinstance(command[name], int) for name in ("m", "kt", "nt"))
    }
    assert rows
    for span in result.spans:
        if span.index in rows:
            assert span.busy == rows[span.index]


def test_a_simulator_without_probes_records_nothing():
    _, (result,) = run(simulator_library(CONFIG), "mixed", 1)
    assert result.cycles
    assert result.spans == ()


def test_nothing_has_run(library):
    with NativeSimulator(library) as simulator:
        assert simulator.spans() == ()


def test_bars():
    span = Span(index=1, unit=Unit.LOAD, start=3, end=20, busy=4, first_busy=7, last_busy=12)
    assert span.bar == (7, 13)
    assert replace(span, busy=0, first_busy=3, last_busy=3).bar == (3, 3)
