"""Write the Verilog of a configuration and the files that go with it."""

from pathlib import Path

import click

from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._output import Column, emit, json_option, progress, size
from tilewright.sw.words import plural


@click.command()
@config_options()
@click.option(
    "-o",
    "--out",
    "output",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files; made if need be.",
)
@json_option
def command(
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    output: Path,
    json_path: str | None,
) -> None:
    """Write the Verilog of a configuration and the files that go with it.

    Plain Verilog-2001 with the top module `tilewright`, an instantiation template, manifest.json,
    a C header and the register documentation. The same configuration and version give the same
    bytes on any machine.

    \b
    Examples:
      tilewright generate --preset default -o build/default
      tilewright generate --preset small --set lanes=8 --set sp_depth=2048 -o build/mine
      tilewright generate --config mine.toml -o build/mine
    """
    from tilewright.hw.generate import generate
    from tilewright.hw.manifest import manifest_hash

    config = chosen_config(preset, config_file, settings)
    with progress("text", "bar", "count", "detail") as bar:
        task = bar.add_task("generating", total=None, detail="")
        files = generate(
            config,
            output,
            progress=lambda name, number, total: bar.update(
                task, completed=number, total=total, detail=name
            ),
        )
    emit(
        title=f"{config.name}: {config.rows}×{config.columns}, {plural(config.lanes, 'lane')}, "
        f"manifest {manifest_hash(config):016x}",
        columns=[
            Column(key="file", header="file"),
            Column(key="bytes", header="size", right=True, show=size),
        ],
        rows=[{"file": str(path), "bytes": path.stat().st_size} for path in files],
        json_path=json_path,
        extra={"config": config.to_dict(), "hash": f"{manifest_hash(config):016x}"},
    )
