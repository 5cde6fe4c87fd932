"""The VECTOR unit: VECTOR and ROW commands, one at a time."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.hw.commands import Opcode, Post, RowOp, Source, parameter_rows
from tilewright.hw.config import Config
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.sim.cycles.clock import Clock, Event, Process
from tilewright.sim.cycles.control import Issue
from tilewright.sim.cycles.ports import Ports
from tilewright.sim.cycles.timeline import Intervals

FIRST_ITEM = 2
"""Cycles from a command to its first item."""
LANE = SP_READ_LATENCY + 1 + 23
"""Cycles from an item's issue to its result."""
LEAST_GROUP = 3
DIVIDE = 20
"""Cycles of a division, from its start to its result."""
RSQRT_SQUARE, RSQRT_REST = 16, 8
"""Cycles of a reciprocal square root besides one for each bit of N: typical for S1, which takes one
for each of its bits, and for the rest, normalization among it."""
SETTLE = 3
"""Cycles from the last row's result to the end of the command."""


def drain(config: Config) -> int:
    """Cycles from the last item's issue to the end of the command."""
    levels = (config.lanes - 1).bit_length()
    statistics = 1 + -(-levels // 2) + 3
    return LANE + statistics + 2


class VectorUnit:
    """Groups of lanes outer, rows inner.

    Attributes
    ----------
    busy, operand, row, drain : Intervals
        Of the counters of these names.
    """

    def __init__(
        self, clock: Clock, config: Config, ports: Ports, ended: Callable[[Issue], None]
    ) -> None:
        self.clock, self.config, self.ports, self.ended = clock, config, ports, ended
        self.drain_cycles = drain(config)
        self.busy: Intervals = []
        self.operand: Intervals = []
        self.row: Intervals = []
        self.drain: Intervals = []
        self.issue: Issue | None = None
        self.came, self.left = Event(), Event()
        # So far ahead the sums that come are known.
        self.horizon = SP_READ_LATENCY + 4 + config.rows
        clock.start(self._run())

    def accept(self) -> Process:
        """Wait until nothing is under way."""
        while self.issue is not None:
            yield self.left

    def take(self, issue: Issue) -> None:
        """Take a command, in this cycle."""
        self.issue = issue
        self.clock.fire(self.came)

    def _run(self) -> Process:
        clock = self.clock
        while True:
            while self.issue is None:
                yield self.came
            issue = self.issue
            if issue.command.opcode == Opcode.ROW:
                yield from self._rows(issue)
                pause = 2
            else:
                yield from self._vector(issue)
                pause = 1
            self.ended(issue)
            yield clock.now + pause
            self.issue = None
            clock.fire(self.left)

    def _vector(self, issue: Issue) -> Process:
        clock, config, ports, f = self.clock, self.config, self.ports, issue.fields
        if not (f["m"] and f["panels"]):
            yield clock.now + 2
            return
        needs = len(parameter_rows(f))
        lanes, panel, columns = config.lanes, config.panel, config.columns
        from_sp = f["source"] == Source.SP
        operand = from_sp or f["post"] == Post.RESIDUAL
        parts = 1 if from_sp else f["parts"] + 1
        items = f["m"] * parts
        begun = clock.now + FIRST_ITEM
        armed = begun - LEAST_GROUP  # when a group's first row was through
        yield begun
        for group in range(f["panels"] * panel // lanes):
            column = group * lanes
            panel_number = column // panel
            if needs:
                address = f["par_addr"] + panel_number * f["par_stride"]
                for _ in range(needs):
                    yield from ports.vector_wait(address)
                    yield clock.now + 1
            acc = f["acc_addr"] + column // columns * f["acc_stride"]
            sp = f["in_addr"] + panel_number * f["in_stride"]
            first = clock.now
            left = items
            while left:
                row = (items - left) // parts
                if operand and (end := ports.feeder_has(sp + row)):
                    yield end
                    yield clock.now
                    continue
                count = min(left, self.horizon)
                if operand:
                    count = min(count, ports.feeder_returns(sp + row) - clock.now)
                if not from_sp:
                    until, following = ports.sums_until(acc + row, clock.now)
                    if until:
                        # What comes behind is not known yet.
                        yield min(until, clock.now + self.horizon)
                        continue
                    count = min(count, following - clock.now)
                if left == items:
                    first = clock.now
                self.busy.append((clock.now, clock.now + count))
                issue.works(clock.now, clock.now + count - 1, count)
                left -= count
                yield clock.now + count
            # The group's last row waits for the statistics of a first row: its own group's, or of
            # a single row the group before.
            if f["m"] > 1:
                armed = first + parts - 1
            yield max(clock.now, armed + LEAST_GROUP + 1)
            if f["m"] == 1:
                armed = clock.now - 1
        end = clock.now - 1
        self.operand.append((begun, end + 1))
        self.drain.append((end + 1, end + 1 + self.drain_cycles))
        yield end + self.drain_cycles + 1

    def _rows(self, issue: Issue) -> Process:
        clock, config, f = self.clock, self.config, issue.fields
        start, m, panel = clock.now, f["m"], config.panel
        op = f["op"]
        if op in (RowOp.DIVIDE, RowOp.RSQRT):
            cycles = DIVIDE
            if op == RowOp.RSQRT:
                cycles = f["n"].bit_length() + RSQRT_SQUARE + RSQRT_REST
            engines = config.row_engines
            # The first row is handed out two cycles behind the command, others every other cycle.
            turns, rest = divmod(max(m - 1, 0), engines)
            last = 2 + turns * max(cycles + 1, 2 * engines) + 2 * rest + cycles if m else 0
        elif op == RowOp.GET:
            last = -(-m // panel) * (1 + SP_READ_LATENCY) + m
        else:
            last = -(-m // panel) * (2 * panel + 1)
        end = start + last + SETTLE
        self.row.append((start + 1, end + 1))
        issue.works(start + 1, end, end - start)
        yield end
