"""Documents that must follow the code: the register reference, and examples in Python."""

import re
import textwrap
from pathlib import Path

import pytest

from tilewright.hw.config import preset_config
from tilewright.hw.documents import register_documentation
from tilewright.sw.compiler import compile_layer
from tilewright.sw.program.summary import listing
from tilewright.sw.quantize.seeded import make_layer

DOCS = Path(__file__).parent.parent / "docs"


def test_registers() -> None:
    """`tilewright generate --preset default -o DIR` writes this file."""
    written = (DOCS / "registers.md").read_text(encoding="utf-8")
    assert written == register_documentation(preset_config("default"))


def examples(page: Path) -> list[str]:
    """Indented blocks that start with an import."""
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    code = [textwrap.dedent(block).strip() for block in blocks]
    return [block for block in code if re.match(r"(from|import) \w", block)]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if examples(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path) -> None:
    for block in examples(page):
        exec(compile(block, page.name, "exec"), {})


def test_programming_has_an_example() -> None:
    assert DOCS / "programming.md" in PAGES


def test_listing_of_a_small_layer() -> None:
    """The commands shown in compiler.md are those the compiler makes."""
    layer = make_layer(1, hidden=16, heads=1, head_dim=16, ffn=32)
    made = listing(compile_layer(layer, preset_config("default"), 16, effort=1)).splitlines()
    page = (DOCS / "compiler.md").read_text(encoding="utf-8").splitlines()
    made = [line.partition("  # ")[0] for line in made]
    shown = [line for line in page if re.match(r" +\d+  (LOAD|MATMUL|VECTOR|STORE) ", line)]
    assert shown == made[1 : 1 + len(shown)]
    assert len(shown) >= 20
