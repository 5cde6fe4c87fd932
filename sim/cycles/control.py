"""Command fetch, decoder, queues and tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    POST_SLOTS,
    SEMAPHORES,
    UNIT_OF_OPCODE,
    WAIT_SLOTS,
    Unit,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command
from tilewright.sim.cycles.bus import ReadBus, fetch_beats
from tilewright.sim.cycles.clock import Clock, Event, Process
from tilewright.sim.cycles.timeline import Intervals

FETCH_START = 5
"""Cycle in which the fetch asks for its first burst."""
ASK_AGAIN = 3
"""Cycles from one burst's request to the next."""
BEAT_TO_GATHER = 3
"""Cycles from a beat on the bus to its place in the command."""
DECODE = 2
"""Cycles from the decoder's taking a command to its offer to the queue."""
QUEUE = 2
"""Cycles from a queue's input to its output."""
POST = 1
"""Cycles from the end of a command to its first token."""
POST_VISIBLE = 2
"""Cycles from a post to the wait that sees it."""
IN_FLIGHT = 8
"""Commands a unit may hold that are not retired."""
RETIRE_TO_END = 2
"""Cycles from the last command's retirement to the last cycle of the run."""


@dataclass(eq=False)
class Issue:
    """A command on its way.

    Attributes
    ----------
    index : int
    command : Command
    fields : dict of str to int
    start, done, busy, first_busy, last_busy : int
        As of `tilewright.sim.trace.Span`; `done` is the cycle in which the unit is through with it.
    """

    index: int
    command: Command
    fields: dict[str, int]
    start: int = 0
    done: int = 0
    busy: int = 0
    first_busy: int = -1
    last_busy: int = -1

    def works(self, first: int, last: int, busy: int) -> None:
        """Note cycles of work."""
        if busy:
            self.first_busy = first if self.first_busy < 0 else self.first_busy
            self.last_busy = last
            self.busy += busy


class Worker(Protocol):
    """A unit behind its dispatcher."""

    def accept(self) -> Process:
        """Wait until the unit takes a command."""
        ...

    def take(self, issue: Issue) -> None:
        """Take it, in this cycle."""
        ...


