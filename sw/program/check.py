"""Static checks of a program: what the machine would fault on, hang on, or leave to chance.

Order between commands: a command comes after the one before it in its unit's queue, and after
those that posted the tokens it waits for (the k-th token taken from a semaphore is the k-th
posted; one unit posts a semaphore, in order). Each command carries a vector clock over the four
units (Fidge 1988, Mattern 1989); since program order is a legal serial order, one pass in that
order with the last reader of each unit and the last writer of every cell finds every race (as
FastTrack does: Flanagan and Freund 2009).

Shifts that channel parameters in memory decide are not known here; the simulator checks them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import (
    BYTE_OUTS,
    SCALARS,
    SEMAPHORES,
    TOKEN_MAX,
    Opcode,
    Out,
    Parts,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
    Unit,
    WeightFormat,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, encode, illegal_field
from tilewright.hw.manifest import manifest_hash
from tilewright.sw.errors import UserError
from tilewright.sw.program.disassemble import format_command
from tilewright.sw.program.footprint import (
    DRAM,
    SP,
    Footprint,
    cells,
    footprint,
    merge,
    resolve,
    sizes,
)

SHIFT_MAX = 61
N_MAX = 4096
EPS_BITS = 40
_UNITS = 4


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a program.

    Attributes
    ----------
    index : int
        Command, counted from BEGIN as FAULT_INDEX does; the number of commands for the end.
    message : str
    """

    index: int
    message: str

    def __str__(self) -> str:
        return f"command {self.index}: {self.message}"


