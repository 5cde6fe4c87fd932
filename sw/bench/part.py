"""What a part of the benchmark is, and how its tables show numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.hw.config import Config
from tilewright.sw.bench.markdown import Table
from tilewright.sw.bench.results import Found, Item, Row


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the benchmark.

    Parameters
    ----------
    name : str
    about : str
        One line.
    items : callable
        What it measures; given True, only what takes a minute or two.
    tables : callable
        Tables of what was found; they may show rows of other parts beside their own.
    """

    name: str
    about: str
    items: Callable[[bool], list[Item]]
    tables: Callable[[Found], Sequence[Table]]


def pick(rows: Sequence[Row], /, **spec: Any) -> Row | None:
    """The first row whose specification has these values."""
    for row in rows:
        if all(row.spec.get(name) == value for name, value in spec.items()):
            return row
    return None


def number(value: float | None) -> str:
    """An integer with separators, or a dash."""
    return "–" if value is None else f"{value:,.0f}"


def share(value: float | None, digits: int = 1) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None else f"{value:.{digits}%}"


def kib(value: int) -> str:
    """Bytes in KiB."""
    return f"{value / 1024:,.0f} KiB"


def onchip(config: dict[str, Any]) -> str:
    """On-chip memory of a configuration as JSON holds it."""
    return kib(Config.from_dict(config).onchip_bytes)


def array(config: dict[str, Any]) -> str:
    """Rows × columns of a configuration as JSON holds it."""
    return f"{config['rows']}×{config['columns']}"
