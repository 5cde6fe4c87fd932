"""A run as a picture: a lane for each unit, coloured by operation, and how busy they are."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tilewright.hw.commands import Unit
from tilewright.sw.errors import UserError
from tilewright.sw.profiling.figures import GROUPS, UNITS, Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "embedding": "#7f7f7f",
    "qkv": "#4878b0",
    "scores": "#e08a1e",
    "softmax": "#d6453d",
    "context": "#f2c14e",
    "output": "#6b4fa0",
    "layernorm1": "#c879b8",
    "ffn1": "#3a9a5f",
    "ffn2": "#8cc265",
    "layernorm2": "#8c564b",
}
_PALE = ("scores", "context", "ffn2")
_OTHERS = ("#17becf", "#9aa0a6", "#5f6b7a", "#b5b35c")
_CURVES: dict[Unit, str] = {Unit.MATMUL: "#222222", Unit.VECTOR: "#d6453d", Unit.LOAD: "#4878b0"}
_WIDTH, _HEIGHT, _DPI = 13.0, 4.6, 130
_PIXELS = 1200
"""Across the lanes: bars of one operation that are closer than one of these are one."""
_POINTS = 240
"""Of a curve."""
_SEAM = 0.005
"""Least share of the width of a bar with a white edge."""
_LETTER = 0.0062
"""Share of the width a letter of a bar's name takes."""


def available() -> bool:
    """Whether pictures can be drawn here: matplotlib is an extra."""
    return importlib.util.find_spec("matplotlib") is not None


@dataclass
class Bar:
    """Neighbouring commands of one operation: cycles [start, end)."""

    operation: str
    start: float
    end: float


def merged(bars: Iterable[Bar], gap: float) -> list[Bar]:
    """Bars in order of time, those of one operation that are at most `gap` apart as one."""
    found: list[Bar] = []
    for bar in bars:
        if found and found[-1].operation == bar.operation and bar.start - found[-1].end <= gap:
            found[-1].end = max(found[-1].end, bar.end)
        else:
            found.append(Bar(bar.operation, bar.start, bar.end))
    return found


def window(profile: Profile, start: int, cycles: int) -> tuple[int, int]:
    """The range of cycles to show, checked; 0 cycles is up to the end.

    Raises
    ------
    UserError
        If it is not within the run.
    """
    whole = profile.result.cycles
    end = start + cycles if cycles else whole
    if start < 0 or cycles < 0 or start >= whole:
        raise UserError(f"{cycles} cycles from {start} on: the run has cycles 0 to {whole - 1}")
    return start, min(end, whole)


def _colours(profile: Profile) -> dict[str, str]:
    kinds = dict.fromkeys(GROUPS["operation"](step.operation) for step in profile.steps)
    others = [kind for kind in kinds if kind not in _COLOURS]
    spare = {kind: _OTHERS[number % len(_OTHERS)] for number, kind in enumerate(others)}
    return {kind: _COLOURS.get(kind) or spare[kind] for kind in kinds}


def _lane(axes: Axes, profile: Profile, unit: Unit, place: int, span: tuple[int, int]) -> set[str]:
    """Draw the bars of a unit; the kinds of operations that are seen."""
    low, high = span
    width = high - low
    bars = merged(
        (
            Bar(step.operation, max(first, low), min(end, high))
            for step in profile.of(unit)
            for first, end in [step.span.bar]
            if first < high and end > low
        ),
        gap=width / _PIXELS,
    )
    colours = _colours(profile)
    kinds = [GROUPS["operation"](bar.operation) for bar in bars]
    axes.broken_barh(
        [(bar.start, max(bar.end - bar.start, width / _PIXELS / 2)) for bar in bars],
        (place - 0.4, 0.8),
        facecolors=[colours[kind] for kind in kinds],
        edgecolors="white",
        # A seam between two heads; around a thin bar it would be all one sees.
        linewidths=[0.6 if bar.end - bar.start > _SEAM * width else 0 for bar in bars],
    )
    for bar, kind in zip(bars, kinds, strict=True):
        # The whole name where it fits, else what kind it is, else none.
        room = (bar.end - bar.start) / (_LETTER * width) - 1
        name = next((name for name in (bar.operation, kind) if len(name) <= room), "")
        axes.text(
            (bar.start + bar.end) / 2,
            place,
            name,
            ha="center",
            va="center",
            fontsize=8,
            color="black" if kind in _PALE else "white",
        )
    return set(kinds)


def _draw(profile: Profile, title: str, span: tuple[int, int]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter

    low, high = span
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    lanes, curves = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    seen: set[str] = set()
    for place, unit in enumerate(UNITS):
        seen |= _lane(lanes, profile, unit, place, span)
    ends = np.array(span, dtype=np.float64)
    names = [f"{unit.name}\n{profile.busy(unit, ends)[0]:.1%} busy" for unit in UNITS]
    lanes.set_yticks(range(len(UNITS)))
    lanes.set_yticklabels(names)
    lanes.set_ylim(len(UNITS) - 0.5, -0.5)
    lanes.set_xlim(low, high)
    lanes.tick_params(length=0)
    lanes.set_title(title, loc="left", fontsize=11)
    patches = [Patch(color=c, label=k) for k, c in _colours(profile).items() if k in seen]
    lanes.legend(
        handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False
    )

    edges = np.linspace(low, high, min(_POINTS, high - low) + 1)
    for drawn, colour in _CURVES.items():
        values = 100 * profile.busy(drawn, edges)
        array = drawn == Unit.MATMUL
        curves.stairs(
            values,
            edges,
            color=colour,
            label=drawn.name,
            linewidth=1.3 if array else 0.9,
            fill=False,
            zorder=3 if array else 2,
        )
        if array:
            curves.stairs(values, edges, color=colour, fill=True, alpha=0.12)
    curves.set_ylim(0, 104)
    curves.set_ylabel("busy, %", fontsize=9)
    curves.set_xlabel("cycles since the start of the run", fontsize=9)
    curves.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    curves.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    curves.grid(axis="y", color="#dddddd", linewidth=0.6)
    for axes in (lanes, curves):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    lanes.spines["left"].set_visible(False)
    return figure


def pictures(profile: Profile, title: str, span: tuple[int, int]) -> dict[str, bytes]:
    """The picture of cycles [a, b) as "svg" and "png"; equal runs give equal files."""
    import matplotlib

    found = {}
    # Names that do not change from run to run, and text that stays text.
    with matplotlib.rc_context({"svg.hashsalt": "tilewright", "svg.fonttype": "none"}):
        figure = _draw(profile, title, span)
        for form, about in (("svg", {"Date": None}), ("png", {"Software": None})):
            file = io.BytesIO()
            figure.savefig(file, format=form, dpi=_DPI, metadata=about)
            found[form] = file.getvalue()
    return found
