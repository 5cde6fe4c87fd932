"""A run as a trace for ui.perfetto.dev or chrome://tracing, in the Trace Event Format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tilewright.hw.commands import COMMAND_LAYOUTS
from tilewright.hw.encoding import Command, Scalar
from tilewright.sw.profiling.figures import GROUPS, UNITS, Profile, Step
from tilewright.sw.program.operation_names import SEPARATOR

_UNITS, _OPERATIONS, _CURVES = 1, 2, 3
"""Processes of the trace: a track for each unit, for each kind of operation, curves."""
_POINTS = 1000
"""Points of a curve."""


def _values(command: Command) -> dict[str, Any]:
    """Fields that are not 0, enumerations by name."""
    found: dict[str, Any] = {}
    for name, spec in COMMAND_LAYOUTS[command.opcode].items():
        value = command.fields[name]
        if isinstance(value, Scalar):
            found[name] = str(value)
        elif spec.values is not None:
            found[name] = spec.values(value).name
        elif value:
            found[name] = value
    for sign, tokens in (("waits", command.waits), ("posts", command.posts)):
        if tokens:
            found[sign] = " ".join(f"{token.semaphore}×{token.amount}" for token in tokens)
    return found


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": name}}


def _command(step: Step) -> dict[str, Any]:
    span = step.span
    first, end = span.bar
    return {
        "ph": "X",
        "pid": _UNITS,
        "tid": int(span.unit),
        "name": f"{step.operation}{SEPARATOR}{step.command.opcode.name}",
        "cat": step.command.opcode.name,
        "ts": first,
        "dur": end - first,
        "args": {
            "index": span.index,
            "operation": step.operation,
            "taken": span.start,
            "retired": span.end,
            "busy": span.busy,
            **({"bytes": step.bytes} if step.bytes else {}),
            **_values(step.command),
        },
    }


def _operations(profile: Profile) -> Iterator[dict[str, Any]]:
    """Operations from first to last cycle; asynchronous: those of a kind may overlap."""
    for number, row in enumerate(profile.operations("head")):
        kind = GROUPS["operation"](row["operation"])
        common = {"pid": _OPERATIONS, "tid": 0, "cat": kind, "id": number, "name": kind}
        figures = {k: v for k, v in row.items() if v is not None}
        yield {**common, "ph": "b", "ts": row["start"], "args": figures}
        yield {**common, "ph": "e", "ts": row["end"]}


def _curves(profile: Profile) -> Iterator[dict[str, Any]]:
    cycles = profile.result.cycles
    edges = np.linspace(0, cycles, min(_POINTS, cycles) + 1)
    for unit in UNITS:
        name = f"{unit.name} busy %"
        for start, share in zip(edges[:-1], profile.busy(unit, edges), strict=True):
            yield {
                "ph": "C",
                "pid": _CURVES,
                "name": name,
                "ts": round(float(start), 1),
                "args": {"busy": round(100 * float(share), 2)},
            }


def trace(profile: Profile) -> dict[str, Any]:
    """The trace of a run, a document of the Trace Event Format; a microsecond is a cycle.

    A bar is a command from the first to the last cycle its unit works on it, stalls included;
    `taken` and `retired` of its arguments are the cycles it was on the unit. Bars of a unit do not
    overlap.
    """
    names = [
        _name("process_name", _UNITS, 0, "units"),
        *(_name("thread_name", _UNITS, int(unit), unit.name) for unit in UNITS),
        _name("process_name", _OPERATIONS, 0, "operations"),
        _name("process_name", _CURVES, 0, "curves"),
    ]
    return {
        "displayTimeUnit": "ns",
        "otherData": {
            "note": "a microsecond is a clock cycle of the machine; 0 is the start of the run",
            "config": profile.executable.config.title,
            "cycles": profile.result.cycles,
        },
        "traceEvents": [
            *names,
            *map(_command, profile.steps),
            *_operations(profile),
            *_curves(profile),
        ],
    }


def to_bytes(profile: Profile) -> bytes:
    """The trace as a file's content."""
    return json.dumps(trace(profile), ensure_ascii=False, separators=(",", ":")).encode()
