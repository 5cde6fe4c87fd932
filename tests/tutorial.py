"""The tutorial page as a session: what its code prints and draws, and the page as a notebook.

    python -m tests.tutorial

runs docs/tutorial.md, RTL included, and writes what follows from it: the output below each block of
code, the pictures, and docs/tutorial.ipynb with both. The page's text and code are written by hand,
everything else comes from here; `tests/test_tutorial.py` compares.
"""

import contextlib
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.documents import run

DOCS = Path(__file__).parent.parent / "docs"
PAGE, NOTEBOOK = DOCS / "tutorial.md", DOCS / "tutorial.ipynb"
BANNER = "<!-- made from docs/tutorial.md by python -m tests.tutorial -->\n"
"""The last line of the pictures."""

_CELL = re.compile(
    r"```python\n(?P<code>.*?)```\n"
    r"(?:\n```text\n(?P<printed>.*?)```\n)?"
    r"(?:\n!\[(?P<says>[^\]]*)\]\((?P<picture>tutorial-[^)]*)\)\n)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Cell:
    """A block of code with what the page shows below it.

    Attributes
    ----------
    code : str
    printed : str
        The block `text` behind it, which holds what it prints.
    picture, says : str
        File of the picture behind it, which its last expression draws, and the text in its place.
    """

    code: str
    printed: str = ""
    picture: str = ""
    says: str = ""

    def __str__(self) -> str:
        shown = f"```python\n{self.code}```\n"
        if self.printed:
            shown += f"\n```text\n{self.printed}```\n"
        if self.picture:
            shown += f"\n![{self.says}]({self.picture})\n"
        return shown


def parts(page: str) -> list[str | Cell]:
    """Text and code of a page, in turn; joined as they are they give the page again."""
    found: list[str | Cell] = []
    end = 0
    for match in _CELL.finditer(page):
        found += [page[end : match.start()], Cell(**match.groupdict(default=""))]
        end = match.end()
    return [*found, page[end:]]


def notebook(page: str) -> str:
    """The page as a notebook: its outputs are the blocks and the pictures below the code.

    They are kept so that it can be read where nothing runs; a test compares them with a run's.
    """
    cells: list[dict[str, Any]] = []
    for part in parts(page):
        common = {"id": f"cell-{len(cells)}", "metadata": {}}
        if isinstance(part, str):
            if text := _seen(part):
                cells.append({**common, "cell_type": "markdown", "source": _lines(text)})
            continue
        outputs: list[dict[str, Any]] = []
        if part.printed:
            outputs.append(
                {"output_type": "stream", "name": "stdout", "text": _lines(part.printed)}
            )
        if part.picture:
            svg = (DOCS / part.picture).read_text(encoding="utf-8").removesuffix(BANNER)
            outputs.append(
                {
                    "output_type": "display_data",
                    "data": {"image/svg+xml": _lines(svg), "text/plain": [part.says]},
                    "metadata": {},
                }
            )
        cells.append(
            {
                **common,
                "cell_type": "code",
                "execution_count": None,
                "outputs": outputs,
                "source": _lines(part.code.strip()),
            }
        )
    document = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _seen(text: str) -> str:
    """Markdown without its comments."""
    return re.sub(r"<!--.*?-->\n*", "", text, flags=re.DOTALL).strip()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run the page and write what follows from it."""
    session: dict[str, Any] = {}
    made: list[str] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for part in parts(PAGE.read_text(encoding="utf-8")):
            if isinstance(part, Cell):
                printed, value = run(part.code, session, PAGE.name)
                if part.picture:
                    (DOCS / part.picture).write_text(value.svg + BANNER, encoding="utf-8")
                made.append(str(Cell(part.code, printed, part.picture, part.says)))
            else:
                made.append(part)
    page = "".join(made)
    PAGE.write_text(page, encoding="utf-8")
    NOTEBOOK.write_text(notebook(page), encoding="utf-8")


if __name__ == "__main__":
    main()
