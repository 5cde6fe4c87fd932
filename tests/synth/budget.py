"""Nanoseconds that each unit's paths may take on an ECP5 of speed grade 6, before placement.

`python -m tests.synth.budget` writes them anew, today's figures rounded up; do that when a unit was
made quicker on purpose, or slower for a reason.
"""

import math
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from tilewright.hw.config import preset_config
from tilewright.sw.cli.synth import kept_unit
from tilewright.synth.delays import ecp5_delays
from tilewright.synth.targets import target
from tilewright.synth.timing import Timing, estimate
from tilewright.synth.yosys import Synthesis, synthesize, unit_name

PATH = Path(__file__).parent / "timing_budget.toml"
PRESETS = "tiny", "small"
STEP = 0.5

Figures = dict[str, dict[str, float]]


def timing(synthesis: Synthesis) -> Timing:
    return estimate(synthesis, ecp5_delays(6))


def figures(made: Timing) -> Figures:
    """Of each unit "inside", "input", "output" and "through"."""
    return {unit_name(module): unit.figures() for module, unit in made.units.items()}


def budget(preset: str) -> Figures:
    """What is allowed."""
    found: Figures = tomllib.loads(PATH.read_text(encoding="utf-8"))[preset]
    return found


def rounded(value: float) -> float:
    return math.ceil(value / STEP) * STEP


def main() -> None:
    lines = [
        "# Nanoseconds, see budget.py. Of a unit, and across those it places: register to register,"
    ]
    lines += ["# input to register, register to output, input to output."]
    for preset in PRESETS:
        with TemporaryDirectory() as folder:
            made = synthesize(
                preset_config(preset), target("ecp5"), Path(folder), keep=kept_unit, netlist=False
            )
        lines.append(f"\n[{preset}]")
        for unit, values in sorted(figures(timing(made)).items()):
            text = ", ".join(f"{name} = {rounded(value):g}" for name, value in values.items())
            lines.append(f"{unit} = {{ {text} }}")
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
