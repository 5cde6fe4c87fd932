"""What the plots of a sweep show: values, axes and series, without a picture of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tilewright.sw.sweep.report.fronts import pareto_front

Row = dict[str, Any]

MOST_SERIES = 8
"""As many colours can still be told apart."""
_SERIES = ("precision", "array", "lanes", "sequence", "axi_data_width")
"""What points are coloured by: the first that takes some values, but not many."""
_EXACT = 1e-6
"""Least distance to fp32 that is drawn: 0 has no place on a logarithmic axis."""
_AREAS = (
    ("lut", "look-up tables (LUT)", "count"),
    ("dsp", "multiplier blocks (DSP)", "count"),
    ("onchip_bytes", "on-chip memory, bytes", "count"),
    ("elements", "processing elements, rows × columns", "count"),
)
"""What stands for area, the best first: key, label, format."""


def number(value: object) -> float | None:
    """The value as a finite number, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def array(row: Row) -> str | None:
    """The size of a point's array: "16×16"."""
    rows, columns = row.get("rows"), row.get("columns")
    return None if rows is None or columns is None else f"{rows}×{columns}"


def elements(row: Row) -> float | None:
    """How many processing elements the array has."""
    rows, columns = number(row.get("rows")), number(row.get("columns"))
    return None if rows is None or columns is None else rows * columns


def distance(row: Row) -> float | None:
    """How far a point is from fp32: 1 − mean cosine."""
    mean = number(row.get("accuracy_mean"))
    return None if mean is None else max(1 - mean, _EXACT)


@dataclass(frozen=True)
class Series:
    """How points are coloured."""

    label: str
    names: tuple[str, ...]
    """One or more; the first is also that of points without a value."""
    of: tuple[int, ...]
    """For each row the index of its name."""


def series_of(rows: Sequence[Row]) -> Series:
    """The series that tells these points apart best."""
    for key in _SERIES:
        values = [array(row) if key == "array" else row.get(key) for row in rows]
        counts = Counter(str(value) for value in values if value is not None)
        if not 2 <= len(counts) <= MOST_SERIES and not (key == "precision" and len(counts) > 1):
            continue
        names = [name for name, _ in counts.most_common()]
        if len(names) > MOST_SERIES:  # mixed precisions
            names = [*names[: MOST_SERIES - 1], "others"]
        elif all(isinstance(value, int | float) for value in values if value is not None):
            names.sort(key=float)
        else:
            # Small arrays first, and "w8a16" after "w8a8".
            names.sort(key=lambda name: (len(name), name))
        places = {name: place for place, name in enumerate(names)}
        last = len(names) - 1
        of = tuple(0 if v is None else places.get(str(v), last) for v in values)
        return Series(key.replace("_", " "), tuple(names), of)
    return Series("", ("points",), (0,) * len(rows))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction of a plot."""

    label: str
    form: str = "plain"
    """How its numbers are written: plain, count (5k) or percent."""
    log: bool = False
    """Logarithmic at any range; others only where the values span a wide one."""
    names: tuple[str, ...] = ()
    """Of categories at 0, 1, 2 …"""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot of a sweep."""

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    places: dict[int, tuple[float, float]]
    """The value of each row that is drawn, by its index."""
    has_front: bool = True
    bars: tuple[float | None, ...] = ()
    """A level to mark for each category."""

    @property
    def front(self) -> list[int]:
        """Rows on the front, from left to right."""
        if not self.has_front:
            return []
        rows = list(self.places)
        return [rows[index] for index in pareto_front(list(self.places.values()))]


def _places(
    rows: Sequence[Row], x: Callable[[Row], float | None], y: Callable[[Row], float | None]
) -> dict[int, tuple[float, float]]:
    found = {}
    for index, row in enumerate(rows):
        if row.get("status") == "done":
            a, b = x(row), y(row)
            if a is not None and b is not None:
                found[index] = (a, b)
    return found


def _value(key: str) -> Callable[[Row], float | None]:
    return elements if key == "elements" else lambda row: number(row.get(key))


def area_of(rows: Sequence[Row]) -> tuple[str, str, str]:
    """The best measure of area that at least half of the finished points have: key, label, form."""
    done = [row for row in rows if row.get("status") == "done"]
    for measure in _AREAS:
        measured = sum(_value(measure[0])(row) is not None for row in done)
        if measured and 2 * measured >= len(done):
            return measure
    return _AREAS[-1]


def _utilization(rows: Sequence[Row], series: Series) -> Plot:
    """Categories are arrays; the series stand beside each other in each."""
    places = _places(rows, elements, lambda row: number(row.get("utilization")))
    # By size, then by rows: 8×32 before 16×16 before 32×8.
    keys = {
        (elements(rows[index]) or 0, rows[index]["rows"], array(rows[index])) for index in places
    }
    names = tuple(str(name) for _, _, name in sorted(keys))
    step = 0.7 / len(series.names)
    bars: list[float | None] = []
    for place, name in enumerate(names):
        inside = [index for index in places if array(rows[index]) == name]
        bars.append(median(places[index][1] for index in inside))
        for index in inside:
            shift = (series.of[index] - (len(series.names) - 1) / 2) * step
            places[index] = (place + shift, places[index][1])
    return Plot(
        name="utilization-array",
        title="Utilisation by array size",
        caption="Higher is better. Bar: median of the array's points.",
        x=Axis(label="array, rows × columns", names=names),
        y=Axis(label="utilisation of the array", form="percent"),
        places=places,
        has_front=False,
        bars=tuple(bars),
    )


def plots_of(rows: Sequence[Row], series: Series) -> tuple[list[Plot], list[str]]:
    """The plots that the finished points allow, and for each of the others why not."""
    key, label, form = area_of(rows)
    area = Axis(label=label, form=form)
    cycles = Axis(label="cycles", form="count")
    better = "Line: Pareto front. Lower left is better."
    wanted = [
        Plot(
            name="cycles-area",
            title="Cycles × area",
            caption=better,
            x=area,
            y=cycles,
            places=_places(rows, _value(key), _value("cycles")),
        ),
        Plot(
            name="accuracy-cycles",
            title="Accuracy × cycles",
            caption=better,
            x=cycles,
            y=Axis(label="distance to fp32, 1 − mean cosine", log=True),
            places=_places(rows, _value("cycles"), distance),
        ),
        Plot(
            name="latency-area",
            title="Latency × area",
            caption=better,
            x=area,
            y=Axis(label="latency, ms"),
            places=_places(rows, _value(key), _value("latency_ms")),
        ),
        _utilization(rows, series),
    ]
    needs = dict(
        zip(
            (plot.name for plot in wanted),
            ("cycles", "accuracy", "latency (a clock frequency)", "utilisation"),
            strict=True,
        )
    )
    missing = [
        f"{plot.title} is not drawn: no point has {needs[plot.name]}"
        for plot in wanted
        if not plot.places
    ]
    return [plot for plot in wanted if plot.places], missing


def wide(values: Iterable[float]) -> bool:
    """Whether a logarithmic axis suits: all above 0, and the largest many times the least."""
    found = list(values)
    low, high = min(found), max(found)
    return low > 0 and high >= 8 * low