class Semaphores:
    """Token counters."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.values = [0] * SEMAPHORES
        self.changed = [Event() for _ in range(SEMAPHORES)]

    def post(self, number: int, amount: int) -> None:
        """Add tokens; in this cycle a wait may see them."""
        self.values[number] += amount
        self.clock.fire(self.changed[number])


@dataclass
class Queue:
    """Commands of a unit that were decoded."""

    depth: int
    items: deque[tuple[int, Issue]] = field(default_factory=deque)
    filled: Event = field(default_factory=Event)
    emptied: Event = field(default_factory=Event)


class Dispatcher:
    """A unit's queue, its waits and posts.

    Attributes
    ----------
    waits : Intervals
        Cycles in which the command at the head waited for tokens.
    retired : int
        Cycle of the last retirement.
    """

    def __init__(
        self, clock: Clock, config: Config, unit: Unit, semaphores: Semaphores, worker: Worker
    ) -> None:
        self.clock, self.semaphores, self.worker = clock, semaphores, worker
        self.queue = Queue(config.queue_places)
        self.waits: Intervals = []
        self.in_flight = 0
        self.room = Event()
        self.retired = 0
        counts = (
            sum(spec.kind == "count" for spec in layout.values())
            for opcode, layout in COMMAND_LAYOUTS.items()
            if UNIT_OF_OPCODE[opcode] == unit
        )
        self.steps = max(WAIT_SLOTS, *counts)
        self._posting: deque[Issue] = deque()
        self._ended = Event()
        clock.start(self._dispatch())
        clock.start(self._post())

    def _dispatch(self) -> Process:
        clock, queue, values = self.clock, self.queue, self.semaphores.values
        while True:
            while not queue.items:
                yield queue.filled
            yield queue.items[0][0]
            _, issue = queue.items.popleft()
            clock.fire(queue.emptied)
            yield clock.now + 1
            for slot in range(self.steps):
                if slot < len(issue.command.waits):
                    token = issue.command.waits[slot]
                    since = clock.now
                    while values[token.semaphore] < token.amount:
                        yield self.semaphores.changed[token.semaphore]
                    if clock.now > since:
                        self.waits.append((since, clock.now))
                    values[token.semaphore] -= token.amount
                yield clock.now + 1
            while self.in_flight >= IN_FLIGHT:
                yield self.room
            yield from self.worker.accept()
            self.in_flight += 1
            issue.start = clock.now
            self.worker.take(issue)
            yield clock.now + 1

    def end(self, issue: Issue) -> None:
        """The unit is through with a command in this cycle."""
        issue.done = self.clock.now
        self._posting.append(issue)
        self.clock.fire(self._ended)

    def _post(self) -> Process:
        clock = self.clock
        while True:
            while not self._posting:
                yield self._ended
            issue = self._posting.popleft()
            first = max(clock.now, issue.done + POST)
            for slot, token in enumerate(issue.command.posts):
                yield first + slot + POST_VISIBLE
                self.semaphores.post(token.semaphore, token.amount)
            self.retired = first + POST_SLOTS - 1
            self.in_flight -= 1
            clock.fire(self.room)
            yield first + POST_SLOTS


class FrontEnd:
    """Fetches commands and hands them to their queues in order."""

    def __init__(
        self,
        clock: Clock,
        config: Config,
        bus: ReadBus,
        issues: Sequence[Issue],
        dispatchers: dict[Unit, Dispatcher],
    ) -> None:
        self.clock, self.config, self.bus = clock, config, bus
        self.issues, self.dispatchers = issues, dispatchers
        self.beats = fetch_beats(config)
        self.total = -(-len(issues) * COMMAND_BYTES // config.axi_bytes)
        self.depth = max(2 * self.beats, 4 * COMMAND_BYTES // config.axi_bytes, 2)
        self.data: list[tuple[int, int]] = []
        self.gathered = 0  # beats
        self.arrived, self.space = Event(), Event()
        clock.start(self._ask())
        clock.start(self._deliver())

    def _ask(self) -> Process:
        """Ask for bursts while the buffer has room."""
        clock = self.clock
        yield FETCH_START
        for first in range(0, self.total, self.beats):
            while first + self.beats > self.gathered + self.depth:
                yield self.space
            at = clock.now
            self.data.append((yield from self.bus.ask(min(self.beats, self.total - first))))
            clock.fire(self.arrived)
            yield at + ASK_AGAIN

    def _deliver(self) -> Process:
        clock, config = self.clock, self.config
        parts = max(1, COMMAND_BYTES // config.axi_bytes)
        for number, issue in enumerate(self.issues):
            beat = ((number + 1) * COMMAND_BYTES - 1) // config.axi_bytes
            burst, place = divmod(beat, self.beats)
            while len(self.data) <= burst:
                # Beats of bursts before are taken as they come.
                self.gathered = max(self.gathered, len(self.data) * self.beats)
                clock.fire(self.space)
                yield self.arrived
            first, last = self.data[burst]
            beats = min(self.beats, self.total - burst * self.beats)
            there = first + (last + 1 - first) * (place + 1) // beats - 1 + BEAT_TO_GATHER
            yield max(clock.now + parts - 1, there)
            self.gathered = max(self.gathered, beat + 1)
            clock.fire(self.space)
            yield clock.now + 1 + DECODE
            unit = issue.command.unit
            if unit != Unit.FETCH:
                queue = self.dispatchers[unit].queue
                while len(queue.items) >= queue.depth:
                    yield queue.emptied
                queue.items.append((clock.now + QUEUE, issue))
                clock.fire(queue.filled)
