"""LOAD and STORE."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from tilewright.hw.config import Config
from tilewright.sim.cycles.bus import ReadBus, WriteBus, bursts
from tilewright.sim.cycles.clock import Clock, Event, Process
from tilewright.sim.cycles.control import Issue
from tilewright.sim.cycles.timeline import Intervals

FIRST_BURST = 5
"""Cycles from a transfer's entry to its first burst."""
READ_DONE = 4
"""Cycles from the last beat to the end of its scratchpad write."""
WRITE_FIRST = 12
"""Cycles from a run's first burst to its first beat."""
WRITE_NEXT = 3
"""The same of later ones, whose data waits already."""
WRITE_DONE = 1
"""Cycles from the last response to the end of the transfer."""


def runs(config: Config, f: dict[str, int]) -> Iterator[tuple[int, int]]:
    """(address, bytes) of each run of a transfer, from its region's base (a multiple of 4096)."""
    if not (f["length"] and f["runs"] and f["planes"]):
        return
    for plane in range(f["planes"]):
        for run in range(f["runs"]):
            yield f["offset"] + plane * f["plane_stride"] + run * f["run_stride"], f["length"]


class _Engine:
    """What both directions share: one transfer after the other makes its bursts."""

    def __init__(self, clock: Clock, config: Config, ended: Callable[[Issue], None]) -> None:
        self.clock, self.config, self.ended = clock, config, ended
        self.held: deque[Issue] = deque()
        self.came, self.left = Event(), Event()
        self.busy: Intervals = []
        self.active: Intervals = []
        # Scratchpad words of a beat, where one is longer than they are.
        self.words_a_beat = max(1.0, config.axi_bytes / config.word_bytes)
        self.halves_a_beat = max(1.0, config.axi_bytes / config.panel)
        clock.start(self._run())

    def accept(self) -> Process:
        """Wait until the one before has made its bursts."""
        while self.held:
            yield self.left

    def take(self, issue: Issue) -> None:
        """Take a transfer, in this cycle."""
        self.held.append(issue)
        self.clock.fire(self.came)

    def pace(self, f: dict[str, int]) -> float:
        """Cycles a beat that the scratchpad's port needs."""
        return self.halves_a_beat if f["half"] else self.words_a_beat

    def _run(self) -> Process:
        clock = self.clock
        while True:
            while not self.held:
                yield self.came
            issue = self.held[0]
            entered = clock.now
            yield entered + FIRST_BURST
            yield from self.move(issue, entered)
            self.held.popleft()
            clock.fire(self.left)

    def move(self, issue: Issue, entered: int) -> Process:
        """Make a transfer's bursts; its end comes by itself."""
        raise NotImplementedError

    def _end(self, issue: Issue, entered: int, cycle: int) -> Process:
        yield cycle
        self.active.append((entered, cycle))
        self.ended(issue)


class LoadUnit(_Engine):
    """From the bus into the scratchpad."""

    def __init__(
        self, clock: Clock, config: Config, bus: ReadBus, ended: Callable[[Issue], None]
    ) -> None:
        self.bus = bus
        super().__init__(clock, config, ended)

    def move(self, issue: Issue, entered: int) -> Process:
        """Ask for all bursts; the end comes by itself."""
        clock, pace = self.clock, self.pace(issue.fields)
        last = clock.now
        for address, length in runs(self.config, issue.fields):
            beats = list(bursts(self.config, address, length))
            for number, count in enumerate(beats):
                # A run whose last beat holds bytes of two groups takes a cycle more.
                more = number == len(beats) - 1 and self._flushes(address, length)
                first, last = yield from self.bus.ask(count + (more and pace <= 1), pace)
                last -= more and pace <= 1
                self.busy.append((first, last + 1))
                issue.works(first, last, count)
                yield clock.now + 1
        clock.start(self._end(issue, entered, max(last, clock.now) + READ_DONE))

    def _flushes(self, address: int, length: int) -> int:
        wide = self.config.axi_bytes
        offset, end = address % wide, (address + length - 1) % wide
        return int(offset != 0 and end >= offset and length > wide)


class StoreUnit(_Engine):
    """From the scratchpad onto the bus."""

    def __init__(
        self, clock: Clock, config: Config, bus: WriteBus, ended: Callable[[Issue], None]
    ) -> None:
        self.bus = bus
        super().__init__(clock, config, ended)

    def move(self, issue: Issue, entered: int) -> Process:
        """Announce all bursts; data and end come by themselves."""
        clock, pace = self.clock, self.pace(issue.fields)
        response = clock.now
        for address, length in runs(self.config, issue.fields):
            delay = WRITE_FIRST
            for count in bursts(self.config, address, length):
                yield from self.bus.announce()
                first, last, response = self.bus.send(count, clock.now + delay, pace)
                delay = WRITE_NEXT
                self.busy.append((first, last + 1))
                issue.works(first, last, count)
                yield clock.now + 1
        clock.start(self._end(issue, entered, response + WRITE_DONE))
