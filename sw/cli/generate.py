"""Write the Verilog of a configuration and the files that go with it."""

from pathlib import Path

import click

from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._options import Derived
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
@click.option(
    "--prefix",
    metavar="NAME",
    cls=Derived,
    show_default="tilewright_ and the configuration's name",
    help="Name of the top module, with which all names of modules, macros and files begin.",
)
@click.option(
    "--reset",
    type=click.Choice(["active-high", "active-low"]),
    default="active-high",
    help="Polarity of the reset port, `rst` or `rst_n`.",
)
@click.option(
    "--package",
    "packages",
    metavar="NAMES",
    help="Files for other tools, with commas between: vivado, fusesoc, litex.",
)
@json_option
def command(
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    output: Path,
    prefix: str | None,
    reset: str,
    packages: str | None,
    json_path: str | None,
) -> None:
    """Write the Verilog of a configuration and the files that go with it.

    Plain Verilog-2001, an instantiation template, manifest.json, a C header and the register
    documentation; --package adds what Vivado (an IP-XACT component), FuseSoC (a core file) and
    LiteX (a Python module) take. The same configuration, prefix, reset and version give the same
    bytes on any machine.

    \b
    Examples:
      tilewright generate --preset default -o build/default
      tilewright generate --preset small --set lanes=8 --set sp_depth=2048 -o build/mine
      tilewright generate --config mine.toml --prefix npu0 -o build/mine
      tilewright generate --package vivado --reset active-low -o build/ip
    """
    from tilewright.hw.generate import generate
    from tilewright.hw.manifest import manifest_hash
    from tilewright.hw.names import module_prefix
    from tilewright.hw.packages import check_names

    config = chosen_config(preset, config_file, settings)
    names = [] if packages is None else [name.strip() for name in packages.split(",")]
    # Before the work.
    check_names(names)
    module_prefix(config, prefix)
    with progress("text", "bar", "count", "detail") as bar:
        task = bar.add_task("generating", total=None, detail="")
        files = generate(
            config,
            output,
            prefix=prefix,
            reset=reset,
            packages=names,
            progress=lambda name, number, total: bar.update(
                task, completed=number, total=total, detail=name
            ),
        )
    emit(
        title=f"{config.title}: {config.rows}×{config.columns}, {plural(config.lanes, 'lane')}, "
        f"manifest {manifest_hash(config):016x}",
        columns=[
            Column(key="file", header="file"),
            Column(key="bytes", header="size", right=True, show=size),
        ],
        rows=[{"file": str(path), "bytes": path.stat().st_size} for path in files],
        json_path=json_path,
        extra={"config": config.to_dict(), "hash": f"{manifest_hash(config):016x}"},
    )
