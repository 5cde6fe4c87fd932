"""Writes the page and the pictures of a sweep."""

from __future__ import annotations

import html
import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from tilewright import __version__
from tilewright.extras import install
from tilewright.sw.errors import UserError
from tilewright.sw.files import write_whole
from tilewright.sw.sweep.report.figures import inline, pictures
from tilewright.sw.sweep.report.plots import Plot, Row, Series, number, plots_of, series_of
from tilewright.sw.sweep.report.table import clean, columns_of, packed


def write_report(rows: list[dict[str, Any]], folder: Path, title: str) -> list[Path]:
    """Write a sweep as one page, and each of its plots as pictures.

    Parameters
    ----------
    rows
        A dict for each point: `point`, `name`, `status` (done, failed or infeasible), its
        configuration and what was measured; None, or no key, for what was not. Keys this package
        does not know become columns too.
    folder
        Where to; made if it does not exist.
    title
        Of the page: the model and the space.

    Returns
    -------
    list[Path]
        report.html, then an SVG and a PNG of each plot the points allow.

    Raises
    ------
    UserError
        If matplotlib is missing, there is no point, or two points have the same id.
    OSError
        If a file cannot be written; those that were there before are still whole.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"a report needs matplotlib; type: {install('sweep')}")
    if not rows:
        raise UserError("a report needs at least one point")
    doubled = [name for name, n in Counter(str(row.get("point")) for row in rows).items() if n > 1]
    if doubled:
        raise UserError(f"{doubled[0]!r} names more than one point")

    series = series_of(rows)
    plots, missing = plots_of(rows, series)
    page = _page(rows, title, series, plots, missing).encode()
    images = {plot.name: pictures(plot, series, rows) for plot in plots}

    folder.mkdir(parents=True, exist_ok=True)
    written = [write_whole(folder / "report.html", page)]
    for name, forms in images.items():
        written += [write_whole(folder / f"{name}.{form}", data) for form, data in forms.items()]
    return written


def _page(
    rows: Sequence[Row], title: str, series: Series, plots: Sequence[Plot], missing: Sequence[str]
) -> str:
    columns, common = columns_of(rows)
    figures, drawn = [], []
    for plot in plots:
        svg, points = inline(plot)
        figures.append(
            f'<figure class="plot" id="{plot.name}">'
            f"<figcaption><b>{plot.title}</b> {plot.caption}</figcaption>{svg}</figure>"
        )
        drawn.append({"name": plot.name, "title": plot.title, "points": points,
                      "front": plot.has_front})  # fmt: skip
    data = {
        "common": common,
        "series": {"label": series.label, "names": series.names, "of": series.of},
        "plots": drawn,
        **packed(rows, columns),
    }
    here = resources.files(__package__)
    text = {name: (here / name).read_text(encoding="utf-8")
            for name in ("page.html", "page.css", "page.js")}  # fmt: skip
    return Template(text["page.html"]).substitute(
        title=html.escape(title),
        about=html.escape(_about(rows)),
        tiles=_tiles(rows),
        figures="\n".join(figures),
        missing="".join(f"<p class=note>{html.escape(line)}.</p>" for line in missing),
        css=text["page.css"],
        js=text["page.js"],
        # No text of a point can end the script it stands in.
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def _about(rows: Sequence[Row]) -> str:
    """When the page was made, and with what the points were measured."""
    kinds = {json.dumps(clean(row.get("versions")), sort_keys=True) for row in rows}
    kinds.discard("null")
    parts = [f"{datetime.now(UTC):%Y-%m-%d}", f"written by Tilewright {__version__}"]
    if len(kinds) > 1:
        parts.append(f"measured with {len(kinds)} sets of versions (see each point)")
    elif kinds:
        versions = json.loads(kinds.pop())
        if isinstance(versions, str) and versions.startswith("{"):
            versions = json.loads(versions)
        if isinstance(versions, dict):
            versions = ", ".join(f"{name} {version}" for name, version in versions.items())
        parts.append(f"measured with {versions}")
    return " · ".join(parts)


def _tiles(rows: Sequence[Row]) -> str:
    """The figures one looks for first."""
    counts = Counter(str(row.get("status")) for row in rows)
    tiles = [
        (f"{counts[status]:,}", status, status if counts[status] else "")
        for status in ("done", "failed", "infeasible")
    ]

    def best(key: str, form: str, label: str, sign: int) -> None:
        found = [(sign * value, row) for row in rows if row.get("status") == "done"
                 and (value := number(row.get(key))) is not None]  # fmt: skip
        if found:
            value, row = min(found, key=lambda pair: pair[0])
            tiles.append((format(sign * value, form), f"{label}: {row.get('name')}", "best"))

    best("cycles", ",.0f", "fewest cycles", 1)
    best("accuracy_mean", ".5f", "best mean cosine", -1)
    best("inferences_per_s", ",.1f", "most inferences a second", -1)
    seconds = sum(number(row.get("seconds")) or 0 for row in rows)
    if seconds:
        tiles.append((_duration(seconds), "of measuring", "time"))
    return "\n".join(
        f'<div class="tile {kind}"><b>{html.escape(value)}</b> {html.escape(label)}</div>'
        for value, label, kind in tiles
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
