"""Show or clear what is cached: built simulators, fetched models."""

import time
from typing import Any

import click

from tilewright.sw import cache
from tilewright.sw.cli._output import Column, emit, json_option, size
from tilewright.sw.errors import ResultError, UserError
from tilewright.sw.words import plural


@click.group()
def command() -> None:
    """Show or clear what is cached: built simulators, fetched models.

    The cache is the folder TILEWRIGHT_CACHE or, without it, `tilewright` in XDG_CACHE_HOME, which
    is ~/.cache where it is not set. It may be deleted at any time.

    \b
    Examples:
      tilewright cache list
      tilewright cache clear simulators
      TILEWRIGHT_CACHE=/scratch/tilewright tilewright cache list
    """


_COLUMNS = [
    Column(key="kind", header="kind"),
    Column(key="name", header="name"),
    Column(key="size", header="size", right=True, show=size),
    Column(key="modified", header="changed"),
]


def _row(entry: cache.Entry) -> dict[str, Any]:
    changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified))
    return {
        "kind": entry.kind,
        "name": entry.name,
        "size": entry.size,
        "modified": changed,
        "path": str(entry.path),
    }


@command.command("list")
@json_option
def list_(json_path: str | None) -> None:
    """Show every entry with its size.

    \b
    Examples:
      tilewright cache list
      tilewright cache list --json -
    """
    found = cache.entries()
    total = sum(entry.size for entry in found)
    emit(
        title=f"cache in {cache.cache_dir()}",
        columns=_COLUMNS,
        rows=map(_row, found),
        json_path=json_path,
        notes=[f"{plural(len(found), 'entry', 'entries')}, {size(total)}"],
        extra={"cache": str(cache.cache_dir()), "bytes": total},
    )


@command.command()
@click.argument("kind", required=False)
@json_option
def clear(kind: str | None, json_path: str | None) -> None:
    """Remove all entries, or those of one KIND.

    Without KIND folders of kinds the project does not make stay. What another process is working
    on stays too, and the exit code is then 1.

    \b
    Examples:
      tilewright cache clear
      tilewright cache clear simulators
    """
    if kind is not None:
        # Whatever else is there can be cleared too.
        known = sorted({*cache.KINDS, *(entry.kind for entry in cache.entries())})
        if kind not in known:
            raise UserError(f"kind {kind!r} is unknown; one of {', '.join(known)}")
    removed, busy = cache.clear(kind)
    total = sum(entry.size for entry in removed)
    emit(
        title=f"removed from {cache.cache_dir()}",
        columns=_COLUMNS,
        rows=map(_row, removed),
        json_path=json_path,
        notes=[f"{plural(len(removed), 'entry', 'entries')}, {size(total)}"],
        extra={"cache": str(cache.cache_dir()), "bytes": total, "busy": [*map(_row, busy)]},
    )
    if busy:
        names = ", ".join(f"{entry.kind}/{entry.name}" for entry in busy)
        raise ResultError(f"in use by another process, not removed: {names}")
