"""Encoder layers in RTL: cycles against the layer's own multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from tilewright.hw.config import preset_config
from tilewright.sw.bench.markdown import Table
from tilewright.sw.bench.part import Part, array, kib, number, pick, share
from tilewright.sw.bench.results import Found, Item, Row
from tilewright.sw.bench.runs import MODEL, RTL, item, layer_work, model_work
from tilewright.sw.bench.sizes import BERT_BASE, MINILM, LayerSize
from tilewright.sw.words import plural

NAME = "layers"
SCALING = 15.0
"""Goal of 64×64 against 16×16, BERT-base at sequence 384."""
STEADY = 3, 4
"""Layers of the two programs whose difference is a layer in the middle."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer on a preset, with the utilisation it must reach."""

    size: LayerSize
    sequence: int
    preset: str
    goal: float

    def spec(self, layers: int) -> dict[str, Any]:
        """What a row of it is known by; 0 layers: one alone, without an embedding before it."""
        return {"layer": self.size.name, "sequence": self.sequence, "layers": layers}

    def item(self, backend: str, layers: int = 0) -> Item:
        """The run of one layer, or of a program of several."""
        config = preset_config(self.preset)
        sizes = self.size, config, self.sequence
        label = f"{self.size.name} S {self.sequence}"
        if layers:
            label += f", {plural(layers, 'layer')}"
        work = partial(model_work, *sizes, layers) if layers else partial(layer_work, *sizes)
        return item(NAME, work, backend, config=config, label=label, **self.spec(layers))

    def row(self, rows: list[Row], backend: str, layers: int = 0) -> Row | None:
        """What `item` gave."""
        config = preset_config(self.preset).to_dict()
        return pick(rows, backend=backend, config=config, **self.spec(layers))

    def cycles(self, rows: list[Row], backend: str, layers: int = 0) -> int | None:
        """Its cycles."""
        row = self.row(rows, backend, layers)
        return None if row is None else int(row.result["cycles"])

    @property
    def ideal(self) -> int:
        """Cycles if every element multiplied in every cycle."""
        config = preset_config(self.preset)
        return -(-self.size.macs(self.sequence) // (config.rows * config.columns))


CASES = (
    Case(size=MINILM, sequence=128, preset="default", goal=0.95),
    Case(size=MINILM, sequence=32, preset="default", goal=0.90),
    Case(size=BERT_BASE, sequence=128, preset="default", goal=0.96),
    Case(size=BERT_BASE, sequence=384, preset="default", goal=0.96),
    Case(size=BERT_BASE, sequence=384, preset="large", goal=0.94),
    Case(size=BERT_BASE, sequence=384, preset="huge", goal=0.90),
)
QUICK = CASES[:2]


def items(quick: bool) -> list[Item]:
    """Every layer in RTL and in the model, then the programs for the steady state in the model."""
    cases = QUICK if quick else CASES
    found = [case.item(backend) for case in cases for backend in (RTL, MODEL)]
    if not quick:
        found += [case.item(MODEL, layers) for case in cases for layers in STEADY]
    return found


def _steady(case: Case, rows: list[Row]) -> str:
    short, long = (case.cycles(rows, MODEL, layers) for layers in STEADY)
    if short is None or long is None:
        return "–"
    return f"{long - short:,} ({case.ideal / (long - short):.1%})"


def _line(case: Case, rows: list[Row]) -> list[str] | None:
    row = case.row(rows, RTL)
    if row is None:
        return None
    cycles, config = row.result["cycles"], row.spec["config"]
    used = case.ideal / cycles
    return [
        case.size.name,
        str(case.sequence),
        f"{array(config)}, {plural(config['lanes'], 'lane')}, {config['axi_data_width'] // 8} B",
        kib(row.result["onchip_bytes"]),
        number(cycles),
        number(case.ideal),
        share(used),
        share(case.goal, 0) + ("" if used >= case.goal else ", missed"),
        _steady(case, rows),
    ]


def tables(found: Found) -> list[Table]:
    """The layers, and how the cycles fall from 16×16 to 64×64."""
    rows = found[NAME]
    notes = [
        "Each equal to the simulator in every bit written. The steady state, a layer in the middle "
        "of a model, is the cycle model's."
    ]
    small, huge = CASES[3].cycles(rows, RTL), CASES[5].cycles(rows, RTL)
    if small and huge:
        notes.append(
            f"BERT-base at sequence 384 on 64×64 takes 1/{small / huge:.2f} of the cycles of 16×16 "
            f"(goal 1/{SCALING:g})."
        )
    lines = [line for case in CASES if (line := _line(case, rows)) is not None]
    header = "layer", "S", "machine", "on chip", "cycles", "ideal", "used", "goal", "steady state"
    return [Table(title="Encoder layers", header=header, rows=lines, notes=notes)]


PART = Part(
    name=NAME, about="encoder layers in RTL: cycles, utilisation", items=items, tables=tables
)