class ProgramError(UserError, ValueError):
    """A program that must not run; `problems` holds what was found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")


@dataclass
class _Semaphore:
    poster: Unit | None = None
    waiter: Unit | None = None
    posted: list[int] = field(default_factory=list)  # running sums
    posts: list[int] = field(default_factory=list)  # commands
    taken: list[int] = field(default_factory=list)  # running sums
    waits: list[int] = field(default_factory=list)  # sequence numbers in the waiter's queue

    @property
    def value(self) -> int:
        return (self.posted[-1] if self.posted else 0) - (self.taken[-1] if self.taken else 0)


def _frame(commands: list[Command], config: Config) -> list[Problem]:
    """BEGIN and END: where they stand and what BEGIN says."""
    found = []
    for index, item in enumerate(commands):
        if (item.opcode == Opcode.BEGIN) != (index == 0):
            what = "is not BEGIN" if index == 0 else "is a second BEGIN"
            found.append(Problem(index, what))
        if (item.opcode == Opcode.END) != (index == len(commands) - 1):
            what = "is the last and not END" if index == len(commands) - 1 else "is an early END"
            found.append(Problem(index, what))
        if item.unit == Unit.FETCH and (item.waits or item.posts):
            found.append(Problem(index, f"{item.opcode.name} takes and posts no tokens"))
    if commands and commands[0].opcode == Opcode.BEGIN:
        expected = manifest_hash(config)
        if commands[0]["hash"] != expected:
            found.append(
                Problem(0, f"hash = {commands[0]['hash']:#x}: {config.title} has {expected:#x}")
            )
        if commands[0]["commands"] != len(commands):
            found.append(Problem(0, f"commands = {commands[0]['commands']}: {len(commands)} are"))
    return found


def _overlaps(first: int, other: int, length: int, size: int) -> bool:
    return first < other + size and other < first + length


def _vector(f: Mapping[str, int]) -> Iterable[str]:
    for name in ("shift", "shift1", "shift2"):
        if f[name] > SHIFT_MAX:
            yield f"{name} = {f[name]}: must be 0 to {SHIFT_MAX}"
    if f["pre"] == Pre.CENTER and f["imm"] > N_MAX:
        yield f"imm = {f['imm']}: must be 0 to {N_MAX} with CENTER"
    reads_f1 = f["pre"] in (Pre.MAX_MINUS, Pre.CENTER)
    if reads_f1 and f["stat_op"] in (Stat.MAX, Stat.MOMENTS):
        reader, writer = Pre(f["pre"]).name, Stat(f["stat_op"]).name
        yield f"pre = {reader} reads f1 while stat_op = {writer} changes it"
    if (
        f["pre"] == Pre.ROW_SCALE
        and f["magnitude"]
        and _overlaps(f["scale_in"], f["scale_out"], f["m"], f["m"])
    ):
        yield f"scale_out = {f['scale_out']}: {f['m']} rows overlap scale_in = {f['scale_in']}"

    if f["parts"] and f["source"] != Source.ACC:
        yield f"parts = {Parts(f['parts']).name}: only accumulators have parts"


def _matmul(f: Mapping[str, int]) -> Iterable[str]:
    if f["weights"] == WeightFormat.S4 and f["transposed"]:
        yield "weights = S4: a transposed operand is S8"


def _row(f: Mapping[str, int]) -> Iterable[str]:
    if f["op"] == RowOp.RSQRT:
        if not 1 <= f["n"] <= N_MAX:
            yield f"n = {f['n']}: must be 1 to {N_MAX} with RSQRT"
        if f["eps"] >> EPS_BITS:
            yield f"eps = {f['eps']:#x}: must be at most {EPS_BITS} bits"


def _in_place(f: Mapping[str, int]) -> bool:
    """Whether the output lies exactly over the operand, element over element."""
    return (
        f["out"] not in BYTE_OUTS
        and f["out_addr"] == f["in_addr"]
        and (f["out_stride"] == f["in_stride"] or f["panels"] == 1)
    )


def _self_overlap(opcode: Opcode, f: Mapping[str, int], touched: Footprint) -> Iterable[str]:
    """Parts of one command that tread on each other, so that the result hangs on timing."""
    for space, intervals in touched.writes:
        if len(intervals) > 1 and cells(intervals) != cells(merge(intervals)):
            yield f"writes some of the {space} twice"
    if opcode != Opcode.VECTOR or f["out"] == Out.NONE:
        return
    written = [i for s, i in touched.writes if s == SP]
    for position, (space, intervals) in enumerate([r for r in touched.reads if r[0] == SP]):
        operand = position == 0 and (f["source"] == Source.SP or f["post"] == Post.RESIDUAL)
        if operand and _in_place(f):
            continue
        for other in written:
            both = np.concatenate((merge(intervals), merge(other)))
            if cells(both) != cells(merge(both)):
                what = "its operand, not element over element" if operand else "its parameters"
                yield f"the output in the {space} overlaps {what}"


def _ranges(
    f: Mapping[str, int],
    touched: Footprint,
    config: Config,
    regions: Mapping[int, tuple[int, int]] | None,
) -> Iterable[str]:
    bounds = sizes(config)
    for space, intervals in touched.reads + touched.writes:
        low, high = int(intervals[:, 0].min()), int(intervals[:, 1].max())
        if space in bounds:
            if high > bounds[space]:
                unit = 2 if space == SP else 1
                yield (
                    f"touches {space} {(high - 1) // unit}: the last is {bounds[space] // unit - 1}"
                )
        elif space == DRAM and regions is not None:
            base, limit = regions[f["region"]]
            if low < base or high > limit:
                yield (
                    f"touches DRAM {low:#x} to {high - 1:#x}: region {f['region']} is "
                    f"{base:#x} to {limit - 1:#x}"
                )
        elif low < 0:
            yield f"touches byte {low} of {space}"


class _Checker:
    def __init__(
        self,
        commands: list[Command],
        config: Config,
        scalars: Mapping[int, int],
        regions: Mapping[int, tuple[int, int]] | None,
    ) -> None:
        self.commands = commands
        self.config = config
        self.scalars = scalars
        self.regions = regions
        self.problems: list[Problem] = []
        count = len(commands)
        self.sequence = np.zeros(count, dtype=np.int64)  # place in the unit's queue, from 1
        self.clocks = np.zeros((count, _UNITS), dtype=np.int64)
        self.by_unit: list[list[int]] = [[] for _ in range(_UNITS)]
        self.semaphores = [_Semaphore() for _ in range(SEMAPHORES)]

    def report(self, index: int, message: str) -> None:
        self.problems.append(Problem(index, message))

    # Order: tokens and clocks.

    def order(self) -> None:
        """Clocks of all commands; token counts in serial order and in the worst interleaving."""
        for index, item in enumerate(self.commands):
            if item.unit == Unit.FETCH:
                continue
            queue = self.by_unit[item.unit]
            clock = self.clocks[index]
            if queue:
                clock[:] = self.clocks[queue[-1]]
            queue.append(index)
            self.sequence[index] = len(queue)
            for token in item.waits:
                self.wait(index, item.unit, token.semaphore, token.amount)
            clock[item.unit] = len(queue)
            for token in item.posts:
                self.post(index, item.unit, token.semaphore, token.amount)
        for number, semaphore in enumerate(self.semaphores):
            if semaphore.value > 0:
                self.report(
                    len(self.commands) - 1,
                    f"semaphore {number} holds {semaphore.value} at the end, posted last by "
                    f"command {semaphore.posts[-1]}",
                )

    def wait(self, index: int, unit: Unit, number: int, amount: int) -> None:
        semaphore = self.semaphores[number]
        if semaphore.waiter is not None and semaphore.waiter != unit:
            self.report(
                index,
                f"{unit.name} waits on semaphore {number}, on which {semaphore.waiter.name} waits",
            )
        if semaphore.waiter is None:
            semaphore.waiter = unit
        total = (semaphore.taken[-1] if semaphore.taken else 0) + amount
        if semaphore.value < amount:
            self.report(
                index,
                f"waits for {amount} of semaphore {number}; earlier commands leave "
                f"{semaphore.value} there",
            )
            # Carry on as if they were there: one mistake gives one message.
            total = semaphore.posted[-1] if semaphore.posted else 0
        semaphore.taken.append(total)
        semaphore.waits.append(int(self.sequence[index]))
        place = bisect_left(semaphore.posted, total)
        if place < len(semaphore.posts):
            np.maximum(
                self.clocks[index], self.clocks[semaphore.posts[place]], out=self.clocks[index]
            )

    def post(self, index: int, unit: Unit, number: int, amount: int) -> None:
        semaphore = self.semaphores[number]
        if semaphore.poster is not None and semaphore.poster != unit:
            self.report(
                index,
                f"{unit.name} posts semaphore {number}, which {semaphore.poster.name} posts",
            )
        if semaphore.poster is None:
            semaphore.poster = unit
        semaphore.posted.append((semaphore.posted[-1] if semaphore.posted else 0) + amount)
        semaphore.posts.append(index)

    def overflow(self) -> None:
        """The highest value of a counter: posts up to one, less the waits surely before it."""
        for number, semaphore in enumerate(self.semaphores):
            for place, index in enumerate(semaphore.posts):
                taken = 0
                if semaphore.waiter is not None:
                    seen = int(self.clocks[index, semaphore.waiter])
                    before = int(np.searchsorted(semaphore.waits, seen, side="right"))
                    taken = semaphore.taken[before - 1] if before else 0
                if semaphore.posted[place] - taken > TOKEN_MAX:
                    self.report(
                        index,
                        f"semaphore {number} can reach {semaphore.posted[place] - taken}: "
                        f"at most {TOKEN_MAX}",
                    )
                    break

    # Single commands.

    def command(self, index: int) -> Footprint:
        """Check one command and return what it touches."""
        item = self.commands[index]
        try:
            encode(item)
            text = illegal_field(item, self.config)
            fields = resolve(item, self.scalars)
            touched = footprint(item, fields, self.config, self.scalars, self.regions)
        except ValueError as error:
            self.report(index, str(error).removeprefix(f"{item.opcode.name} "))
            return Footprint()
        found = [text] if text else []
        if item.opcode == Opcode.VECTOR:
            found += _vector(fields)
        elif item.opcode == Opcode.MATMUL:
            found += _matmul(fields)
        elif item.opcode == Opcode.ROW:
            found += _row(fields)
        ranges = list(_ranges(fields, touched, self.config, self.regions))
        found += ranges
        found += _self_overlap(item.opcode, fields, touched)
        for message in found:
            self.report(index, message.removeprefix(f"{item.opcode.name} "))
        return Footprint() if ranges else touched

    # Races.

    def races(self, footprints: list[Footprint]) -> None:
        """Every pair of unordered commands with a cell in common, one of them writing."""
        spaces: dict[str, list[tuple[int, bool, npt.NDArray[np.int64]]]] = {}
        for index, touched in enumerate(footprints):
            for writes, parts in ((False, touched.reads), (True, touched.writes)):
                for space, intervals in parts:
                    entry = (index, writes, merge(intervals))
                    spaces.setdefault(space, []).append(entry)
        for space, entries in spaces.items():
            self.sweep(space, entries)

    def sweep(self, space: str, entries: list[tuple[int, bool, npt.NDArray[np.int64]]]) -> None:
        everything = np.concatenate([intervals for _, _, intervals in entries])
        edges, places = np.unique(everything, return_inverse=True)
        places = places.reshape(-1, 2)
        count = len(edges)
        # Sequence number of the last access of each unit to each cell; 0: none.
        last = {
            False: np.zeros((_UNITS, count), dtype=np.int64),
            True: np.zeros((_UNITS, count), dtype=np.int64),
        }
        position = 0
        for index, writes, intervals in entries:
            mine = places[position : position + len(intervals)]
            position += len(intervals)
            which = _cells(mine)
            unit = self.commands[index].unit
            clock = self.clocks[index]
            for other in (True, False) if writes else (True,):
                table = last[other][:, which]
                behind = table.max(axis=1) > clock
                behind[unit] = False
                for rival in np.flatnonzero(behind):
                    cell = int(np.argmax(table[rival]))
                    at = which.start + cell if isinstance(which, slice) else int(which[cell])
                    self.race(
                        space,
                        index,
                        writes,
                        self.by_unit[int(rival)][int(table[rival, cell]) - 1],
                        other,
                        int(edges[at]),
                    )
            last[writes][unit, which] = self.sequence[index]

    def race(
        self, space: str, index: int, writes: bool, rival: int, wrote: bool, cell: int
    ) -> None:
        if space == SP:
            where = f"word {cell // 2} of the {space}"
        elif space.startswith(DRAM):
            where = f"byte {cell:#x} of {space}"
        else:
            where = f"{cell} of the {space}"
        self.report(
            index,
            f"{'writes' if writes else 'reads'} {where} while command {rival} "
            f"{'writes' if wrote else 'reads'} it, and no token orders them\n"
            f"  {rival}: {format_command(self.commands[rival])}\n"
            f"  {index}: {format_command(self.commands[index])}",
        )


def _cells(places: npt.NDArray[np.int64]) -> slice | npt.NDArray[np.int64]:
    """Indices of the cells of intervals [first, last)."""
    if len(places) == 1:
        return slice(int(places[0, 0]), int(places[0, 1]))
    lengths = places[:, 1] - places[:, 0]
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1])) + np.repeat(places[:, 0] - (ends - lengths), lengths)


def find_problems(
    program: Iterable[Command],
    config: Config,
    *,
    scalars: Mapping[int, int] | None = None,
    regions: Mapping[int, tuple[int, int]] | None = None,
) -> list[Problem]:
    """Check a program, BEGIN and END included.

    Parameters
    ----------
    program : iterable of Command
        A `Program`, or commands.
    config : Config
    scalars : mapping of register to value, optional
        Values of the registers that counts and offsets name; the footprints are those of these
        values, so check the largest (and any with another layout) that a run may use.
    regions : mapping of region to (base, limit), optional
        Where the regions lie: adds the window check and races between regions that overlap.
        Without it regions are taken as disjoint and endless.

    Returns
    -------
    list of Problem
        In program order; empty when the program may run.
    """
    values = dict(scalars or {})
    for index in values:
        if not 0 <= index < SCALARS:
            raise ValueError(f"scalar register {index}: must be 0 to {SCALARS - 1}")
    commands = list(program)
    checker = _Checker(commands, config, values, regions)
    checker.problems += _frame(commands, config)
    checker.order()
    checker.overflow()
    checker.races([checker.command(index) for index in range(len(commands))])
    return sorted(checker.problems, key=lambda problem: problem.index)


def check_program(
    program: Iterable[Command],
    config: Config,
    *,
    scalars: Mapping[int, int] | None = None,
    regions: Mapping[int, tuple[int, int]] | None = None,
) -> None:
    """Refuse a program in which `find_problems` finds any.

    Raises
    ------
    ProgramError
        Its message is the first problem; `problems` holds them all.
    """
    problems = find_problems(program, config, scalars=scalars, regions=regions)
    if problems:
        raise ProgramError(problems)
