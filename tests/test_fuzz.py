"""The fuzzer: a small batch of it on RTL, and that it finds, shrinks and repeats."""

import dataclasses

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import case as cases
from tests.fuzz.case import Case, Mismatch, NotApplicable, draw, run
from tests.fuzz.machines import VALUES, random_config
from tests.fuzz.scenarios import SCENARIOS
from tests.fuzz.shrink import shrink
from tilewright.hw.commands import Opcode
from tilewright.hw.config import Config

PROGRAMS = 12


@pytest.mark.parametrize("machine", [0, 1])
def test_a_small_batch(machine):
    ran = []
    for program in range(PROGRAMS):
        case = Case(machine=machine, program=program)
        try:
            ran.append(run(case))
        except Mismatch as error:
            pytest.fail(f"{error}\n{case.command_line()}")
        except NotApplicable:
            continue
    assert len(ran) >= PROGRAMS - 2
    assert len(set(ran)) >= 4


def test_machines_leave_no_parameter_at_its_default():
    drawn = [random_config(seed) for seed in range(60)]
    assert len(set(drawn)) == len(drawn)
    assert random_config(7) == drawn[7]
    for name, values in VALUES.items():
        assert {getattr(config, name) for config in drawn} >= set(values) - {1, 2, 3, 5, 7}
    assert len({config.functions for config in drawn}) >= 6
    known = {field.name for field in dataclasses.fields(Config)}
    assert known - set(VALUES) <= {"name", "functions"}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_is_drawn(scenario):
    """And says what must happen: a fault, a reset, or a whole run."""
    for program in range(40):
        try:
            drawn = draw(Case(machine=2, program=program, scenario=scenario))
        except NotApplicable:
            continue
        broken = drawn.scenario.record is not None or drawn.scenario.reset_after is not None
        assert broken == (scenario != "legal")
        return
    pytest.fail(f"no program has a place for {scenario}")


def products(case):
    return sum(item.opcode == Opcode.MATMUL for item in draw(case).program.commands)


def test_what_fails_is_made_small():
    """Of a failure that two products make, two products are left, on a smaller machine."""
    start = next(
        Case(machine=5, program=seed)
        for seed in range(30)
        if products(Case(machine=5, program=seed)) > 5
    )
    seen = []

    def fails(case):
        seen.append(case)
        return products(case) >= 3 and case.config.queue_depth >= 1

    small = shrink(start, fails)
    assert fails(small)
    # One product prepares every program.
    assert products(small) == 3
    assert len(draw(small).program.commands) < len(draw(start).program.commands) / 1.2
    assert small.plain_bus
    assert small.config.sp_banks <= start.config.sp_banks
    assert small.config != start.config


def test_the_printed_command_is_the_case(monkeypatch):
    case = Case(
        machine=3,
        program=9,
        settings=("lanes=2", "axi_max_burst=1"),
        scenario="window",
        commands=4,
        without=(1, 2),
        plain_bus=True,
    )
    ran: list[Case] = []

    def note(case: Case) -> str:
        ran.append(case)
        return "window"

    monkeypatch.setattr(fuzz, "run", note)
    assert fuzz.main(case.command_line().split()[3:]) == 0
    assert ran == [case]


def test_a_difference_is_reported(monkeypatch, capsys):
    """A byte of memory that is not the simulator's; the exit code, and the command."""
    real = cases.random_program

    def other(*arguments, **options):
        program = real(*arguments, **options)
        program.expected[program.regions[5][0]] ^= 1
        return program

    monkeypatch.setattr(cases, "random_program", other)
    words = ["--machine", "0", "--program", "3", "--scenario", "legal", "--no-shrink"]
    assert fuzz.main(words) == 1
    captured = capsys.readouterr()
    assert "1 bytes of memory differ" in captured.err
    assert "--machine 0 --program 3" in captured.err
    assert captured.out.endswith("1 differ\n")
