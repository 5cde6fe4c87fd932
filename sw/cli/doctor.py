"""Look for every tool, and try a real build with Verilator and the C++ compiler."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tilewright.sw.cli._output import Column, emit, json_option


def _status(row: dict[str, Any]) -> str:
    if row["ok"]:
        return "ok"
    found = "missing" if row["version"] is None else "wrong version"
    return found if row["required"] else f"{found} (optional)"


def _style(status: str) -> str:
    if status == "ok":
        return "green"
    return "yellow" if status.endswith("(optional)") else "bold red"


@click.command()
@click.option("--no-build", is_flag=True, help="Only look; build nothing.")
@json_option
@click.pass_context
def command(ctx: click.Context, no_build: bool, json_path: str | None) -> None:
    """Look for every tool, and try a real build with Verilator and the C++ compiler.

    Shows each tool with the version found and the version needed and, for what is missing, the
    command that mends it. Optional tools are marked. The exit code is 1 if something required is
    missing or the build fails.

    \b
    Examples:
      tilewright doctor
      tilewright doctor --no-build
      tilewright doctor --json - | jq '.rows[] | select(.ok | not) | .fix'
    """
    from tilewright.sim import toolchain

    rows: list[dict[str, Any]] = [asdict(tool) for tool in toolchain.tools()]
    output = ""
    if not no_build:
        row, output = _try_build()
        rows.append(row)
    for row in rows:
        row["status"] = _status(row)
    broken = [row for row in rows if row["required"] and not row["ok"]]
    notes = [f"{row['name']} ({row['purpose']}): {row['fix']}" for row in rows if not row["ok"]]
    if notes:
        notes.insert(0, "To mend it:")
    if output:
        notes.append(output)
    emit(
        title="tilewright doctor",
        columns=[
            Column(key="name", header="tool"),
            Column(key="version", header="found"),
            Column(key="needed", header="needed"),
            Column(key="status", header="status", style=_style),
            Column(key="purpose", header="for"),
        ],
        rows=rows,
        json_path=json_path,
        notes=notes,
        extra={"ok": not broken},
    )
    if broken:
        ctx.exit(1)


def _try_build() -> tuple[dict[str, Any], str]:
    """The row of the trial build, and what a failed tool printed."""
    from tilewright.sim import toolchain

    start = time.monotonic()
    version = None
    fix = output = ""
    try:
        with tempfile.TemporaryDirectory(prefix="tilewright-") as folder:
            toolchain.try_build(Path(folder))
        version = f"{time.monotonic() - start:.1f} s"
    except toolchain.ToolchainError as error:
        fix, output = str(error), error.output
    row = {
        "name": "trial build",
        "purpose": "Verilator, make and C++ together",
        "needed": "builds and runs",
        "required": True,
        "version": version,
        "path": None,
        "ok": version is not None,
        "fix": fix,
    }
    return row, output
