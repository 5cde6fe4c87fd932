"""The plots as pictures: whole for papers, without their points for the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tilewright.sw.sweep.report.plots import Axis, Plot, Row, Series, array, wide

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#2a78d6", "#e0662a", "#12996b", "#c48a00",
    "#d4578c", "#5b48b8", "#6b7280", "#c93a39",
)  # fmt: skip
"""Of the series, on white; page.css has them again for both schemes."""
_MARKERS = "osD^"
_INK, _SOFT = "#20242b", "#d8dce2"
_INLINE = {_INK: "currentColor", _SOFT: "var(--line)"}
"""In the page the scheme, light or dark, colours text and lines."""
_SIZE = (6.2, 4.2)
_DPI = 200
_MARGIN = 0.07
_APART = 34
"""Points (1/72 inch) between the names of two points on a front."""


def _limits(values: Sequence[float], axis: Axis, log: bool) -> tuple[float, float]:
    if axis.names:
        return -0.6, len(axis.names) - 0.4
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
    # Room where all values are equal, too, and below for the names on the front.
    room = _MARGIN * (high - low) or (0.2 if log else 0.1 * abs(high) or 1.0)
    low, high = low - 1.6 * room, high + room
    return (10**low, 10**high) if log else (low, high)


def _scale(axes: Axes, which: str, axis: Axis, values: Sequence[float]) -> None:
    """Scale, range, ticks and label of one direction."""
    from matplotlib.ticker import (
        AutoLocator,
        EngFormatter,
        Formatter,
        FuncFormatter,
        LogLocator,
        NullLocator,
        PercentFormatter,
    )

    log = not axis.names and (axis.log or wide(values))
    side = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}label": axis.label})
    axes.set(**{f"{which}lim": _limits(values, axis, log)})
    side.set_minor_locator(NullLocator())
    if axis.names:
        crowded = len(axis.names) > 9
        side.set_ticks(range(len(axis.names)), axis.names, rotation=60 if crowded else 0)
        return
    # Within one decade 1, 2 and 5 may be too few.
    side.set_major_locator(LogLocator(subs=(1, 2, 5)) if log and wide(values) else AutoLocator())
    forms: dict[str, Formatter] = {
        "count": EngFormatter(sep=""),
        "percent": PercentFormatter(1.0),
        "plain": FuncFormatter(lambda value, _: f"{value:g}"),
    }
    side.set_major_formatter(forms[axis.form])


def _axes(plot: Plot) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    # 72 dots an inch: the canvas then counts as an SVG does.
    figure = Figure(figsize=_SIZE, dpi=72, layout="constrained")
    axes = figure.subplots()
    _scale(axes, "x", plot.x, [x for x, _ in plot.places.values()])
    _scale(axes, "y", plot.y, [y for _, y in plot.places.values()])
    axes.grid(axis="y" if plot.x.names else "both", color=_SOFT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(length=0, labelsize=9, labelcolor=_INK)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for place, level in enumerate(plot.bars):
        if level is not None:
            axes.plot([place - 0.42, place + 0.42], [level, level], color=_INK, linewidth=1.2)
    return figure, axes


def _points(axes: Axes, plot: Plot, series: Series, rows: Sequence[Row]) -> None:
    for number, name in enumerate(series.names):
        places = [place for row, place in plot.places.items() if series.of[row] == number]
        if places:
            axes.scatter(
                [x for x, _ in places],
                [y for _, y in places],
                s=26,
                color=COLOURS[number],
                marker=_MARKERS[number % len(_MARKERS)],
                label=name,
                alpha=0.85,
                linewidths=0.5,
                edgecolors="white",
                zorder=3,
            )
    front = plot.front
    if front:
        xs, ys = zip(*(plot.places[row] for row in front), strict=True)
        axes.plot(xs, ys, color=_INK, linewidth=1.1, drawstyle="steps-post", zorder=2)
    last = (-math.inf, math.inf)
    named = None
    for row in front:
        size = array(rows[row])
        x, y = axes.transData.transform(plot.places[row])
        if size is None or size == named or math.dist(last, (x, y)) < _APART:
            continue
        last, named = (x, y), size
        # Left below a point of the front there is no other point.
        axes.annotate(
            size,
            plot.places[row],
            xytext=(-4, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=7.5,
            color=_INK,
        )
    if len(series.names) > 1:
        axes.legend(
            title=series.label,
            fontsize=8,
            title_fontsize=8,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )


def _settings() -> AbstractContextManager[None]:
    """Names that do not change from run to run, and text that stays text."""
    import matplotlib

    return matplotlib.rc_context({"svg.hashsalt": "tilewright", "svg.fonttype": "none"})


def pictures(plot: Plot, series: Series, rows: Sequence[Row]) -> dict[str, bytes]:
    """The plot as "svg" and "png"; equal rows give equal files."""
    found = {}
    with _settings():
        figure, axes = _axes(plot)
        figure.draw_without_rendering()  # the names on the front depend on the layout
        _points(axes, plot, series, rows)
        axes.set_title(plot.title, loc="left", fontsize=11, color=_INK)
        for form, about in (("svg", {"Date": None}), ("png", {"Software": None})):
            file = io.BytesIO()
            figure.savefig(file, format=form, dpi=_DPI, metadata=about)
            found[form] = file.getvalue()
    return found


def inline(plot: Plot) -> tuple[str, list[list[float]]]:
    """The plot's axes as SVG to stand in HTML, and where in it its points belong.

    Returns
    -------
    tuple
        The SVG element, and for each point row, position from the left, position from the top,
        value across, value up.
    """
    file = io.BytesIO()
    with _settings():
        figure, axes = _axes(plot)
        figure.savefig(file, format="svg", transparent=True)
        height = figure.bbox.height
        places = axes.transData.transform(list(plot.places.values()))
    svg = file.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The page sets the size; several of these stand in one page, where a name must be unique.
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{plot.name}-", svg)
    for colour, meaning in _INLINE.items():
        svg = svg.replace(colour, meaning)
    points = [
        [row, round(px, 2), round(height - py, 2), x, y]
        for (row, (x, y)), (px, py) in zip(plot.places.items(), places.tolist(), strict=True)
    ]
    return svg, points
