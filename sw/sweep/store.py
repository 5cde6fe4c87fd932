"""The store of a sweep: one row of SQLite a finished point, and its exports."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tilewright.sw.cache import lock
from tilewright.sw.errors import UserError
from tilewright.sw.files import write_whole
from tilewright.sw.sweep.point import COLUMNS, Row, id_of

NAME = "sweep.sqlite"
_SQL = {str: "TEXT", int: "INTEGER", float: "REAL"}


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's errors in one line each."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path} is no store of a sweep: {error}; give another folder") from error


def _prepare(base: sqlite3.Connection) -> None:
    """Check the file, or make its table."""
    ((state,),) = base.execute("PRAGMA quick_check(1)").fetchall()
    if state != "ok":
        raise sqlite3.DatabaseError(state)
    columns = ", ".join(f"{name} {_SQL[kind]}" for name, kind in COLUMNS.items())
    base.execute(f"CREATE TABLE IF NOT EXISTS points ({columns}, spec TEXT, PRIMARY KEY (point))")
    if {row[1] for row in base.execute("PRAGMA table_info(points)")} != {*COLUMNS, "spec"}:
        raise sqlite3.DatabaseError("its columns are others")


class Store:
    """Rows on disk: each is there as soon as its point is finished, whatever comes after.

    Parameters
    ----------
    folder : Path
        Made if need be; holds the file `NAME`.

    Raises
    ------
    UserError
        If the file is damaged or of another kind, or another sweep is writing it.
    OSError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        with contextlib.ExitStack() as opened:
            try:
                opened.enter_context(lock(self.path, timeout=0))
            except TimeoutError:
                raise UserError(f"{folder}: another sweep is running there") from None
            with _told(self.path):
                # Each statement its own transaction, on disk when it returns.
                base = sqlite3.connect(self.path, isolation_level=None)
                opened.enter_context(contextlib.closing(base))
                _prepare(base)
            self._base = base
            self._open = opened.pop_all()

    def close(self) -> None:
        """Let go of the file."""
        self._open.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def put(self, row: Row, spec: dict[str, Any]) -> None:
        """Keep a row, in place of an older one of the same point."""
        values = [*(row[name] for name in COLUMNS), json.dumps(spec, sort_keys=True)]
        marks = ", ".join("?" * len(values))
        with _told(self.path):
            self._base.execute(f"INSERT OR REPLACE INTO points VALUES ({marks})", values)

    def rows(self) -> dict[str, Row]:
        """Every row, by its point.

        Raises
        ------
        UserError
            If a value is of another type than its column.
        """
        with _told(self.path):
            found = self._base.execute(f"SELECT {', '.join(COLUMNS)} FROM points").fetchall()
            rows = [dict(zip(COLUMNS, one, strict=True)) for one in found]
            for row in rows:
                for name, value in row.items():
                    if not isinstance(value, COLUMNS[name] | None):
                        raise sqlite3.DatabaseError(f"{name} of {row['point']} is {value!r}")
        return {row["point"]: row for row in rows}

    def spec(self, point: str) -> dict[str, Any]:
        """What a point is, as `Point.spec`.

        Raises
        ------
        UserError
            If the store has no such point, or what it is was changed there.
        """
        with _told(self.path):
            found = self._base.execute("SELECT spec FROM points WHERE point = ?", [point])
            row = found.fetchone()
        if row is None:
            raise UserError(f"point {point!r}: {self.path} has none of this name")
        with _told(self.path):
            if id_of(str(row[0])) != point:
                raise sqlite3.DatabaseError(f"what {point} is was changed")
        spec: dict[str, Any] = json.loads(row[0])
        return spec


def to_csv(rows: Sequence[Row]) -> bytes:
    """Rows as CSV with a header; what was not measured is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def from_csv(data: bytes) -> list[Row]:
    """Rows of `to_csv`."""
    return [
        {name: COLUMNS[name](value) if value else None for name, value in row.items()}
        for row in csv.DictReader(io.StringIO(data.decode(), newline=""))
    ]


def to_parquet(rows: Sequence[Row]) -> bytes | None:
    """Rows as Parquet; None without pyarrow, an extra of the project."""
    if importlib.util.find_spec("pyarrow") is None:
        return None
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def export(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write `points.csv`, and `points.parquet` where pyarrow is installed; each appears whole."""
    made = [write_whole(folder / "points.csv", to_csv(rows))]
    parquet = to_parquet(rows)
    if parquet is not None:
        made.append(write_whole(folder / "points.parquet", parquet))
    return made
