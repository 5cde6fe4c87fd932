"""The pages: their code runs, what is made from code is as the code makes it, the site builds."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tilewright as tw
from tests.documents import (
    PAGES,
    ROOT,
    SHELL,
    SHOWN,
    Block,
    accepted,
    bin_folder,
    blocks,
    commands,
    execute,
    parse,
    shell,
)
from tilewright.hw.config import Config, preset_config
from tilewright.hw.documents import register_documentation
from tilewright.sim.iss_transport import IssTransport
from tilewright.sw.cli import cli
from tilewright.sw.compiler import compile_layer
from tilewright.sw.driver.backends import BACKENDS
from tilewright.sw.driver.transport import Transport
from tilewright.sw.program.summary import listing
from tilewright.sw.quantize.seeded import make_layer

DOCS = ROOT / "docs"
WITH_CODE = {page.relative_to(ROOT).as_posix(): page for page in PAGES if blocks(page)}


# ---- what a page's code needs and leaves behind, where the page does not show it -----------------


def _before_models(session: dict[str, Any]) -> None:
    """A user's ONNX file, and an array for its input."""
    x, w = np.ones((2, 6), np.float32), np.ones((6, 5), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 5))],
        [numpy_helper.from_array(w, "w")],
    )
    Path("block.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    session["x"] = x


def _before_profiling(session: dict[str, Any]) -> None:
    """A user's program."""
    layer = make_layer(1, hidden=16, heads=1, head_dim=16, ffn=32)
    session["executable"] = compile_layer(layer, preset_config("tiny"), 128, effort=1)
    session["inputs"] = {"x": np.ones((128, 16), np.int16)}


def _after_driver(session: dict[str, Any]) -> None:
    np.testing.assert_array_equal(session["c"], np.full((3, 4), 30))
    assert session["p"].dtype == np.uint16
    x = session["x"].astype(np.int64)
    np.testing.assert_array_equal(session["s"], x @ x.swapaxes(-1, -2))
    assert [int(result[0, 0]) for result in session["results"]] == [0, 5, 10, 15, 20]
    assert Path("product.tilewright").is_file()
    members = {name for name in vars(Transport) if not name.startswith("_")}
    members |= set(Transport.__annotations__)
    for name in members:
        assert hasattr(session["Board"], name), name
        assert name in ("name", "memory_range") or hasattr(IssTransport, name)
    session["device"].close()


BEFORE = {"docs/models.md": _before_models, "docs/profiling.md": _before_profiling}
AFTER = {"docs/driver.md": _after_driver}


def run_page(name: str, folder: Path, wanted: Callable[[Block], bool]) -> None:
    session: dict[str, Any] = {"__name__": "__main__"}
    BEFORE.get(name, lambda _: None)(session)
    for block in blocks(WITH_CODE[name]):
        if wanted(block):
            execute(block, session, folder)
    AFTER.get(name, lambda _: None)(session)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", bin_folder() + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.mark.parametrize("name", WITH_CODE)
def test_code(name: str, folder: Path) -> None:
    run_page(name, folder, lambda block: not block.marker)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, page in WITH_CODE.items() if any(b.slow for b in blocks(page))]
)
def test_slow_code(name: str, folder: Path) -> None:
    run_page(name, folder, lambda block: not block.skipped)


@pytest.mark.parametrize("name", WITH_CODE)
def test_commands_that_do_not_run_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for block in blocks(WITH_CODE[name]):
        if block.language == SHELL and block.marker:
            for command in commands(block.code):
                accepted(command, block.where)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_fenced_and_of_a_known_language(page: Path) -> None:
    found = blocks(page)
    for block in found:
        assert block.runs or block.title or block.language in SHOWN, (
            f"{block.where}: {block.language!r}"
        )
        assert block.runs or not block.marker, f"{block.where}: a marker, but nothing to run"
    text = page.read_text(encoding="utf-8")
    shown = sum(block.printed is not None for block in found)
    fences = re.findall(r"^ *```", text, re.MULTILINE)
    assert len(fences) == 2 * (len(found) + shown), f"{page.name}: a block that is not understood"
    prose = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^\n    (?! *[-*\d]).*", prose, re.MULTILINE)
    assert not indented, f"{page.name}: indented code, not fenced: {indented[0]}"


_PAGE = """
```python title="given.py"
VALUE = 3
```

Then

```python
from given import VALUE
print(VALUE, "of", 4)
```

```text
{printed}
```

<!-- slow -->
```sh
echo one \\
    two  # a comment
tilewright presets --json presets.json
```

<!-- not run: it needs a board -->
```sh
tilewright {command}
```
"""


def test_blocks_of_a_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    file, code, slow, skipped = parse(_PAGE.format(printed="3 of ...", command="doctor"), "page")
    assert (file.title, file.runs, code.where) == ("given.py", False, "page:8")
    assert slow.slow
    assert commands(slow.code) == [
        "echo one      two  # a comment",
        "tilewright presets --json presets.json",
    ]
    assert (skipped.skipped, slow.skipped) == (True, False)
    for block in (file, code, slow):
        execute(block, {}, folder)
    assert (folder / "presets.json").is_file()
    wrong = parse(_PAGE.format(printed="5 of 4", command="doctr"), "page")
    with pytest.raises(AssertionError, match="page:8"):
        execute(wrong[1], {}, folder)
    with pytest.raises(AssertionError, match="doctr"):
        accepted("tilewright doctr", "page:1")
    with pytest.raises(AssertionError, match="--presets"):
        accepted("tilewright generate --presets tiny -o x", "page:1")
    with pytest.raises(AssertionError, match="exit code 2"):
        shell("tilewright generate --preset tine -o x", "page:1")
    with pytest.raises(AssertionError, match="page:1"):
        shell("false | cat; exit 1", "page:1")


# ---- pages that follow the code -----------------------------------------------------------------


def test_registers() -> None:
    """`tilewright generate --preset default -o DIR` writes this file."""
    written = (DOCS / "registers.md").read_text(encoding="utf-8")
    assert written == register_documentation(preset_config("default"))


def test_every_backend_is_described() -> None:
    (_, table) = (DOCS / "driver.md").read_text(encoding="utf-8").split("| backend | options |\n")
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(BACKENDS)


def test_listing_of_a_small_layer() -> None:
    """The commands shown in compiler.md are those the compiler makes."""
    layer = make_layer(1, hidden=16, heads=1, head_dim=16, ffn=32)
    made = listing(compile_layer(layer, preset_config("default"), 16, effort=1)).splitlines()
    page = (DOCS / "compiler.md").read_text(encoding="utf-8").splitlines()
    made = [line.partition("  # ")[0] for line in made]
    shown = [line for line in page if re.match(r" +\d+  (LOAD|MATMUL|VECTOR|STORE) ", line)]
    assert shown == made[1 : 1 + len(shown)]
    assert len(shown) >= 20


# ---- the site ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_name_every_parameter_and_command(site: Path) -> None:
    configuration = (site / "configuration.html").read_text(encoding="utf-8")
    for field in fields(Config):
        assert f"<code>{field.name}</code>" in configuration, field.name
    command_line = (site / "cli.html").read_text(encoding="utf-8")
    for name in cli.list_commands(click.Context(cli)):
        assert f'id="tilewright-{name}"' in command_line, name


def test_the_python_reference_has_every_name() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: tilewright\.(\w+)$", page, re.MULTILINE)) == tw.__all__


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//[^\">\s]+")
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text(encoding="utf-8")), page
