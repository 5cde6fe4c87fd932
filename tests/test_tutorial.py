"""The tutorial's notebook is the page, and runs."""

from typing import Any

import pytest

from tests.tutorial import DOCS, NOTEBOOK, PAGE, Cell, notebook, parts
from tilewright.sim import toolchain

ROOT = DOCS.parent
MEND = "python -m tests.tutorial writes what follows from the page"


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_parts_give_the_page_again():
    assert "".join(map(str, parts(page()))) == page()
    pictures = {part.picture for part in parts(page()) if isinstance(part, Cell) and part.picture}
    assert pictures == {path.name for path in DOCS.glob("tutorial-*.svg")}


def test_notebook_is_the_page():
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook(page()), MEND


def shown(cell: Any) -> tuple[str, str]:
    """What a cell printed, and the picture below it."""
    printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
    drawn = [o.data["image/svg+xml"] for o in cell.outputs if "data" in o]
    return printed, "".join(drawn)


@pytest.mark.slow
@pytest.mark.skipif(not toolchain.fst_works(), reason="lz4 and zlib are missing")
def test_notebook_in_rtl(tmp_path):
    """Every cell in a kernel of its own; the pictures are those of docs/, to the byte."""
    import nbformat
    from nbclient import NotebookClient

    stored = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    made = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(made, timeout=3000, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    for before, after in zip(stored.cells, made.cells, strict=True):
        if after.cell_type == "code":
            assert shown(after) == shown(before), f"{after.source}\n{MEND}"
    assert (tmp_path / "tile.fst").stat().st_size > 0
