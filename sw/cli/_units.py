"""The table of what each unit did with its cycles."""

from collections.abc import Iterable, Mapping
from typing import Any

from tilewright.sw.cli._output import Column

Counters = Mapping[str, Mapping[str, int]]
"""Cycles of each unit, by reason."""


def unit_rows(counters: Iterable[Counters]) -> list[dict[str, Any]]:
    """Cycles by reason and unit, of all runs together, and their sum."""
    from tilewright.hw.registers import COUNTERS

    runs = list(counters)
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys(reason for reasons in COUNTERS.values() for reason in reasons):
        row: dict[str, Any] = {"cycles": kind}
        for unit, reasons in COUNTERS.items():
            if kind in reasons:
                row[unit] = sum(run[unit][kind] for run in runs)
        rows.append(row)
    rows.append(
        {"cycles": "sum", **{unit: sum(row.get(unit, 0) for row in rows) for unit in COUNTERS}}
    )
    return rows


def unit_columns(cycles: int) -> list[Column]:
    """Columns of `unit_rows`, as shares of the cycles of all runs."""
    from tilewright.hw.registers import COUNTERS

    def share(value: int | None) -> str:
        return "" if value is None else f"{value / cycles:.2%}"

    return [
        Column(key="cycles", header=""),
        *(Column(key=unit, header=unit, right=True, show=share) for unit in COUNTERS),
    ]
