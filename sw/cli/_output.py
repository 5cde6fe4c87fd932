"""What every subcommand prints: a table for people, JSON for programs, from the same rows."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from tilewright import __version__
from tilewright.sw.errors import UserError
from tilewright.sw.files import write_whole

if TYPE_CHECKING:
    from rich.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    key : str
        Name of the value in a row, and in JSON.
    header : str
        What stands above the column.
    right : bool
        Whether the column is aligned to the right, as numbers are.
    show : callable, optional
        Value → text for people; JSON keeps the value.
    style : callable, optional
        Value → rich style of the cell, such as "red".
    """

    key: str
    header: str
    right: bool = False
    show: Callable[[Any], str] | None = None
    style: Callable[[Any], str] | None = None

    def text(self, value: Any) -> str:
        if self.show is not None:
            return self.show(value)
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}"
        return str(value)


def _check_folder(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> str | None:
    """Refuse a file that could not be written once all is computed."""
    if value not in (None, "-") and not Path(value).parent.is_dir():
        raise UserError(f"--json {value}: there is no folder {Path(value).parent}")
    return value


def json_option(function: F) -> F:
    """Give a click command the option `--json FILE`, its parameter `json_path`."""
    option = click.option(
        "--json",
        "json_path",
        metavar="FILE",
        type=click.Path(dir_okay=False, allow_dash=True),
        callback=_check_folder,
        help="Write the result as JSON too; '-' is standard output (the table then goes to "
        "standard error).",
    )
    return option(function)


def size(value: int) -> str:
    """Bytes for people: `size(524288)` is "512 KiB"."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} GiB"


def progress(*columns: str, keep: bool = False, window: float = 30) -> "Progress":
    """What shows progress on standard error.

    Parameters
    ----------
    columns : str
        Of every task, from the left: "spinner", "text" (its description), "bar", "count" (done of
        all), "detail" (a field of that name), "time" (since it began), "left" (how long it still
        takes). Texts are shown as they are, whatever brackets a path holds.
    keep : bool
        Whether it still stands there when all is done. What does not is shown on a terminal only.
    window : float
        Seconds over which the speed is measured for "left".
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    known = {
        "spinner": SpinnerColumn(),
        "text": TextColumn("{task.description}", markup=False),
        "bar": BarColumn(20),
        "count": MofNCompleteColumn(),
        "detail": TextColumn("{task.fields[detail]}", markup=False),
        "time": TimeElapsedColumn(),
        "left": TimeRemainingColumn(),
    }
    return Progress(
        *(known[column] for column in columns),
        console=console,
        transient=not keep,
        # It would leave an empty line behind.
        disable=not keep and not console.is_interactive,
        speed_estimate_period=window,
    )


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done; gives the function that changes the text."""
    with progress("spinner", "text", "time") as bar:
        task = bar.add_task(text)
        yield lambda text: bar.update(task, description=text)


class Tell(Protocol):
    """Changes what is shown; with a total, how much of it is done."""

    def __call__(self, text: str, done: int = 0, total: int | None = None) -> None: ...


@contextmanager
def stages(text: str) -> Iterator[Tell]:
    """Show on standard error what is being done, and how long it still takes where that is known.

    Gives the function that says so.
    """
    with progress("spinner", "text", "bar", "count", "time", "left") as bar:
        shown: tuple[str, int | None] = text, None
        task = bar.add_task(text, total=None)

        def tell(text: str, done: int = 0, total: int | None = None) -> None:
            nonlocal task, shown
            # A task never forgets its total, and measures its speed from its own beginning.
            if shown != (shown := (text, total)):
                bar.remove_task(task)
                task = bar.add_task(text, total=total)
            bar.update(task, completed=done)

        yield tell


def emit(
    *,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Mapping[str, Any]],
    json_path: str | None,
    notes: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Print a table and write the same as JSON where it was asked for.

    Parameters
    ----------
    title : str
        Title of the table.
    columns : sequence of Column
        What the table shows; rows may hold more, which only JSON shows.
    rows : iterable of mapping
        One mapping a row; values that JSON knows.
    json_path : str, optional
        File for the JSON, "-" for standard output.
    notes : sequence of str
        Lines below the table, for people only.
    extra : mapping, optional
        More members of the JSON document.
    """
    emit_tables(
        [(title, columns, rows)],
        json_path=json_path,
        notes=notes,
        extra=extra,
    )


def emit_tables(
    tables: Sequence[tuple[str, Sequence[Column], Iterable[Mapping[str, Any]]]],
    *,
    json_path: str | None,
    keys: Sequence[str] = (),
    notes: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> None:
    """`emit` for several tables of (title, columns, rows).

    In JSON the first one's rows are `rows`, and those of the others stand under `keys`; without,
    under their titles as identifiers.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(stderr=json_path == "-", highlight=False)
    document: dict[str, Any] = {"tilewright": __version__, **(extra or {})}
    others = keys or [re.sub(r"\W+", "_", title.lower()) for title, _, _ in tables[1:]]
    names = ["rows", *others]
    for index, (title, columns, rows) in enumerate(tables):
        members = [dict(row) for row in rows]
        document[names[index]] = members
        table = Table(title=escape(title), title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(
                column.header, justify="right" if column.right else "left", overflow="fold"
            )
        for row in members:
            cells = []
            for column in columns:
                value = row.get(column.key)
                text = escape(column.text(value))
                style = column.style(value) if column.style is not None else ""
                cells.append(f"[{style}]{text}[/]" if style else text)
            table.add_row(*cells)
        console.print(table)
    for note in notes:
        # Never wrapped: notes hold commands to copy.
        console.print(escape(note), soft_wrap=True)
    if json_path is not None:
        write_json(document, json_path)


def write_json(document: Mapping[str, Any], json_path: str) -> None:
    """Write JSON to a file, which appears whole or not at all, or to standard output ("-")."""
    if json_path == "-":
        # Escaped, since that may not be UTF-8.
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    path = Path(json_path)
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        path.write_text(text, encoding="utf-8")
        return
    write_whole(path, text.encode())
