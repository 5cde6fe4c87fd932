"""Show where the cycles of a layer or a model go."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilewright._extras import install_command
from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._model import output_option
from tilewright.sw.cli._output import Column, Tell, emit_tables, json_option, size, stages
from tilewright.sw.cli._units import unit_columns, unit_rows
from tilewright.sw.errors import UserError
from tilewright.sw.words import plural

if TYPE_CHECKING:
    from tilewright.hw.config import Config
    from tilewright.sw.profiling.figures import Profile
    from tilewright.sw.profiling.work import Workload

TRACE, TIMELINE = "trace.json", "timeline"
"""Files in the folder of `-o`; the timeline's have the suffixes of their formats."""


@click.command()
@click.argument("model", required=False)
@output_option
@click.option(
    "--shape",
    metavar="SIZES",
    help="Instead of a model a layer of random integers: hidden=768,heads=12,ffn=3072.",
)
@click.option(
    "--layer", default="0", metavar="N", help="Layer of the model, or `whole`, all of it."
)
@click.option("--backend", default="verilator", metavar="NAME", help="One that records spans.")
@click.option("--seq", "sequence", default=128, metavar="N", help="Rows of a sequence.")
@click.option("--precision", default="w8a8", metavar="TEXT", help="As of `tilewright run`.")
@click.option(
    "--by",
    default="operation",
    metavar="WHAT",
    help="Rows of the table: each kind of `operation`, those of each `layer`, or of each `head`.",
)
@click.option(
    "-o",
    "--out",
    "output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for trace.json (ui.perfetto.dev opens it), timeline.svg and timeline.png.",
)
@click.option(
    "--from", "start", default=0, metavar="CYCLE", help="First cycle of the timeline's picture."
)
@click.option("--cycles", default=0, metavar="N", help="Cycles of the picture; 0 for all.")
@config_options()
@json_option
def command(
    model: str | None,
    outputs: tuple[str, ...],
    shape: str | None,
    layer: str,
    backend: str,
    sequence: int,
    precision: str,
    by: str,
    output: Path | None,
    start: int,
    cycles: int,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Show where the cycles of a layer or a model go.

    MODEL is as of `tilewright run`. Runs it once, all rows valid, and tells for each operation its
    cycles, utilization, bytes moved and roofline, for each unit what it waited for, cycle by cycle.
    With -o it writes a trace of every command and a picture of the timeline.

    \b
    Examples:
      tilewright profile minilm -o profile
      tilewright profile minilm --layer whole --seq 32 --by layer
      tilewright profile --shape hidden=768,heads=12,ffn=3072 --preset small --seq 16
      tilewright profile minilm -o zoom --from 20000 --cycles 4000
    """
    from tilewright.sw.driver.backends import BACKENDS
    from tilewright.sw.profiling.figures import GROUPS

    config = chosen_config(preset, config_file, settings)
    if (model is None) == (shape is None):
        raise UserError("expected either a MODEL or --shape")
    if shape is not None and layer != "0":
        raise UserError(f"--layer {layer}: --shape is one layer")
    for option, value, known in (("--backend", backend, BACKENDS), ("--by", by, GROUPS)):
        if value not in known:
            raise UserError(f"{option} {value}: must be one of {', '.join(known)}")
    if min(start, cycles) < 0:
        raise UserError("--from and --cycles: must be 0 or more")
    with stages("load") as tell:
        work = _work(model, outputs, shape, config, layer, sequence, precision, tell)
        if output is not None:
            # Before the run: it may take minutes.
            output.mkdir(parents=True, exist_ok=True)
        profile = _run(work, config, backend, tell)
        files = [] if output is None else _write(profile, work.title, output, start, cycles, tell)
    machine = (
        f"{backend}, {config.title} {config.rows}×{config.columns}, "
        f"{plural(config.lanes, 'lane')}, {size(config.onchip_bytes)} on chip"
    )
    title, total = f"{work.title}: {machine}", profile.total()
    units, rows = profile.units(), [*profile.operations(by), total]
    emit_tables(
        [
            (title, _OPERATIONS, rows),
            (
                "roofline",
                _ROOFLINE,
                [{column.key: row[column.key] for column in _ROOFLINE} for row in rows],
            ),
            (
                "where the cycles went",
                unit_columns(profile.result.cycles),
                unit_rows([profile.result.counters]),
            ),
        ],
        json_path=json_path,
        notes=[
            ", ".join(f"{u['unit']} {u['commands']:,}" for u in units)
            + f" commands; {size(total['loaded'])} loaded, {size(total['stored'])} stored",
            *files,
        ],
        extra={"config": config.to_dict(), "cycles": profile.result.cycles, "units": units},
    )


def _work(
    model: str | None,
    outputs: tuple[str, ...],
    shape: str | None,
    config: "Config",
    layer: str,
    sequence: int,
    precision: str,
    tell: Tell,
) -> "Workload":
    from tilewright.sw.profiling.work import model_work, shape_work

    if shape is not None:
        return shape_work(shape, config, sequence=sequence, precision=precision, tell=tell)
    assert model is not None
    return model_work(
        model,
        config,
        layer=layer,
        sequence=sequence,
        precision=precision,
        outputs=outputs,
        tell=tell,
    )


def _run(work: "Workload", config: "Config", backend: str, tell: Tell) -> "Profile":
    from tilewright.sw.driver.device import Device
    from tilewright.sw.driver.transport import Recorder
    from tilewright.sw.profiling.figures import Profile

    options: dict[str, Any] = {"spans": True}
    if backend in ("verilator", "cocotb"):
        options["progress"] = tell
    with Device(backend, config, **options) as device:
        if not isinstance(device.transport, Recorder):
            raise UserError(f"--backend {backend}: it does not record what commands do")
        estimate = int(work.executable.metadata["estimate"]["cycles"])
        outputs = device.run(
            work.executable,
            work.inputs,
            progress=lambda cycles: tell(f"run on {backend}", cycles, estimate),
            **work.scalars,
        )
    return Profile(executable=work.executable, result=outputs.result, scalars=work.scalars)


def _write(
    profile: "Profile", title: str, folder: Path, start: int, cycles: int, tell: Any
) -> list[str]:
    """Write trace and pictures; lines that name them."""
    from tilewright.sw.files import write_whole
    from tilewright.sw.profiling import perfetto, picture

    span = picture.window(profile, start, cycles)
    tell("write the trace")
    write_whole(folder / TRACE, perfetto.to_bytes(profile))
    lines = [f"{folder / TRACE}: open it at https://ui.perfetto.dev"]
    if not picture.available():
        return [*lines, f"no picture: it needs matplotlib; type: {install_command('plot')}"]
    tell("draw the timeline")
    for form, content in picture.pictures(profile, _caption(profile, title), span).items():
        path = folder / f"{TIMELINE}.{form}"
        write_whole(path, content)
        lines.append(str(path))
    return lines


def _caption(profile: "Profile", title: str) -> str:
    config = profile.executable.config
    total = profile.total()
    share = f"{total['utilization']:.2%} of the array" if total["utilization"] else ""
    return f"{title}, {config.title}: {plural(total['cycles'], 'cycle')}, {share}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _bytes(value: int) -> str:
    return size(value) if value else ""


def _short(value: int) -> str:
    """A large number in few characters."""
    for unit in ("", "k", "M"):
        if value < 1000:
            return f"{value:.4g} {unit}".strip() if value else ""
        value /= 1000  # type: ignore[assignment]
    return f"{value:.4g} G"


_OPERATIONS = (
    Column(key="operation", header="operation"),
    Column(key="cycles", header="cycles", right=True),
    Column(key="utilization", header="util.", right=True, show=_share),
    Column(key="array", header="array", right=True),
    Column(key="lost", header="lost", right=True),
    Column(key="vector", header="vector", right=True),
    Column(key="load", header="load", right=True),
)
_ROOFLINE = (
    Column(key="operation", header="operation"),
    Column(key="macs", header="MACs", right=True, show=_short),
    Column(key="loaded", header="loaded", right=True, show=_bytes),
    Column(key="stored", header="stored", right=True, show=_bytes),
    Column(
        key="intensity",
        header="MAC/B",
        right=True,
        show=lambda value: "" if value is None else f"{value:,.0f}",
    ),
    Column(key="bound", header="bound", show=lambda value: value or ""),
    Column(key="attained", header="attained", right=True, show=_share),
)
