"""What is measured, and the file that keeps it."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tilewright.sw.sources import ROOT, source_hash

Tell = Callable[[str], None]
"""Told what is being done, a few words."""


class Unavailable(Exception):
    """An item cannot be measured on this machine; the message is the reason, in one line."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to measure.

    Parameters
    ----------
    part : str
        Name of the part it belongs to.
    spec : dict
        Values that JSON knows; they say all of what is measured.
    sources : tuple of str
        Files and folders of the project that the result depends on.
    measure : callable
        Measures; returns values that JSON knows. Raises `Unavailable` where it cannot.
    label : str
        For people.
    """

    part: str
    spec: dict[str, Any]
    sources: tuple[str, ...]
    measure: Callable[[Tell], dict[str, Any]]
    label: str

    @property
    def key(self) -> str:
        """Name of its result: specification and sources."""
        words = json.dumps([self.part, self.spec], sort_keys=True) + source_hash(self.sources)
        return hashlib.sha256(words.encode()).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A result as it is kept: of which item, measured on which commit, in how many seconds."""

    key: str
    part: str
    spec: dict[str, Any]
    result: dict[str, Any]
    commit: str
    seconds: float


Found = dict[str, list[Row]]
"""Rows by part, in the order of the part's items."""


@functools.cache
def commit() -> str:
    """The commit at hand, with a "+" if files differ from it; "unknown" outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", ROOT, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ":/hw", ":/sim", ":/sw")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@dataclass
class Results:
    """Results in a file of JSON lines, appended as they come.

    Parameters
    ----------
    path : Path
        Need not exist. A last line that was cut off is passed over.
    """

    path: Path
    rows: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.is_file():
            # Bytes: the cut may be within a character.
            for line in self.path.read_bytes().splitlines():
                try:
                    row = Row(**json.loads(line))
                except (ValueError, TypeError):
                    continue
                self.rows[row.key] = row

    def find(self, items: Iterable[Item]) -> list[Row]:
        """What is known of these items."""
        return [self.rows[item.key] for item in items if item.key in self.rows]

    def measure(self, item: Item, tell: Tell) -> Row:
        """The item's row, measured if it is not known.

        Raises
        ------
        Unavailable
            If it cannot be measured here.
        """
        key = item.key
        if key not in self.rows:
            begun = time.perf_counter()
            result = item.measure(tell)
            row = Row(
                key=key,
                part=item.part,
                spec=item.spec,
                result=result,
                commit=commit(),
                seconds=round(time.perf_counter() - begun, 3),
            )
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps(asdict(row), ensure_ascii=False).encode() + b"\n"
            with self.path.open("a+b") as file:
                file.seek(max(0, file.tell() - 1))
                # A last line that was cut off must not swallow this one.
                cut = file.read() not in (b"", b"\n")
                file.write(b"\n" * cut + line)
            self.rows[key] = row
        return self.rows[key]
