"""The MATMUL unit: weight loader and activation feeder, tile by tile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from tilewright.hw.commands import WeightFormat
from tilewright.hw.config import Config
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.sim.cycles.clock import Clock, Event, Process
from tilewright.sim.cycles.control import Issue
from tilewright.sim.cycles.ports import Ports
from tilewright.sim.cycles.timeline import Intervals

ISSUE_TO_ARRAY = SP_READ_LATENCY + 4
"""Cycles from a row's issue to its activations at the array."""
SHIFT = 3
"""Cycles from the decision to shift a tile in to its first row at the array's edge."""
STRAIGHT = 7
"""Cycles from a tile's last request to the decision to shift it in."""
TURNED = 8
"""The same behind the transposer, from the request of its last word."""
SUM_WRITE = 3
"""Cycles from a sum at an accumulator to the end of its write."""


class MatmulUnit:
    """Passes over tiles.

    Attributes
    ----------
    busy, weights, drain : Intervals
        Passes; waits for weights; from a command's last row to its end.
    """

    def __init__(
        self, clock: Clock, config: Config, ports: Ports, ended: Callable[[Issue], None]
    ) -> None:
        self.clock, self.config, self.ports, self.ended = clock, config, ports, ended
        rows, columns = config.rows, config.columns
        self.ready_after = 2 + max(0, rows + SHIFT - ISSUE_TO_ARRAY - 2)
        self.least_pass = ISSUE_TO_ARRAY - SHIFT + self.ready_after
        self.sum_delay = ISSUE_TO_ARRAY + rows + 2
        self.done_delay = self.sum_delay + columns + SUM_WRITE
        self.queue_words = max(config.panel, 8)
        self.busy: Intervals = []
        self.weights: Intervals = []
        self.drain: Intervals = []
        self.loading: Issue | None = None
        self.waiting: Issue | None = None
        self.load_came, self.feed_came, self.changed = Event(), Event(), Event()
        # Of each tile: its last request, and whether it goes through the transposer; and of the
        # last ones the cycle in which they may be shifted in.
        self.requested: deque[tuple[int, bool]] = deque()
        self.request_made = Event()
        self.decisions: deque[int] = deque([-1 << 40] * 64, maxlen=64)
        self.decided, self.decision_made = 0, Event()
        clock.start(self._load())
        clock.start(self._feed())

    # Between dispatcher and unit.

    def accept(self) -> Process:
        """Wait until loader and feeder both can take a command."""
        while self.loading is not None or self.waiting is not None:
            yield self.changed

    def take(self, issue: Issue) -> None:
        """Take a command, in this cycle."""
        self.loading = self.waiting = issue
        self.clock.fire(self.load_came)
        self.clock.fire(self.feed_came)

    # The loader.

    def _tiles(self, f: dict[str, int]) -> Iterator[tuple[int, int]]:
        """(k, n) of tiles in their order."""
        if f["k_outer"]:
            return ((k, n) for k in range(f["kt"]) for n in range(f["nt"]))
        return ((k, n) for n in range(f["nt"]) for k in range(f["kt"]))

    def _load(self) -> Process:
        clock, config, ports = self.clock, self.config, self.ports
        rows, columns, panel = config.rows, config.columns, config.panel
        number = 0
        last = -1
        while True:
            while self.loading is None:
                yield self.load_came
            issue = self.loading
            f = issue.fields
            turned = bool(f["transposed"])
            packed = f["weights"] == WeightFormat.S4 and not turned
            words = columns // 2 if turned else rows // 4 if packed else rows // 2
            within = self.queue_words // words  # tiles the queue holds
            width = panel // rows if turned else panel // columns
            # The first request is made in the cycle behind the command's.
            last = max(last, clock.now)
            if f["m"]:
                for k, n in self._tiles(f):
                    major, minor = (k, n) if turned else (n, k)
                    address = f["w_addr"] + major // width * f["w_stride"] + minor * words
                    # A word of a tile leaves the queue every other cycle of its shift.
                    while self.decided < number - within + 1:
                        yield self.decision_made
                    leaves = self.decisions[-1 - (self.decided - 1 - (number - within))]
                    yield max(last + 1, leaves + 2)
                    if ports.feeder_has(address):
                        yield from ports.loader_wait(address)
                    last = max(clock.now + words - 1 + packed, leaves + (0 if turned else rows) + 1)
                    ports.loader_tile(address, clock.now + 1, last + 2, words)
                    self.requested.append((last, turned))
                    number += 1
                    if self.request_made.waiting:
                        clock.fire(self.request_made)
            yield last + 1
            self.loading = None
            clock.fire(self.changed)

    # The feeder.

    def _feed(self) -> Process:
        clock, config, ports = self.clock, self.config, self.ports
        rows, columns, panel = config.rows, config.columns, config.panel
        subs = panel // rows
        pass_start = -1 << 40  # of the last pass
        decision = -1 << 40
        column_end = -1 << 40  # of the transposer's last tile
        free = 0
        while True:
            while self.waiting is None:
                yield self.feed_came
            yield free
            issue = self.waiting
            yield max(clock.now, issue.start + 1)
            self.waiting = None
            clock.fire(self.changed)
            f = issue.fields
            m = f["m"]
            wants = clock.now
            finish = wants
            if m:
                left = f["kt"] * f["nt"]
                for k, n in self._tiles(f):
                    while not self.requested:
                        yield self.request_made
                    last, turned = self.requested.popleft()
                    here = last + STRAIGHT
                    if turned:
                        column_end = max(last + TURNED - 1, column_end + columns)
                        here = column_end + 1
                    decision = max(here, decision + rows, pass_start + ISSUE_TO_ARRAY - SHIFT)
                    at = max(wants, decision + self.ready_after)
                    self.decisions.append(decision)
                    self.decided += 1
                    if self.decision_made.waiting:
                        clock.fire(self.decision_made)
                    yield at
                    if at > wants:
                        self.weights.append((wants, at))
                    pass_start = at
                    left -= 1
                    following = at + max(m, self.least_pass) if left else 1 << 60
                    ports.feeder_pass(f["x_addr"] + k // subs * f["x_stride"], at, m, following)
                    ports.sums_pass(f["acc_addr"] + n * f["acc_stride"], at + self.sum_delay, m)
                    self.busy.append((at, at + m))
                    issue.works(at, at + m - 1, m)
                    wants = at + m
                finish = wants - 1
                yield finish
            free = finish + 1
            self.drain.append((finish + 1, finish + self.done_delay))
            clock.start(self._end(issue, finish + self.done_delay))

    def _end(self, issue: Issue, cycle: int) -> Process:
        yield cycle
        self.ended(issue)
