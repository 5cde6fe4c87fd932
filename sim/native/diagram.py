"""Timing diagrams as SVG: lanes of boxes over cycles. Equal diagrams make equal text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import cycle

import numpy as np
import numpy.typing as npt

_LABELS = 168
"""Width of the column with the names of lanes."""
_LANE, _BOX = 25, 18
"""Height of a lane, and of a box in it."""
_LETTER = 6.2
"""Width of a letter in a box, to know whether a text fits."""
_COLOURS = ("#8a6d3b", "#2f6fb0", "#3a8a4f", "#b5562f", "#7a4fa3")
"""Of the groups, one after the other."""
# Attributes, not a style sheet: within a notebook that would hold for the whole of it.
_BOLD = 'font-weight="bold" font-size="13"'
_RULER = 'text-anchor="middle" fill="#777" font-size="11"'


@dataclass(frozen=True)
class Box:
    """What a lane shows in the cycles in which something is so.

    Attributes
    ----------
    active : array of bool
        One value a cycle.
    text : str or sequence
        Written into the box where it fits; a sequence has one value a cycle. Cycles that follow
        each other with the same text share a box.
    pale : bool
        Drawn as waiting, not as work.
    strong : bool
        Drawn to be seen first.
    split : bool
        A box for each cycle, whatever its text.
    """

    active: npt.NDArray[np.bool_]
    text: str | Sequence[object] | npt.NDArray[np.generic] = ""
    pale: bool = False
    strong: bool = False
    split: bool = False


class Clock:
    """In place of boxes: the clock, whose rising edges are between cycles."""


@dataclass(frozen=True)
class Group:
    """Lanes of one colour under a heading: the name of each, and what is on it."""

    name: str
    lanes: Mapping[str, Sequence[Box] | Clock]


@dataclass(frozen=True)
class Picture:
    """An SVG that notebooks show."""

    title: str
    svg: str = field(repr=False)

    def _repr_svg_(self) -> str:
        return self.svg


def draw(
    title: str, groups: Sequence[Group], *, cycles: range, width: float, ruler: int
) -> Picture:
    """Draw lanes of boxes.

    Parameters
    ----------
    title : str
        For who cannot see it, and as a tooltip.
    groups : sequence of Group
    cycles : range
        What is shown of the arrays.
    width : float
        Of a cycle.
    ruler : int
        Cycles from mark to mark.
    """
    right = round(_LABELS + width * len(cycles)) + 12
    marks, lines = list[str](), list[str]()
    y = 26
    for group, colour in zip(groups, cycle(_COLOURS), strict=False):
        top = y
        heading = _text(group.name)
        lines.append(f'<text x="12" y="{y + 15}" fill="{colour}" {_BOLD}>{heading}</text>')
        y += 22
        for name, boxes in group.lanes.items():
            lines += _lane(name, boxes, y, cycles, width, colour)
            y += _LANE
        high = y - top - 5
        lines.append(f'<rect x="2" y="{top + 3}" width="4" height="{high}" fill="{colour}"/>')
        y += 5
    for at in cycles:
        if at % ruler == 0:
            x = _number(_LABELS + width * (at - cycles.start))
            marks.append(f'<path d="M{x} 22V{y}" stroke="#e4e4e4"/>')
            marks.append(f'<text x="{x}" y="16" {_RULER}>{at}</text>')
    return Picture(
        title,
        "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {y + 4}" '
                'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">',
                f"<title>{_text(title)}</title>",
                f'<rect width="{right}" height="{y + 4}" fill="#fff"/>',
                f'<text x="{_LABELS - 44}" y="16" {_RULER}>cycle</text>',
                *marks,
                *lines,
                "</svg>\n",
            )
        ),
    )


def _lane(
    name: str, boxes: Sequence[Box] | Clock, y: int, cycles: range, width: float, colour: str
) -> Iterator[str]:
    low = y + _BOX
    yield f'<text x="{_LABELS - 8}" y="{y + 13}" text-anchor="end">{_text(name)}</text>'
    if isinstance(boxes, Clock):
        half, high = _number(width / 2), _BOX - 4
        wave = f"v-{high}h{half}v{high}h{half}" * len(cycles)
        yield f'<path d="M{_LABELS} {low}{wave}" fill="none" stroke="{colour}"/>'
        return
    yield f'<path d="M{_LABELS} {low}h{_number(width * len(cycles))}" stroke="#bbb"/>'
    for box in boxes:
        if box.pale:
            fill, ink = 'fill="#fff" stroke-dasharray="2 2"', "#666"
        elif box.strong:
            fill, ink = f'fill="{colour}" fill-opacity=".8"', "#fff"
        else:
            fill, ink = f'fill="{colour}" fill-opacity=".22"', "#111"
        yield f'<g stroke="{colour}" {fill}>'
        texts = []
        for first, count, text in _runs(box, cycles):
            x, wide = _LABELS + width * (first - cycles.start), width * count
            yield (
                f'<rect x="{_number(x)}" y="{y}" width="{_number(wide)}" height="{_BOX}" '
                f'rx="{_number(min(2.0, width / 3))}"/>'
            )
            if text and len(text) * _LETTER <= wide:
                texts.append((_number(x + wide / 2), text))
        yield "</g>"
        yield f'<g fill="{ink}" text-anchor="middle" font-size="10">'
        for place, text in texts:
            yield f'<text x="{place}" y="{y + 13}">{_text(text)}</text>'
        yield "</g>"


def _runs(box: Box, cycles: range) -> Iterator[tuple[int, int, str]]:
    """First cycle, cycles and text of each box."""
    start, held = cycles.start, ""
    active = False
    for at in (*cycles, None):
        now = at is not None and bool(box.active[at])
        text = "" if not now else box.text if isinstance(box.text, str) else str(box.text[at])
        end = cycles.stop if at is None else at
        if active and (not now or text != held or box.split):
            yield start, end - start, held
            active = False
        if now and not active:
            start, held, active = end, text, True


def _number(value: float) -> str:
    """At most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return escape(text, quote=False)
