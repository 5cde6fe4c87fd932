"""The cycle model against RTL: the layers of the part `layers`, and random programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tilewright.hw.config import Config, preset_config
from tilewright.sw.bench import layers
from tilewright.sw.bench.markdown import Table
from tilewright.sw.bench.part import Part, array, number, onchip, pick, share
from tilewright.sw.bench.results import Found, Item
from tilewright.sw.bench.runs import LATENCY, MODEL, RTL, Workload, item, layer_work, matmul_work
from tilewright.sw.bench.sizes import LayerSize

NAME = "error"
COUNT, SEED = 30, 1
GOAL = 0.02
LARGE = 384, 768, 3072
"""The product that runs on 64×64: FFN1 of BERT-base."""


def _odd(name: str, preset: str, **changes: Any) -> Config:
    return Config.from_dict({**preset_config(preset).to_dict(), "name": name, **changes})


CONFIGS = (
    preset_config("tiny"),
    preset_config("default"),
    _odd("one-lane", "small", lanes=1),
    _odd("wide", "default", rows=8, lanes=16, axi_data_width=512),
    _odd("tall", "default", columns=4, lanes=4, axi_data_width=32),
    _odd("shallow", "small", lanes=8, queue_depth=1, axi_outstanding=2, axi_max_burst=4),
    _odd("few-banks", "default", sp_banks=4, sp_depth=4096, acc_banks=2, acc_depth=1024),
)
"""Machines of the random programs; each costs the build of a simulator."""
LATENCIES = (LATENCY, 5, 120)
"""Cycles of the memory; the first is the usual one."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A program on a machine with a memory; `spec` says which."""

    config: Config
    latency: int
    spec: dict[str, Any]
    make: Callable[[], Workload]

    def item(self, backend: str) -> Item:
        """The run of it."""
        return item(
            NAME,
            self.make,
            backend,
            config=self.config,
            latency=self.latency,
            label=f"{self.name}, latency {self.latency}",
            **self.spec,
        )

    @property
    def name(self) -> str:
        """For people."""
        s = self.spec
        if s["what"] == "matmul":
            return f"{s['m']} × {s['k']} × {s['n']}"
        return f"{s['heads']} heads of {s['head_dim']}, FFN {s['ffn']}, S {s['sequence']}"


def _matmul(config: Config, latency: int, m: int, k: int, n: int) -> Case:
    return Case(
        config=config,
        latency=latency,
        spec={"what": "matmul", "m": m, "k": k, "n": n},
        make=partial(matmul_work, config, m, k, n),
    )


def draw(index: int, seed: int = SEED) -> Case:
    """Program `index` of a seed: layers and products take turns, machines one after the other."""
    rng = np.random.default_rng((seed, index))
    config = CONFIGS[index % len(CONFIGS)]
    latency = LATENCIES[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]

    def some(low: int, high: int) -> int:
        """Uniform in its logarithm."""
        return round(low * (high / low) ** rng.random())

    if index % 2:
        return _matmul(config, latency, some(1, 256), some(4, 1024), some(4, 512))
    heads, head_dim = int(rng.integers(1, 7)), int(rng.choice([16, 24, 32, 64]))
    size = LayerSize(
        name="random",
        hidden=heads * head_dim,
        heads=heads,
        head_dim=head_dim,
        ffn=some(32, 768),
    )
    sequence = some(4, 160)
    return Case(
        config=config,
        latency=latency,
        spec={
            "what": "layer",
            "heads": heads,
            "head_dim": head_dim,
            "ffn": size.ffn,
            "sequence": sequence,
        },
        make=partial(layer_work, size, config, sequence),
    )


def cases(quick: bool) -> list[Case]:
    """The random programs, and one product on 64×64."""
    if quick:
        return [draw(0), draw(7)]
    return [*map(draw, range(COUNT)), _matmul(preset_config("huge"), LATENCY, *LARGE)]


def items(quick: bool) -> list[Item]:
    """Each in RTL and in the model."""
    return [case.item(backend) for case in cases(quick) for backend in (RTL, MODEL)]


def _pairs(found: Found) -> list[tuple[str, dict[str, Any], int, int, int]]:
    """Name, configuration, latency, cycles in RTL and in the model, of all that ran in both."""
    pairs = []
    for known in layers.CASES:
        rtl, model = (known.row(found[layers.NAME], backend) for backend in (RTL, MODEL))
        if rtl is not None and model is not None:
            name = f"{known.size.name}, S {known.sequence}"
            cycles = rtl.result["cycles"], model.result["cycles"]
            pairs.append((name, rtl.spec["config"], LATENCY, *cycles))
    for case in cases(False):
        config = case.config.to_dict()
        spec = {**case.spec, "config": config, "latency": case.latency}
        rtl, model = (pick(found[NAME], backend=backend, **spec) for backend in (RTL, MODEL))
        if rtl is not None and model is not None:
            cycles = rtl.result["cycles"], model.result["cycles"]
            pairs.append((case.name, config, case.latency, *cycles))
    return pairs


def tables(found: Found) -> list[Table]:
    """Every program that ran in both, and the largest and mean error."""
    pairs = _pairs(found)
    errors = [abs(model - rtl) / rtl for *_, rtl, model in pairs]
    lines = [
        [
            name,
            f"{config['name']}, {array(config)}",
            onchip(config),
            str(latency),
            number(rtl),
            number(model),
            share(error, 2) + ("" if error <= GOAL else ", missed"),
        ]
        for (name, config, latency, rtl, model), error in zip(pairs, errors, strict=True)
    ]
    notes = []
    if errors:
        notes.append(
            f"|model − RTL| / RTL over {len(errors)} programs: at most {max(errors):.2%}, mean "
            f"{sum(errors) / len(errors):.2%} (goal {GOAL:.0%} for each)."
        )
    return [
        Table(
            title="The cycle model against RTL",
            header=("program", "machine", "on chip", "latency", "RTL", "model", "error"),
            rows=lines,
            notes=notes,
        )
    ]


PART = Part(name=NAME, about="the cycle model against RTL", items=items, tables=tables)
