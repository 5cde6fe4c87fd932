"""Show what is in a program file."""

from pathlib import Path

import click

from tilewright.sw.cli._output import emit_tables, json_option
from tilewright.sw.errors import UserError


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--listing",
    is_flag=True,
    help="List the commands and the operations they belong to.",
)
@click.option("--first", default=0, metavar="N", help="First command of the listing.")
@click.option("--count", default=0, metavar="N", help="Commands of the listing; 0 for all.")
@json_option
def command(file: Path, listing: bool, first: int, count: int, json_path: str | None) -> None:
    """Show what is in a program file.

    \b
    Examples:
      tilewright inspect minilm.tilewright
      tilewright inspect minilm.tilewright --listing --count 40
    """
    from tilewright.sw.cli._program import program_tables
    from tilewright.sw.program.file import load
    from tilewright.sw.program.summary import listing as list_commands
    from tilewright.sw.program.summary import summary

    if min(first, count) < 0:
        raise UserError("--first and --count: must be 0 or more")
    executable = load(file)
    figures = summary(executable)
    if listing:
        lines = list_commands(executable).splitlines()
        end = first + count if count else len(lines)
        click.echo("\n".join(lines[first:end]), err=json_path == "-")
        if json_path is None:
            return
    emit_tables(
        program_tables(figures, str(file)), json_path=json_path, keys=["places"], extra=figures
    )
