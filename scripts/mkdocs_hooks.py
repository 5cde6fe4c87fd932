"""What MkDocs adds to the pages of docs/: text made from the code, and pages from elsewhere.

A line `<!-- made: NAME -->` of a page becomes the text that the function NAME of this file gives,
so that the command line and the configuration are described where they are written, and once.
"""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tilewright.hw.config import POWERS_OF_TWO, PRESETS, RANGES, Config
from tilewright.sw.cli import cli

ROOT = Path(__file__).parents[1]

ADOPTED = {
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages that lie elsewhere in the repository, and what they are called in the site."""

_LINK = re.compile(r"(?<=\]\()(?P<path>[^):#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, name in ADOPTED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        content = _relinked(text, (ROOT / source).parent)
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code, and lead links to the adopted pages to the site's."""
    if page.file.generated_by is None:
        markdown = _relinked(markdown, ROOT / "docs")
    return re.sub(r"^<!-- made: (\w+) -->$", lambda found: MADE[found[1]](), markdown, flags=re.M)


def _relinked(text: str, folder: Path) -> str:
    """The links of a page that lies in `folder`, as they read from docs/."""

    def relinked(link: re.Match[str]) -> str:
        target = (folder / link["path"]).resolve()
        if not target.is_relative_to(ROOT):
            return link["path"]
        path = target.relative_to(ROOT).as_posix()
        return ADOPTED.get(path, path.removeprefix("docs/"))

    return _LINK.sub(relinked, text)


# ---- the configuration -------------------------------------------------------------------------


def parameters() -> str:
    """A table of every parameter of `Config`."""
    meanings = _parameter_docs(Config.__doc__ or "")
    rows = [
        [f"`{field.name}`", meanings[field.name], _bounds(field.name), f"`{_toml(field.default)}`"]
        for field in dataclasses.fields(Config)
    ]
    return _table(["parameter", "meaning", "values", "default"], rows)


def presets() -> str:
    """A table of the presets: the parameters that differ among them."""
    configs = list(PRESETS.values())
    rows = [
        [f"`{field.name}`", *(f"{getattr(config, field.name)}" for config in configs)]
        for field in dataclasses.fields(Config)
        if field.name != "name" and len({getattr(c, field.name) for c in configs}) > 1
    ]
    return _table(["parameter", *(f"`{config.name}`" for config in configs)], rows)


def _parameter_docs(docstring: str) -> dict[str, str]:
    """The description of each parameter in a numpydoc docstring."""
    section = re.split(r"^ *Parameters\n *-+\n", docstring, flags=re.M)[1].split("\n\n")[0]
    entries = re.findall(r"^    (\w+) : .*\n((?:        .*\n?)+)", section, flags=re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def _bounds(name: str) -> str:
    if name in POWERS_OF_TWO:
        low, high = POWERS_OF_TWO[name]
        return f"{low} … {f'`{high}`' if isinstance(high, str) else high}, a power of two"
    if name in RANGES:
        low, high = RANGES[name]
        return f"{low} … {high}"
    return ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


# ---- the command line --------------------------------------------------------------------------


def command_line() -> str:
    """A section for each command: what it does, its examples, its options."""
    return "\n".join(_commands(cli, click.Context(cli, info_name="tilewright"), "##"))


def _commands(group: click.Group, parent: click.Context, heading: str) -> Iterator[str]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        yield f"{heading} {context.command_path}\n"
        yield from _described(command, context)
        if isinstance(command, click.Group):
            yield from _commands(command, context, heading + "#")


def _described(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = paragraph.removeprefix("\b\n")
        yield f"{_escaped(paragraph)}\n" if kept == paragraph else _examples(kept)
    options = [one for one in command.params if isinstance(one, click.Option)]
    records = filter(None, (option.get_help_record(context) for option in options))
    if rows := [[f"`{names}`", _escaped(meaning)] for names, meaning in records]:
        yield _table(["option", "meaning"], rows)


def _examples(text: str) -> str:
    """A paragraph that click does not wrap: `Examples:` and commands, indented."""
    head, _, code = text.partition("\n")
    return f"{head}\n\n```sh\n{textwrap.dedent(code)}\n```\n"


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]`\\])", r"\\\1", text).replace("<", "&lt;")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


MADE: dict[str, Callable[[], str]] = {
    "parameters": parameters,
    "presets": presets,
    "command_line": command_line,
}
