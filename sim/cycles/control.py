"""Command fetch, decoder, queues and tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    SEMAPHORES,
    UNIT_OF_OPCODE,
    Unit,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command
from tilewright.hw.words import IDENTITY, last_word, resolve_cycles
from tilewright.sim.cycles.bus import ReadBus, fetch_beats
from tilewright.sim.cycles.clock import Clock, Event, Process
from tilewright.sim.cycles.timeline import Intervals

FETCH_START = 18
"""Cycle in which the fetch asks for its first burst."""
ASK_AGAIN = 3
"""Cycles from one burst's request to the next."""
BEAT_TO_GATHER = 3
"""Cycles from a beat on the bus to its place in the command."""
DECIDE = 2
"""Cycles from the last word of a command to the end of its checks."""
QUEUED = 2
"""Cycles from there until it can leave its queue."""
TURNS = 4
"""Cycles from one turn of a unit with the tokens to the next."""
TOKENS = 2
"""Cycles from a turn to the tokens."""
SENT = 3
"""Cycles from a unit's choice to its first word's arrival."""
RETIRE_TO_END = 1
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


class Sender:
    """The way from the queues to the units' registers: one command at a time."""

    ORDER = (Unit.MATMUL, Unit.VECTOR, Unit.LOAD, Unit.STORE)

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wanted: dict[Unit, Dispatcher] = {}
        self.asked = Event()
        clock.start(self._send())

    def ask(self, dispatcher: Dispatcher) -> None:
        """Send the next command of a unit; from this cycle on it may be chosen."""
        self.wanted[dispatcher.unit] = dispatcher
        self.clock.fire(self.asked)

    def _send(self) -> Process:
        clock = self.clock
        while True:
            while not self.wanted:
                yield self.asked
            unit = next(unit for unit in self.ORDER if unit in self.wanted)
            dispatcher = self.wanted.pop(unit)
            chosen = clock.now
            yield chosen + dispatcher.words + 1
            dispatcher.full = chosen + dispatcher.words + SENT
            clock.fire(dispatcher.filled)


class Dispatcher:
    """A unit's queue, its waits and posts.

    Attributes
    ----------
    waits : Intervals
        Cycles in which the command at the head waited for tokens.
    retired : int
        Cycle of the last retirement.
    full : int
        Cycle from which on the unit's register holds the next command; -1 until it is known.
    """

    def __init__(
        self,
        clock: Clock,
        config: Config,
        unit: Unit,
        semaphores: Semaphores,
        sender: Sender,
        worker: Worker,
    ) -> None:
        self.clock, self.semaphores, self.worker = clock, semaphores, worker
        self.unit, self.sender = unit, sender
        self.places = config.queue_places - 1
        self.held = 0
        self.queue: deque[tuple[int, Issue]] = deque()
        self.came, self.room = Event(), Event()
        self.waits: Intervals = []
        self.retired = 0
        self.full = -1
        self.filled = Event()
        own = (code for code in COMMAND_LAYOUTS if UNIT_OF_OPCODE[code] == unit)
        self.words = max(last_word(code) for code in own) - IDENTITY + 1
        self._posting: deque[Issue] = deque()
        self._posts_until = 0
        self._ended = Event()
        clock.start(self._dispatch())
        clock.start(self._post())

    def add(self, issue: Issue, cycle: int) -> None:
        """Queue a command that is there from a cycle on."""
        self.held += 1
        self.queue.append((cycle, issue))
        self.clock.fire(self.came)

    def _turn(self, cycle: int) -> int:
        """The unit's first turn from a cycle on."""
        return cycle + (self.unit - cycle) % TURNS

    def _dispatch(self) -> Process:
        clock = self.clock
        while True:
            while not self.queue:
                yield self.came
            yield self.queue[0][0]
            _, issue = self.queue.popleft()
            self.full = -1
            self.sender.ask(self)
            yield from self._wait(issue)
            while self.full < 0:
                yield self.filled
            yield self.full
            yield from self.worker.accept()
            issue.start = clock.now
            self.worker.take(issue)
            yield clock.now + 1

    def _wait(self, issue: Issue) -> Process:
        """Serve the waits, a slot a turn."""
        clock, values = self.clock, self.semaphores.values
        turn = self._turn(clock.now)
        for token in issue.command.waits or (None,):
            yield turn
            # Posts go first.
            while self._posts_until > clock.now:
                yield self._turn(self._posts_until)
            yield clock.now + TOKENS
            if token is not None:
                since = clock.now
                while values[token.semaphore] < token.amount:
                    yield self.semaphores.changed[token.semaphore]
                    turn = max(clock.now - TOKENS, self._posts_until)
                    yield self._turn(turn) + TOKENS
                if clock.now > since:
                    self.waits.append((since + 1, clock.now + 1))
                values[token.semaphore] -= token.amount
            turn = clock.now - TOKENS + TURNS
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
            turn = self._turn(max(clock.now, issue.done + 1))
            posts = issue.command.posts or (None,)
            self._posts_until = turn + TURNS * len(posts)
            for token in posts:
                yield turn + TOKENS
                if token is not None:
                    self.semaphores.post(token.semaphore, token.amount)
                turn += TURNS
            self.retired = clock.now
            self.held -= 1
            clock.fire(self.room)
            yield clock.now + 1


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
            unit = issue.command.unit
            dispatcher = self.dispatchers.get(unit)
            while dispatcher is not None and dispatcher.held >= dispatcher.places:
                yield dispatcher.room
            yield clock.now + 1 + resolve_cycles(issue.command.opcode) + DECIDE
            if dispatcher is not None:
                dispatcher.add(issue, clock.now + QUEUED)
            yield clock.now + 1
