"""Figures of a run: per operation of the model, and per unit of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import Opcode, Unit
from tilewright.hw.encoding import Command
from tilewright.hw.registers import COUNTERS
from tilewright.sim.trace import Span
from tilewright.sw.driver.machine import RunResult
from tilewright.sw.program import Executable
from tilewright.sw.program.footprint import resolve
from tilewright.sw.program.operation_names import SEPARATOR

GROUPS: dict[str, Callable[[str], str]] = {
    "operation": lambda name: name.rpartition(SEPARATOR)[2],
    "layer": lambda name: SEPARATOR.join(
        part for part in name.split(SEPARATOR) if not part.startswith("head ")
    ),
    "head": lambda name: name,
}
"""What a row of the table is: one kind of operation, those of a layer, each by itself."""

UNNAMED = "program"
"""The operation of commands whose program names none."""

UNITS = tuple(unit for unit in Unit if unit != Unit.FETCH)


@dataclass(frozen=True)
class Step:
    """A command of a run: what it is, and when it was.

    Attributes
    ----------
    span : Span
    command : Command
    operation : str
    bytes : int
        It moves between DRAM and scratchpad.
    """

    span: Span
    command: Command
    operation: str
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A run of a program, with the spans of its commands.

    Attributes
    ----------
    executable : Executable
    result : RunResult
    scalars : mapping of str to int
        Of the run.
    """

    executable: Executable
    result: RunResult
    scalars: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The commands in program order."""
        commands = self.executable.program.body
        names = list(self.executable.operations.commands()) or [UNNAMED] * len(commands)
        registers = self.executable.registers(self.scalars)
        steps = []
        for span in self.result.spans:
            command = commands[span.index - 1]
            count = 0
            if command.opcode in (Opcode.LOAD, Opcode.STORE):
                fields = resolve(command, registers)
                count = fields["length"] * fields["runs"] * fields["planes"]
            steps.append(Step(span, command, names[span.index - 1], count))
        return tuple(steps)

    def of(self, unit: Unit) -> list[Step]:
        """The commands of one unit, in order."""
        return [step for step in self.steps if step.span.unit == unit]

    def busy(self, unit: Unit, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Share of the cycles between neighbouring edges in which a unit works.

        Stalls within a command are spread evenly over it.
        """
        spans = [step.span for step in self.of(unit) if step.span.busy]
        if not spans:
            return np.zeros(len(edges) - 1)
        bars = np.array([span.bar for span in spans], dtype=np.float64)
        done = np.cumsum([span.busy for span in spans])
        before = done - [span.busy for span in spans]
        total = np.interp(edges, bars.ravel(), np.stack((before, done), axis=1).ravel())
        found: npt.NDArray[np.float64] = np.diff(total) / np.diff(edges)
        return found

    # ---- operations ----

    @cached_property
    def lost(self) -> dict[str, int]:
        """Cycles without work for the array, by the operation it then works for.

        What is behind its last work counts for the command the run ends with.
        """
        lost: dict[str, int] = {}
        free = 0
        for step in self.of(Unit.MATMUL):
            if step.span.busy:
                end = step.span.bar[1]
                idle = end - free - step.span.busy
                lost[step.operation] = lost.get(step.operation, 0) + idle
                free = end
        if self.steps:
            last = max(self.steps, key=lambda step: step.span.end).operation
            lost[last] = lost.get(last, 0) + self.result.cycles - free
        return lost

    def operations(self, by: str = "operation") -> list[dict[str, Any]]:
        """JSON-able figures of each operation, in the order in which they begin.

        Parameters
        ----------
        by : str
            One of `GROUPS`.

        Returns
        -------
        list of dict
            operation; count, of the model's operations in it; commands; macs, its own; array,
            vector (lanes and row unit), load, store: cycles they work for it; lost: cycles the
            array has no work until it works for it, so that array and lost of all operations add
            up to the run; loaded, stored: bytes.

            start, end: the first cycle a unit works for it, loads aside, which run ahead, and the
            one behind its last command; cycles: those between, of several operations in at least
            one; utilization: its MACs over what the array could do in them.

            active: those of `cycles`, and those before in which its loads run; all its MACs and
            bytes are in them. intensity: MACs a byte moved; bound: what its roofline is, "compute"
            or "memory"; roofline: the cycles it takes at that bound; attained: roofline over
            active, at most 1. All but active are None where nothing is multiplied, or moved.
        """
        group = GROUPS[by]
        rows: dict[str, list[Step]] = {}
        for step in self.steps:
            rows.setdefault(group(step.operation), []).append(step)
        operations = self.executable.operations
        macs = dict(zip(operations.names, operations.macs, strict=True))
        return [
            self._operation(
                name, steps, sum(macs.get(n, 0) for n in {step.operation for step in steps})
            )
            for name, steps in sorted(rows.items(), key=lambda item: _start(item[1]))
        ]

    def total(self) -> dict[str, Any]:
        """The whole run as such a row; its cycles are those of the machine."""
        row = self._operation("all", self.steps, int(self.executable.metadata.get("macs", 0)))
        cycles = self.result.cycles
        return row | self._roofline(row["macs"], row["loaded"], row["stored"], cycles, cycles)

    def _operation(self, name: str, steps: Iterable[Step], macs: int) -> dict[str, Any]:
        steps = list(steps)
        members: dict[str, list[Step]] = {}
        for step in steps:
            members.setdefault(step.operation, []).append(step)

        def busy(unit: Unit) -> int:
            return sum(step.span.busy for step in steps if step.span.unit == unit)

        loaded, stored = (
            sum(step.bytes for step in steps if step.span.unit == unit)
            for unit in (Unit.LOAD, Unit.STORE)
        )
        work = [(_start(own), _end(own)) for own in members.values()]
        # Loads run ahead, during the operation before. The roofline counts their bytes, so their
        # cycles count too; what lies between a load and the work it is for does not.
        loads = [step.span.bar for step in steps if step.span.unit == Unit.LOAD]
        lost = sum(self.lost.get(name, 0) for name in members)
        return {
            "operation": name,
            "count": len(members),
            "commands": len(steps),
            "macs": macs,
            "start": _start(steps),
            "end": _end(steps),
            "array": busy(Unit.MATMUL),
            "lost": lost,
            "vector": busy(Unit.VECTOR),
            "load": busy(Unit.LOAD),
            "store": busy(Unit.STORE),
            "loaded": loaded,
            "stored": stored,
            **self._roofline(macs, loaded, stored, _covered(work), _covered(work + loads)),
        }

    def _roofline(
        self, macs: int, loaded: int, stored: int, cycles: int, active: int
    ) -> dict[str, Any]:
        config = self.executable.config
        peak = config.rows * config.columns
        compute = macs / peak
        # Reads and writes have a channel each.
        memory = max(loaded, stored) / config.axi_bytes
        bound = max(compute, memory)
        counts = bool(macs and bound)
        return {
            "cycles": cycles,
            "active": active,
            "utilization": macs / (peak * cycles) if macs and cycles else None,
            "intensity": macs / (loaded + stored) if macs and loaded + stored else None,
            "bound": ("compute" if compute >= memory else "memory") if counts else None,
            "roofline": bound if counts else None,
            "attained": bound / active if counts and active else None,
        }

    # ---- units ----

    def units(self) -> list[dict[str, Any]]:
        """JSON-able figures of each unit.

        Returns
        -------
        list of dict
            unit, commands, bytes it moves, cycles of the run, and `reasons`: the machine's
            counters, busy first, which add up to cycles exactly.
        """
        return [
            {
                "unit": unit.name.lower(),
                "commands": len(self.of(unit)),
                "bytes": sum(step.bytes for step in self.of(unit)),
                "cycles": self.result.cycles,
                "reasons": {
                    reason: self.result.counters[unit.name.lower()][reason]
                    for reason in COUNTERS[unit.name.lower()]
                },
            }
            for unit in UNITS
        ]


def _start(steps: Iterable[Step]) -> int:
    """First cycle of work, loads aside if there is anything else."""
    spans = [step.span for step in steps]
    works = [span for span in spans if span.unit != Unit.LOAD] or spans
    return min((span.first_busy for span in works), default=0)


def _end(steps: Iterable[Step]) -> int:
    return max((step.span.end for step in steps), default=0)


def _covered(intervals: list[tuple[int, int]]) -> int:
    """Cycles in at least one of the intervals [a, b)."""
    total, reached = 0, 0
    for start, end in sorted(intervals):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
