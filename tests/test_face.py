"""The face, `import tilewright as tw`: what it has, what it costs, what it says of itself."""

import ast
import builtins
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tilewright as tw
from tests.tutorial import PAGE, Cell, parts

ROOT = Path(__file__).parents[1]
LAYERS = ("hw", "sim", "sw", "synth")
HEAVY = ("numpy", "amaranth", "torch", "matplotlib", "rich", "click", "onnx", "cocotb")

MODULES = [name for name in tw.__all__ if isinstance(getattr(tw, name), ModuleType)]
ERRORS = [
    name
    for name in tw.__all__
    if isinstance(getattr(tw, name), type) and issubclass(getattr(tw, name), Exception)
]
DOCUMENTED = [name for name in tw.__all__ if name not in (*MODULES, *ERRORS)]


# ---- imports ----


def test_the_import_is_cheap() -> None:
    code = "import sys, tilewright; dir(tilewright); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & set(HEAVY)
    assert {name for name in loaded if name.startswith("tilewright")} == {"tilewright"}


def test_a_name_that_it_has_not() -> None:
    with pytest.raises(AttributeError, match="module 'tilewright' has no attribute 'Confg'"):
        _ = tw.Confg
    assert set(tw.__all__) <= set(dir(tw))


def test_type_checkers_are_told_what_is_loaded() -> None:
    """The imports for type checkers, `_HOMES` and `__all__` name the same."""
    tree = ast.parse(Path(tw.__file__).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {}
    for node in typed.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            told[alias.asname or alias.name] = f"{node.module}:{alias.name}"
    for name, home in tw._HOMES.items():
        # A module is told of by the package it is in.
        module, colon, attribute = home.partition(":")
        package, _, last = module.rpartition(".")
        wanted = f"{module}:{attribute}" if colon else f"{package}:{last}"
        assert told.pop(name) == f"tilewright.{wanted}"
    assert not told
    assert {*tw._HOMES, "Error"} == set(tw.__all__)
    assert sorted(tw.__all__) == tw.__all__


def test_there_is_one_tree_of_errors() -> None:
    """Every exception of the project that reaches a user is an `Error`."""
    for name in ERRORS:
        assert issubclass(getattr(tw, name), tw.Error), name
    with pytest.raises(tw.Error, match="preset 'smal' is unknown"):
        tw.preset("smal")
    private = {"_OutOfTimeError", "WindowError", "Unavailable"}
    builtin = {name for name in dir(builtins) if name.endswith(("Error", "Exception"))}
    for path in (path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        classes = re.findall(
            r"^class (\w+)\((.*)\):", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        for name, bases in classes:
            plain = set(bases.split(", ")) <= builtin
            assert not plain or name in private, f"{path}: {name} is no tw.Error"


def test_a_configuration_is_refused_by_an_error() -> None:
    """All that `hw.config` raises is a `ConfigError`, which the command line knows."""
    source = (ROOT / "hw" / "config.py").read_text(encoding="utf-8")
    raised = [node.exc for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise)]
    assert {ast.unparse(one.func) for one in raised if isinstance(one, ast.Call)} == {"ConfigError"}


# ---- documentation ----


def sections(text: str) -> dict[str, str]:
    """Sections of a numpydoc docstring by their headings."""
    found = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(text), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def described(section: str) -> set[str]:
    """Names a section of parameters describes: `rows, columns : int`, or `**options`."""
    heads = re.findall(r"^(\S.*?)(?: : .*)?$", section, re.MULTILINE)
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_name_is_documented(name: str) -> None:
    value: Any = getattr(tw, name)
    found = sections(value.__doc__ or "")
    signature = inspect.signature(value)
    parameters = set(signature.parameters) - {"self"}
    assert described(found.get("Parameters", "")) >= parameters
    if not isinstance(value, type) and signature.return_annotation not in (None, "None"):
        assert found.get("Returns")
    assert found.get("Raises")
    assert ">>> " in found.get("Examples", ""), f"tw.{name} has no example"


@pytest.mark.parametrize("name", [*MODULES, *ERRORS])
def test_every_module_and_error_says_what_it_is(name: str) -> None:
    value: Any = getattr(tw, name)
    assert inspect.getdoc(value)
    assert value.__doc__, f"{name} has the docstring of its base"
    for member in getattr(value, "__all__", ()):
        assert getattr(value, member).__doc__, f"tw.{name}.{member} has no docstring"


@pytest.mark.parametrize("name", [None, *DOCUMENTED])
def test_examples_run(name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value: Any = tw if name is None else getattr(tw, name)
    finder = doctest.DocTestFinder(recurse=False)
    module = tw if name is None else importlib.import_module(value.__module__)
    for test in finder.find(value, name or "tilewright", module=module, globs={}):
        runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
        report: list[str] = []
        runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)


# ---- nothing behind it is needed ----


def imports(code: str) -> set[str]:
    """Modules that a text imports, with what is taken of `tilewright`."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}:{alias.name}" for alias in node.names}
    return found


def behind(code: str) -> set[str]:
    """What a text imports of the project besides the face."""
    faces = {"tilewright", *(f"tilewright:{name}" for name in tw.__all__)}
    return {one for one in imports(code) if re.match(r"tilewright\b", one)} - faces


def blocks(page: Path) -> list[str]:
    """Blocks of Python on a page, those of lists included."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [inspect.cleandoc("\n" + code) for _, code in found]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_need_the_face_alone(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert "tilewright" in " ".join(imports(code))
    assert not behind(code)


def test_readme_and_tutorial_need_the_face_alone() -> None:
    for block in blocks(ROOT / "README.md"):
        assert not behind(block)
    assert any("import tilewright as tw" in block for block in blocks(ROOT / "README.md"))
    cells = [part for part in parts(PAGE.read_text(encoding="utf-8")) if isinstance(part, Cell)]
    assert any("import tilewright as tw" in cell.code for cell in cells)
    for cell in cells:
        assert not behind(cell.code)
