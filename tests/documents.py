"""The code on the pages: every block of Python or shell runs, or says why not.

The blocks of a page run in order, in one folder and one Python session. If the block `text`
follows directly, it is what they must print; `...` stands for anything there. A block with
`title="FILE"` is a file that is written into the folder. A comment in the line above a block
changes what happens:

- ``<!-- slow -->``: it runs in `make test-all` only;
- ``<!-- not run: REASON -->``: it does not run.

Commands `tilewright …` that do not run must at least be ones that the command line accepts.
"""

import ast
import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tilewright.sw.cli import call, cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

PYTHON, SHELL = "python", "sh"
SHOWN = ("text", "c", "json", "tcl", "toml", "verilog", "yaml")
"""Languages of blocks that are only looked at."""

_FENCE = re.compile(
    r"(?:^<!-- (?P<marker>slow|not run: [^\n]+?) -->\n\s*)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^(?P=indent)```$"
    r"(?:\n\n(?P=indent)```text\n(?P<printed>.*?)^(?P=indent)```$)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes
    ----------
    where : str
        Page and line, for messages.
    language, title, code : str
    printed : str or None
        What it must print; None: anything.
    marker : str
        "slow", "not run: …" or "".
    """

    where: str
    language: str
    title: str
    code: str
    printed: str | None
    marker: str

    @property
    def runs(self) -> bool:
        return self.language in (PYTHON, SHELL) and not self.title

    @property
    def slow(self) -> bool:
        return self.marker == "slow"

    @property
    def skipped(self) -> bool:
        return self.marker.startswith("not run")


def blocks(page: Path) -> list[Block]:
    return parse(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())


def parse(text: str, name: str) -> list[Block]:
    """The fenced blocks of a page in order, without those that show what the one before prints."""
    return [
        Block(
            where=f"{name}:{text.count(chr(10), 0, found.start('language')) + 1}",
            language=found["language"],
            title=found["title"] or "",
            code=_unindented(found["code"], found["indent"]),
            printed=found["printed"] and _unindented(found["printed"], found["indent"]),
            marker=found["marker"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def _unindented(text: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))


def execute(block: Block, session: dict[str, Any], folder: Path) -> None:
    """Run a block in the current folder, which is `folder`; AssertionError where it fails."""
    if block.title:
        (folder / block.title).write_text(block.code, encoding="utf-8")
    elif block.language == PYTHON:
        printed = run(block.code, session, block.where)[0]
        _compare(block, printed)
    elif block.language == SHELL:
        _compare(block, "".join(shell(command, block.where) for command in commands(block.code)))


def run(code: str, session: dict[str, Any], name: str) -> tuple[str, Any]:
    """Run Python as a notebook does; what it prints, and the value of a last expression."""
    tree = ast.parse(code, name)
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        *body, last = tree.body
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), name, "exec"), session)
            value = eval(compile(ast.Expression(last.value), name, "eval"), session)
        else:
            exec(compile(tree, name, "exec"), session)
    return printed.getvalue(), value


def _compare(block: Block, printed: str) -> None:
    if block.printed is None:
        return
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS
    example = doctest.Example(block.code, block.printed)
    if not checker.check_output(block.printed, printed, flags):
        raise AssertionError(f"{block.where}: {checker.output_difference(example, printed, flags)}")


def commands(code: str) -> list[str]:
    """The commands of a shell block; a backslash joins two lines."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if shlex.split(line, comments=True)]


def words(command: str) -> list[str] | None:
    """The arguments of a plain `tilewright …` command, or None."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found = list(lexer)
    plain = found and found[0] == "tilewright" and not any(set(w) <= set("|&;<>()") for w in found)
    return found[1:] if plain else None


def shell(command: str, where: str) -> str:
    """Run a command, which must succeed; what it prints."""
    arguments = words(command)
    if arguments is None:
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
        return done.stdout
    errors = io.StringIO()
    with (
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(errors),
    ):
        code = call(arguments)
    assert code == 0, f"{where}: {command}\nexit code {code}: {errors.getvalue()}"
    return printed.getvalue()


def accepted(command: str, where: str) -> None:
    """A `tilewright` command that is not run is one the command line knows, with its options."""
    arguments = words(command)
    if not arguments:
        return
    name, *rest = arguments
    parent = click.Context(cli, info_name="tilewright")
    found = cli.get_command(parent, name)
    assert found is not None, f"{where}: {command}: there is no command {name}"
    try:
        found.make_context(name, rest, parent=parent)
    except click.exceptions.Exit:  # --help
        pass
    except click.ClickException as error:
        raise AssertionError(f"{where}: {command}: {error.format_message()}") from error


def bin_folder() -> str:
    """Where `tilewright` and `python` are, for the PATH of shell blocks."""
    return str(Path(sys.executable).parent)
