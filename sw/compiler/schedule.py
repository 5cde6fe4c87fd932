"""Tokens from hazards: commands are emitted in a serial order, and waits follow from what they
touch.

Every command's footprint is compared with the last readers and writers of the same cells. Where a
command must come after one of another unit, the earlier one posts a token that the later one waits
for, unless that order follows from others already (vector clocks: Fidge 1988, Mattern 1989). There
is one semaphore for each ordered pair of units, and each token is one post and one wait, so four
slots always suffice, and emission order is a legal serial order by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hw.commands import SEMAPHORES, TOKEN_MAX, Unit
from hw.config import Config
from hw.encoding import Command, Token
from sw.compiler.errors import CompileError
from sw.compiler.estimate import Timeline
from sw.program.footprint import DRAM, Intervals, footprint, merge, resolve, sizes

UNITS = 4
_PAIRS = {
    pair: number
    for number, pair in enumerate((a, b) for a in range(UNITS) for b in range(UNITS) if a != b)
}
DRAM_GRAIN = 32
"""Bytes of DRAM that are one cell to the tracker."""


@dataclass
class Issued:
    """A command that was emitted.

    Attributes
    ----------
    command : Command
    unit, sequence : int
        Its unit and its place in the unit's queue, from 1.
    clock : ndarray
        For each unit, the last command known to be through when this one is.
    start, done : int
        Estimated cycles.
    """

    command: Command
    unit: int
    sequence: int
    clock: npt.NDArray[np.int64]
    start: int
    done: int
    posts: set[int] = field(default_factory=set)


class _Cells:
    """Last writer and reader (sequence numbers) of each cell of a space, for each unit."""

    def __init__(self, count: int) -> None:
        self.last = np.zeros((2, UNITS, count), dtype=np.int32)

    def grow(self, count: int) -> None:
        have = self.last.shape[2]
        if count > have:
            more = np.zeros((2, UNITS, max(count, 2 * have) - have), dtype=np.int32)
            self.last = np.concatenate((self.last, more), axis=2)


def _index(intervals: Intervals) -> slice | npt.NDArray[np.int64]:
    if len(intervals) == 1:
        return slice(int(intervals[0, 0]), int(intervals[0, 1]))
    lengths = intervals[:, 1] - intervals[:, 0]
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1])) + np.repeat(intervals[:, 0] - (ends - lengths), lengths)


class Schedule:
    """Collects commands in serial order and gives them their tokens.

    Parameters
    ----------
    config : Config
    constant : frozenset of int
        Regions that are only read, or only written: never tracked.
    """

    def __init__(self, config: Config, constant: frozenset[int] = frozenset()) -> None:
        self.config = config
        self.timeline = Timeline(config)
        self.queues: list[list[Issued]] = [[] for _ in range(UNITS)]
        self.order: list[Issued] = []
        self._spaces = {name: _Cells(count) for name, count in sizes(config).items()}
        self._constant = {f"{DRAM} region {region}" for region in constant}
        self._clocks = np.zeros((UNITS, UNITS), dtype=np.int64)
        self._outstanding: dict[tuple[int, int], list[int]] = {pair: [] for pair in _PAIRS}

    @property
    def matmul_free(self) -> int:
        """Estimated cycle in which the array runs out of work."""
        return self.timeline.free[Unit.MATMUL]

    def emit(self, command: Command) -> Issued:
        """Append a command."""
        unit = int(command.unit)
        touched = footprint(command, resolve(command, {}), self.config, {})
        accesses = []
        needed = np.zeros(UNITS, dtype=np.int64)
        for writes, parts in ((0, touched.reads), (1, touched.writes)):
            for space, intervals in parts:
                if space in self._constant:
                    continue
                if space.startswith(DRAM):
                    intervals = intervals // DRAM_GRAIN + np.array([0, 1])
                intervals = merge(intervals)
                space_cells = self._spaces.setdefault(space, _Cells(0))
                space_cells.grow(int(intervals[-1, 1]))
                index = _index(intervals)
                last = space_cells.last
                np.maximum(needed, last[0][:, index].max(axis=1), out=needed)
                if writes:
                    np.maximum(needed, last[1][:, index].max(axis=1), out=needed)
                accesses.append((space_cells, 1 - writes, index))
        clock = self._clocks[unit].copy()
        self._throttle(unit, clock, needed)
        waits, ready = self._wait(unit, clock, needed)
        sequence = len(self.queues[unit]) + 1
        clock[unit] = sequence
        self._clocks[unit] = clock
        for space_cells, role, index in accesses:
            space_cells.last[role, unit, index] = sequence
        command.waits = tuple(Token(number) for number in sorted(waits))
        timing = self.timeline.add(command, ready)
        issued = Issued(command, unit, sequence, clock, timing.start, timing.done)
        self.queues[unit].append(issued)
        self.order.append(issued)
        return issued

    def _wait(
        self, unit: int, clock: npt.NDArray[np.int64], needed: npt.NDArray[np.int64]
    ) -> tuple[list[int], int]:
        """Add the waits that make `needed` hold, fewest first; return semaphores and time."""
        sources = [
            self.queues[other][int(needed[other]) - 1]
            for other in range(UNITS)
            if other != unit and needed[other] > clock[other]
        ]
        ready = max((source.done for source in sources), default=0)
        waits = []
        for source in sources:
            implied = any(
                other is not source and other.clock[source.unit] >= source.sequence
                for other in sources
            )
            if implied:
                continue
            np.maximum(clock, source.clock, out=clock)
            number = _PAIRS[source.unit, unit]
            waits.append(number)
            source.posts.add(number)
            self._outstanding[source.unit, unit].append(len(self.queues[unit]) + 1)
        return waits, ready

    def _throttle(
        self, unit: int, clock: npt.NDArray[np.int64], needed: npt.NDArray[np.int64]
    ) -> None:
        """Keep token counters well below their limit: wait for a consumer far behind."""
        for other in range(UNITS):
            if other == unit:
                continue
            consumers = self._outstanding[unit, other]
            seen = max(clock[other], needed[other])
            while consumers and consumers[0] <= seen:
                consumers.pop(0)
            if len(consumers) >= TOKEN_MAX // 2:
                needed[other] = max(needed[other], consumers[len(consumers) // 2])

    def commands(self) -> list[Command]:
        """The commands with all their tokens.

        Raises
        ------
        CompileError
            If a token counter could overflow.
        """
        assert len(_PAIRS) <= SEMAPHORES
        for issued in self.order:
            issued.command.posts = tuple(Token(number) for number in sorted(issued.posts))
        self._check_counters()
        return [issued.command for issued in self.order]

    def _check_counters(self) -> None:
        for (a, b), number in _PAIRS.items():
            waiters = np.array(
                [
                    issued.sequence
                    for issued in self.queues[b]
                    if any(token.semaphore == number for token in issued.command.waits)
                ]
            )
            posts = [issued for issued in self.queues[a] if number in issued.posts]
            for count, issued in enumerate(posts, 1):
                before = int(np.searchsorted(waiters, issued.clock[b], side="right"))
                if count - before > TOKEN_MAX:
                    raise CompileError(
                        f"{Unit(a).name} can run {count - before} tokens ahead of "
                        f"{Unit(b).name}: at most {TOKEN_MAX}"
                    )
