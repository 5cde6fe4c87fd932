"""Compile a whole model into a program file."""

from functools import partial
from pathlib import Path

import click

from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._model import output_option
from tilewright.sw.cli._output import emit_tables, json_option, stages
from tilewright.sw.errors import UserError


@click.command()
@click.argument("model")
@output_option
@click.option(
    "-o",
    "--out",
    "output",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The program file.",
)
@click.option("--seq", "sequence", default=128, metavar="N", help="Rows of a sequence.")
@click.option("--batch", default=1, metavar="N", help="Sequences of a run, up to 16.")
@click.option("--precision", default="w8a8", metavar="TEXT", help="As of `tilewright run`.")
@config_options()
@json_option
def command(
    model: str,
    outputs: tuple[str, ...],
    output: Path,
    sequence: int,
    batch: int,
    precision: str,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Compile a whole model into a program file.

    The file holds commands, packed weights, buffer map, quantization parameters and the hash of the
    machine it was made for; `tilewright inspect` shows it, `tilewright run --program` runs it.

    \b
    Examples:
      tilewright compile minilm -o minilm.tilewright
      tilewright compile minilm --preset small --seq 32 --precision w8a16 -o small.tilewright
    """
    from tilewright.sw.compiler import compile_model
    from tilewright.sw.pipeline.device import with_model
    from tilewright.sw.pipeline.pipeline import Pipeline
    from tilewright.sw.program.file import save

    config = chosen_config(preset, config_file, settings)
    if not output.parent.is_dir():
        raise UserError(f"-o {output}: there is no folder {output.parent}")
    with stages(f"load {model}") as tell:
        pipeline = Pipeline.load(model, outputs=outputs, precision=precision, tell=tell)
        executable = compile_model(
            pipeline.quantized,
            config,
            sequence,
            batch=batch,
            progress=partial(tell, f"compile for {config.name}"),
        )
        executable = with_model(executable, pipeline.model)
        save(executable, output)
    from tilewright.sw.cli._program import program_tables
    from tilewright.sw.program.summary import summary

    figures = summary(executable)
    emit_tables(
        program_tables(figures, f"{output}: {Path(model).name} for {config.title}"),
        json_path=json_path,
        keys=["places"],
        extra=figures,
    )
