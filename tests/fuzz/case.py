"""One case of the fuzzer: a machine, a program, what is done to it, and what must come of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np

from tests.fuzz.machines import random_config
from tests.fuzz.scenarios import SCENARIOS, NotApplicable, Scenario, program_start
from tilewright.hw.config import Config
from tilewright.sim.native.simulator import BusOptions, NativeSimulator, SimulationError
from tilewright.sim.random_program import KINDS, RandomProgram, random_program
from tilewright.sw.driver.errors import DeviceError, DeviceFault
from tilewright.sw.driver.machine import Launch, Machine, RunResult
from tilewright.sw.driver.simulators import simulator_library

_PAGE = 4096
_CYCLES = 2_000_000
_WATCHDOG = 3_000
_OUTPUT = 5
"""The region that programs write."""


class Mismatch(Exception):
    """RTL and simulator differ, in one line."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What makes a case again.

    Parameters
    ----------
    machine : int
        Seed of the configuration.
    program : int
        Seed of program, scenario and bus.
    settings : tuple of str
        `key=value` that change the configuration.
    scenario : str, optional
        One of `SCENARIOS` instead of the drawn one.
    commands : int, optional
        Random commands of the program instead of the drawn number: a smaller one cuts its end off.
    without : tuple of int
        Random commands left out, by number.
    plain_bus : bool
        A memory of constant latency without back-pressure.
    """

    machine: int
    program: int
    settings: tuple[str, ...] = ()
    scenario: str | None = None
    commands: int | None = None
    without: tuple[int, ...] = ()
    plain_bus: bool = False

    @property
    def config(self) -> Config:
        return random_config(self.machine).with_settings(list(self.settings))

    def command_line(self) -> str:
        """What repeats it."""
        words = ["python", "-m", "tests.fuzz", "--machine", str(self.machine)]
        words += ["--program", str(self.program)]
        words += [word for setting in self.settings for word in ("--set", setting)]
        words += ["--scenario", self.scenario] if self.scenario else []
        words += ["--commands", str(self.commands)] if self.commands is not None else []
        words += ["--without", ",".join(map(str, self.without))] if self.without else []
        words += ["--plain-bus"] if self.plain_bus else []
        return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A case with everything drawn."""

    name: str
    program: RandomProgram
    scenario: Scenario
    bus: BusOptions
    commands: int


def draw(case: Case) -> Drawn:
    """Draw program, scenario and bus from the case's seed."""
    config = case.config
    rng = np.random.default_rng([0xF022, case.machine, case.program])
    kind = str(rng.choice(KINDS))
    corner = bool(rng.random() < 0.3)
    count = int(rng.integers(1, 25))
    bus = _bus(rng, config, case.program)
    order = [str(name) for name in rng.permutation(list(SCENARIOS))]
    # Every other program is legal: what most of the hardware is for.
    if rng.random() < 0.4:
        order.insert(0, "legal")
    commands = count if case.commands is None else case.commands
    program = random_program(
        config,
        case.program,
        kind=kind,
        commands=commands,
        corner=corner,
        words=None,
        without=case.without,
    )
    # Of the program as drawn, not of where it stands in the order: it must survive shrinking.
    for name in order if case.scenario is None else [case.scenario]:
        try:
            scenario = SCENARIOS[name](program, np.random.default_rng([case.program, 1]))
        except NotApplicable:
            continue
        return Drawn(
            name=name,
            program=program,
            scenario=scenario,
            bus=_plain_bus(config) if case.plain_bus else bus,
            commands=commands,
        )
    raise NotApplicable


def _plain_bus(config: Config) -> BusOptions:
    return BusOptions(seed=1, outstanding=config.axi_outstanding, max_burst=config.axi_max_burst)


def _bus(rng: np.random.Generator, config: Config, seed: int) -> BusOptions:
    low = int(rng.integers(1, 40))
    high = low + int(rng.integers(0, 60))
    return BusOptions(
        latency=(low, high),
        back_pressure=float(rng.choice([0.0, 0.0, 0.2, 0.7])),
        lite_delay=float(rng.choice([0.0, 0.3])),
        interleave=bool(rng.random() < 0.5),
        capacity=int(rng.choice([1, 3, 64])),
        seed=seed,
        outstanding=config.axi_outstanding,
        max_burst=config.axi_max_burst,
    )


