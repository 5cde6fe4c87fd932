"""What the page's table shows: which columns, and how their values are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tilewright.sw.sweep.report.plots import Row

_HIDDEN = {"reason", "units", "versions", "manifest_hash", "command", "seed", "seconds"}
"""Too long for a table, or of no interest until a point is selected."""
_ALWAYS = {"point", "name", "status"}
_FORMS = {
    "utilization": ("percent", 2),
    "rtl_error": ("percent", 3),
    "accuracy_mean": ("fixed", 5),
    "accuracy_worst": ("fixed", 5),
    "fmax_mhz": ("fixed", 1),
    "latency_ms": ("fixed", 3),
    "inferences_per_s": ("fixed", 1),
    "seconds": ("fixed", 1),
}
_KEY_FIGURES = (
    "cycles", "utilization", "accuracy_mean", "lut", "dsp", "onchip_bytes", "dram_bytes",
    "fmax_mhz", "latency_ms", "inferences_per_s",
)  # fmt: skip
"""What is shown of a point beside the pointer."""


@dataclass(frozen=True)
class Column:
    """A key of the rows: how it is headed and written."""

    key: str
    label: str
    form: str
    """text, integer, fixed, percent or number."""
    digits: int = 0
    shown: bool = True
    """In the table; others are seen once a point is selected."""
    key_figure: bool = False


def clean(value: object) -> object:
    """The value as JSON can hold it: what is not a finite number becomes None."""
    if isinstance(value, dict):
        return {str(key): clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _column(key: str, values: Sequence[object]) -> Column:
    present = [value for value in values if value is not None]
    form, digits = "text", 0
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        whole = all(isinstance(value, int) for value in present)
        form, digits = _FORMS.get(key, ("integer" if whole else "number", 0))
    return Column(
        key=key,
        label=key.replace("_", " "),
        form=form,
        digits=digits,
        shown=key not in _HIDDEN,
        key_figure=key in _KEY_FIGURES,
    )


def columns_of(rows: Sequence[Row]) -> tuple[list[Column], dict[str, object]]:
    """The columns that tell points apart, and what is the same in all of them.

    A key that is None in every row is in neither.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    columns, common = [], {}
    for key in keys:
        values = [clean(row.get(key)) for row in rows]
        if all(value is None for value in values):
            continue
        if len(rows) > 1 and key not in _ALWAYS and all(value == values[0] for value in values):
            common[key] = values[0]
        else:
            columns.append(_column(key, values))
    return columns, common


def packed(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, object]:
    """Rows as a list of values for each column: a third of what a dict for each row takes."""
    return {
        "columns": [asdict(column) for column in columns],
        "values": {column.key: [clean(row.get(column.key)) for row in rows] for column in columns},
    }
