"""Tables in Markdown, in a document of their own or between the markers of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewright.sw.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts.

    Parameters
    ----------
    title : str
    header : sequence of str
    rows : sequence of sequences of str
    notes : sequence of str
        Sentences below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table with its title and notes; a blank line at the end."""
        lines = [f"### {self.title}", ""]
        if self.rows:
            lines += [_line(self.header), _line(["---"] * len(self.header))]
            lines += [_line(row) for row in self.rows]
            lines.append("")
        for note in self.notes:
            lines += [note, ""]
        return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def section(tables: Sequence[Table], command: str, commits: Sequence[str]) -> str:
    """What stands of one part in a document: its tables, the command and the commits."""
    text = "".join(table.markdown() for table in tables)
    shown = f"<!-- not run: it measures for minutes to hours -->\n```sh\n{command}\n```\n"
    return f"{text}{shown}\nMeasured on {', '.join(commits)}.\n"


def insert(page: str, name: str, text: str) -> str:
    """Put a text between ``<!-- bench NAME -->`` and ``<!-- end -->`` of a page.

    Raises
    ------
    UserError
        If the page has no such markers, or twice.
    """
    marker = re.compile(rf"(<!-- bench {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    found = len(marker.findall(page))
    if found != 1:
        raise UserError(f"{found} places marked <!-- bench {name} --> … <!-- end -->, not one")
    return marker.sub(lambda match: f"{match[1]}{text}{match[2]}", page)


def has_marker(page: str, name: str) -> bool:
    """Whether a page has a place for a part."""
    return f"<!-- bench {name} -->" in page