def run(case: Case) -> str:
    """Run a case on RTL; the scenario's name.

    Raises
    ------
    Mismatch
        If the RTL does anything else than the simulator.
    NotApplicable
        If no scenario fits the program.
    """
    drawn = draw(case)
    program, scenario = drawn.program, drawn.scenario
    size = -(-len(program.memory) // _PAGE) * _PAGE
    try:
        with NativeSimulator(
            simulator_library(case.config), bus=drawn.bus, memory=((0, size),)
        ) as simulator:
            machine = Machine(program.config, simulator)
            _first(machine, simulator, program, scenario)
            simulator.clear_faults()
            _legal(machine, simulator, program, f"the run behind {drawn.name}")
    except (DeviceError, SimulationError) as error:
        raise Mismatch(f"{drawn.name}: {error}") from error
    return drawn.name


def _launch(program: RandomProgram, scenario: Scenario | None) -> Launch:
    start = program_start(program)
    body = program.memory[start : start + 64 * len(program.commands)].tobytes()
    return Launch(
        program=scenario.program if scenario else body,
        windows={n: (base, limit - base) for n, (base, limit) in program.regions.items()},
        offset=program.program_offset,
        count=scenario.count if scenario else None,
        scalars=dict(enumerate(program.scalars)),
        watchdog=_WATCHDOG,
        timeout=_CYCLES,
    )


def _legal(machine: Machine, simulator: NativeSimulator, program: RandomProgram, what: str) -> None:
    """A run of the legal program: all of memory, the commands, every unit's sum of cycles."""
    simulator.write_memory(0, program.memory)
    launch = _launch(program, None)
    machine.launch(launch)
    result = machine.finish(launch)
    _check_result(result, len(program.commands), what)
    got = simulator.read_memory(0, len(program.memory))
    unequal = np.flatnonzero(got != program.expected)
    if unequal.size:
        raise Mismatch(f"{what}: {unequal.size} bytes of memory differ, first {unequal[0]:#x}")


def _check_result(result: RunResult, commands: int, what: str) -> None:
    if result.commands != commands:
        raise Mismatch(f"{what}: {result.commands} of {commands} commands completed")
    for unit, reasons in result.counters.items():
        if sum(reasons.values()) != result.cycles:
            raise Mismatch(f"{what}: counters of {unit} add up to another number than CYCLES")


def _first(
    machine: Machine, simulator: NativeSimulator, program: RandomProgram, scenario: Scenario
) -> None:
    """The scenario's run."""
    memory = program.memory.copy()
    start = program_start(program)
    memory[start : start + len(scenario.program)] = np.frombuffer(scenario.program, np.uint8)
    if scenario.record is None and scenario.reset_after is None:
        _legal(machine, simulator, program, "legal")
        return
    simulator.write_memory(0, memory)
    if scenario.failing is not None:
        simulator.fail(*scenario.failing)
    launch = _launch(program, scenario)
    machine.launch(launch)
    if scenario.reset_after is not None:
        simulator.run(scenario.reset_after)
        machine.soft_reset()
    else:
        _expect_fault(machine, launch, scenario)
        machine.soft_reset()
    _check_memory(simulator, program, memory)


def _expect_fault(machine: Machine, launch: Launch, scenario: Scenario) -> None:
    expected = scenario.record
    assert expected is not None
    try:
        machine.finish(launch)
    except DeviceFault as fault:
        got = fault
    else:
        raise Mismatch(f"ended without a fault, expected {expected}")
    places = scenario.addresses or range(expected.address, expected.address + 1)
    right = got.code == expected.code and got.address in places
    if scenario.exact:
        right = right and (got.unit, got.index) == (expected.unit, expected.index)
    if not right:
        raise Mismatch(f"fault {got}, expected {expected}")


def _check_memory(simulator: NativeSimulator, program: RandomProgram, before: np.ndarray) -> None:
    """Behind a run that broke off: each byte as it was, or as the whole program leaves it."""
    got = simulator.read_memory(0, len(program.memory))
    base, limit = program.regions[_OUTPUT]
    wrong = got != before
    wrong[base:limit] &= got[base:limit] != program.expected[base:limit]
    unequal = np.flatnonzero(wrong)
    if unequal.size:
        raise Mismatch(
            f"{unequal.size} bytes of memory are neither old nor the program's, "
            f"first {unequal[0]:#x}"
        )
