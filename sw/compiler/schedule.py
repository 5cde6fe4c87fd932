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

from tilewright.hw.commands import SEMAPHORES, TOKEN_MAX, Unit
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, Token
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.timeline import Timeline
from tilewright.sw.program import OperationNames
from tilewright.sw.program.footprint import (
    DRAM,
    SP,
    STAT,
    Intervals,
    footprint,
    merge,
    resolve,
    sizes,
)

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


_READS, _WRITES = 0, 1

Index = slice | npt.NDArray[np.int64]


class _Cells:
    """Last writer and reader (sequence numbers) of each cell of a space, for each unit."""

    def __init__(self, count: int, grain: int) -> None:
        self.count = count
        self.grain = grain
        self.last: dict[tuple[int, int], npt.NDArray[np.int32]] = {}
        self._indices: dict[bytes, tuple[Index, int]] = {}

    def index(self, intervals: Intervals) -> Index:
        """Cells of intervals; the same intervals come again and again."""
        key = intervals.tobytes()
        if key not in self._indices:
            cells = intervals
            if self.grain > 1:
                cells = np.stack((intervals[:, 0], intervals[:, 1] + self.grain - 1), axis=1)
                cells = cells // self.grain
            cells = merge(cells)
            index: Index
            if len(cells) == 1:
                index = slice(int(cells[0, 0]), int(cells[0, 1]))
            else:
                lengths = cells[:, 1] - cells[:, 0]
                ends = np.cumsum(lengths)
                first = np.repeat(cells[:, 0] - (ends - lengths), lengths)
                index = np.arange(int(ends[-1])) + first
            self._indices[key] = index, int(cells[-1, 1])
        index, end = self._indices[key]
        if end > self.count:
            self.count = max(end, 2 * self.count)
            for role, have in self.last.items():
                more = np.zeros(self.count - len(have), dtype=np.int32)
                self.last[role] = np.concatenate((have, more))
        return index

    def needed(self, needed: list[int], unit: int, writes: int, index: Index) -> None:
        """Raise `needed` to what an access of a unit must come after."""
        for (role, other), last in self.last.items():
            if other != unit and (writes or role == _WRITES):
                latest = int(last[index].max())
                if latest > needed[other]:
                    needed[other] = latest

    def mark(self, unit: int, writes: int, index: Index, sequence: int) -> None:
        """Note an access."""
        role = (_WRITES if writes else _READS, unit)
        if role not in self.last:
            self.last[role] = np.zeros(self.count, dtype=np.int32)
        self.last[role][index] = sequence


class Schedule:
    """Collects commands in serial order and gives them their tokens.

    Parameters
    ----------
    config : Config
    constant : frozenset of int
        Regions that are only read, or only written: never tracked.

    Attributes
    ----------
    operation : str
        What the commands that follow belong to.
    macs : dict of str to int
        Multiply-accumulates of operations, by name.
    """

    def __init__(self, config: Config, constant: frozenset[int] = frozenset()) -> None:
        self.config = config
        self.timeline = Timeline(config)
        self.queues: list[list[Issued]] = [[] for _ in range(UNITS)]
        self.order: list[Issued] = []
        self.operation = ""
        self.macs: dict[str, int] = {}
        self._operations: list[str] = []
        # Only VECTOR touches statistics. Half-words are tracked as words: the order of two halves
        # is no loss, since one unit writes both.
        self._spaces = {
            name: _Cells(count // (2 if name == SP else 1), 2 if name == SP else 1)
            for name, count in sizes(config).items()
        }
        self._constant = {f"{DRAM} region {region}" for region in constant} | {STAT}
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
        needed = [0] * UNITS
        for writes, parts in ((0, touched.reads), (1, touched.writes)):
            for space, intervals in parts:
                if space in self._constant:
                    continue
                cells = self._spaces.setdefault(space, _Cells(0, DRAM_GRAIN))
                index = cells.index(intervals)
                cells.needed(needed, unit, writes, index)
                accesses.append((cells, writes, index))
        clock = self._clocks[unit].copy()
        self._throttle(unit, clock, needed)
        waits, ready = self._wait(unit, clock, needed)
        sequence = len(self.queues[unit]) + 1
        clock[unit] = sequence
        self._clocks[unit] = clock
        for cells, writes, index in accesses:
            cells.mark(unit, writes, index, sequence)
        command.waits = tuple(Token(number) for number in sorted(waits))
        timing = self.timeline.add(command, ready)
        issued = Issued(command, unit, sequence, clock, timing.start, timing.done)
        self.queues[unit].append(issued)
        self.order.append(issued)
        self._operations.append(self.operation)
        return issued

    def operations(self) -> OperationNames:
        """What each command belongs to."""
        return OperationNames.of(self._operations, self.macs)

    def _wait(
        self, unit: int, clock: npt.NDArray[np.int64], needed: list[int]
    ) -> tuple[list[int], int]:
        """Add the waits that make `needed` hold, fewest first; return semaphores and time."""
        sources = [
            self.queues[other][needed[other] - 1]
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

    def _throttle(self, unit: int, clock: npt.NDArray[np.int64], needed: list[int]) -> None:
        """Keep token counters well below their limit: wait for a consumer far behind."""
        for other in range(UNITS):
            if other == unit:
                continue
            consumers = self._outstanding[unit, other]
            seen = max(int(clock[other]), needed[other])
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
                        f"{Unit(b).name}: must be at most {TOKEN_MAX}"
                    )
