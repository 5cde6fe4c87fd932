"""How long the project's own steps take: generation, the build of a simulator, simulation.

Seconds of CPU where a step has one thread; they hold on a machine that does other things too.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tilewright.hw.config import PRESETS, preset_config
from tilewright.hw.names import TOP_NAME
from tilewright.sim.native.build import LIBRARY, build
from tilewright.sim.toolchain import run
from tilewright.sw.bench.markdown import Table
from tilewright.sw.bench.part import Part, array, number, onchip, pick
from tilewright.sw.bench.results import Found, Item, Tell
from tilewright.sw.bench.runs import RTL, SOURCES, layer_work, simulate
from tilewright.sw.bench.sizes import MINILM
from tilewright.sw.driver.simulators import generated
from tilewright.sw.sources import ROOT

NAME = "speed"
GOALS = {"default": (100_000, 120), "huge": (None, 900)}
"""Cycles a CPU-second, and seconds of a build, by preset."""
GENERATION = 15
"""Seconds the largest preset's Verilog may take."""
SEQUENCE = 128


def _children(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of wall time, and of CPU in the processes that some work starts."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(time.perf_counter() - begun, 2), "cpu": round(used, 2)}


def _generate(preset: str, tell: Tell) -> dict[str, Any]:
    tell("generating")
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tilewright", "generate", "--preset", preset, "-o", folder]
        words += ["--prefix", TOP_NAME]
        seconds = _children(lambda: run(words, cwd=ROOT))
        size = (Path(folder) / f"{TOP_NAME}.v").stat().st_size
    return {**seconds, "bytes": size}


def _build(preset: str, tell: Tell) -> dict[str, Any]:
    text = generated(preset_config(preset), progress=tell)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = _children(lambda: build(text, folder, progress=tell))
        size = (folder / LIBRARY).stat().st_size
    return {**seconds, "bytes": size}


def _simulate(preset: str, sequence: int, tell: Tell) -> dict[str, Any]:
    work = layer_work(MINILM, preset_config(preset), sequence)
    outputs, _, seconds = simulate(RTL, work, tell)
    cycles = outputs.result.cycles
    return {"cycles": cycles, "cpu": seconds, "rate": cycles / seconds}


def _item(
    what: str,
    preset: str,
    measure: Callable[[Tell], dict[str, Any]],
    sources: tuple[str, ...],
    **spec: Any,
) -> Item:
    config = preset_config(preset)
    return Item(
        part=NAME,
        spec={"what": what, "preset": preset, "config": config.to_dict(), **spec},
        sources=sources,
        measure=measure,
        label=f"{what}, {preset}",
    )


def items(quick: bool) -> list[Item]:
    """Generation of every preset, builds and runs of some."""
    generate = ["default"] if quick else list(PRESETS)
    builds = ["tiny"] if quick else list(GOALS)
    native = ("hw", "sim/native", "sim/toolchain")
    return [
        *(_item("generate", preset, partial(_generate, preset), ("hw",)) for preset in generate),
        *(_item("build", preset, partial(_build, preset), native) for preset in builds),
        *(
            _item(
                "simulate",
                preset,
                partial(_simulate, preset, SEQUENCE),
                SOURCES[RTL],
                sequence=SEQUENCE,
            )
            for preset in (["default"] if quick else ["tiny", *GOALS])
        ),
    ]


def _goal(value: float, bound: float | None, *, least: bool = False) -> str:
    if bound is None:
        return ""
    sign, kept = ("≥", value >= bound) if least else ("≤", value <= bound)
    return f" ({sign} {number(bound)}{'' if kept else ', missed'})"


def tables(found: Found) -> list[Table]:
    """One line a preset."""
    rows = found[NAME]
    lines = []
    for preset in PRESETS:
        text, made, run = (
            pick(rows, what=what, preset=preset) for what in ("generate", "build", "simulate")
        )
        if text is None and made is None and run is None:
            continue
        rate, seconds = GOALS.get(preset, (None, None))
        config = preset_config(preset).to_dict()
        line = [preset, array(config), onchip(config), "–", "–", "–", "–", "–"]
        if text is not None:
            cpu = text.result["cpu"]
            line[3] = f"{cpu:.1f} s" + _goal(cpu, GENERATION if preset == "huge" else None)
            line[4] = f"{text.result['bytes'] / 1024:,.0f} KiB"
        if made is not None:
            wall = made.result["wall"]
            line[5] = f"{wall:,.0f} s" + _goal(wall, seconds)
            line[6] = f"{made.result['cpu']:,.0f} s"
        if run is not None:
            line[7] = number(run.result["rate"]) + _goal(run.result["rate"], rate, least=True)
        lines.append(line)
    header = (
        "preset",
        "array",
        "on chip",
        "generation, CPU",
        "Verilog",
        "build, wall",
        "build, CPU",
        "cycles a CPU-second",
    )
    notes = [
        "Generation is `tilewright generate` as a whole. The build of the native simulator begins "
        f"with Verilog and runs on every core. Cycles are those of a layer of MiniLM, sequence "
        f"{SEQUENCE}, in one thread. Goals in parentheses."
    ]
    return [Table(title="Speed", header=header, rows=lines, notes=notes)]


PART = Part(
    name=NAME, about="generation, builds and simulation in seconds", items=items, tables=tables
)
