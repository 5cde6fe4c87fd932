"""From a program to its timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tilewright.hw.commands import SCALARS, Unit
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command
from tilewright.sim.cycles.bus import Memory, ReadBus, WriteBus
from tilewright.sim.cycles.clock import Clock
from tilewright.sim.cycles.control import (
    RETIRE_TO_END,
    Dispatcher,
    FrontEnd,
    Issue,
    Semaphores,
    Sender,
    Worker,
)
from tilewright.sim.cycles.matmul import MatmulUnit
from tilewright.sim.cycles.ports import Ports
from tilewright.sim.cycles.timeline import counts
from tilewright.sim.cycles.transfers import LoadUnit, StoreUnit
from tilewright.sim.cycles.vector import VectorUnit
from tilewright.sim.trace import Span

UNITS = (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says of a run.

    Attributes
    ----------
    cycles : int
        From the doorbell to done.
    counters : dict of unit to dict of reason to int
        As the machine's; those of a unit add up to `cycles`.
    spans : tuple of Span
        Of each command, in program order.
    """

    cycles: int
    counters: dict[str, dict[str, int]]
    spans: tuple[Span, ...]


def predict(
    program: Iterable[Command],
    config: Config,
    scalars: Mapping[int, int] | None = None,
    memory: Memory | None = None,
) -> Prediction:
    """Predict a run.

    Parameters
    ----------
    program : iterable of Command
        BEGIN and END included.
    config : Config
    scalars : mapping of register to value
        Those the program names; 0 where not given.
    memory : Memory, optional

    Raises
    ------
    ValueError
        If a command waits for tokens that do not come.
    """
    registers = dict.fromkeys(range(SCALARS), 0) | dict(scalars or {})
    memory = memory or Memory()
    issues = [
        Issue(index, command, _resolved(command, registers))
        for index, command in enumerate(program)
    ]
    clock = Clock()
    read, write = ReadBus(clock, config, memory), WriteBus(clock, config, memory)
    ports, semaphores = Ports(clock, config), Semaphores(clock)
    dispatchers: dict[Unit, Dispatcher] = {}

    def ends(unit: Unit) -> Callable[[Issue], None]:
        return lambda issue: dispatchers[unit].end(issue)

    load = LoadUnit(clock, config, read, ends(Unit.LOAD))
    store = StoreUnit(clock, config, write, ends(Unit.STORE))
    matmul = MatmulUnit(clock, config, ports, ends(Unit.MATMUL))
    vector = VectorUnit(clock, config, ports, ends(Unit.VECTOR))
    workers: tuple[Worker, ...] = (load, matmul, vector, store)
    sender = Sender(clock)
    for unit, worker in zip(UNITS, workers, strict=True):
        dispatchers[unit] = Dispatcher(clock, config, unit, semaphores, sender, worker)
    FrontEnd(clock, config, read, issues, dispatchers)
    clock.run()
    for issue in issues:
        if issue.command.unit != Unit.FETCH and not issue.done:
            raise ValueError(f"command {issue.index} never ends: its tokens do not come")
    cycles = max(d.retired for d in dispatchers.values()) + RETIRE_TO_END + 1
    waits = {unit: dispatcher.waits for unit, dispatcher in dispatchers.items()}
    counters = {
        "load": _moves(load, waits[Unit.LOAD], cycles),
        "matmul": counts(
            {
                "busy": matmul.busy,
                "weights": matmul.weights,
                "hazard": [],
                "token": waits[Unit.MATMUL],
                "drain": matmul.drain,
            },
            cycles,
        ),
        "vector": counts(
            {
                "busy": vector.busy,
                "operand": vector.operand,
                "row": vector.row,
                "token": waits[Unit.VECTOR],
                "drain": vector.drain,
            },
            cycles,
        ),
        "store": _moves(store, waits[Unit.STORE], cycles),
    }
    spans = tuple(
        Span(
            index=issue.index,
            unit=issue.command.unit,
            start=issue.start,
            end=issue.done + 5,
            busy=issue.busy,
            first_busy=issue.first_busy if issue.busy else issue.start,
            last_busy=issue.last_busy if issue.busy else issue.start,
        )
        for issue in issues
        if issue.command.unit != Unit.FETCH
    )
    return Prediction(cycles=cycles, counters=counters, spans=spans)


def _resolved(command: Command, scalars: Mapping[int, int]) -> dict[str, int]:
    fields = command.resolve(scalars)
    if fields.get("scalar_on"):
        fields["offset"] += scalars[fields["scalar"]]
    return fields


def _moves(unit: LoadUnit | StoreUnit, waits: list[tuple[int, int]], cycles: int) -> dict[str, int]:
    return counts({"busy": unit.busy, "port": [], "memory": unit.active, "token": waits}, cycles)
