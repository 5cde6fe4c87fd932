"""Layers and machines drawn at random: cycles against the larger of array and bus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tilewright.hw.config import Config, preset_config
from tilewright.sw.bench.markdown import Table
from tilewright.sw.bench.part import Part, array, kib, number
from tilewright.sw.bench.results import Found, Item, Tell
from tilewright.sw.bench.runs import MODEL, item, layer_work
from tilewright.sw.bench.sizes import LayerSize, array_cycles, bus_cycles
from tilewright.sw.compiler import CompileError
from tilewright.sw.rounding import ceil_div
from tilewright.sw.words import plural

NAME = "drawn"
COUNT, SEED = 20, 1
GOAL = 1.10
"""Cycles over the bound."""

_SIDES = (4, 8, 16, 32, 64)
_HEAD_DIMS = (16, 32, 48, 64, 96, 128)
_BASES = {4: "tiny", 8: "small", 16: "default", 32: "large", 64: "huge"}
"""Preset whose memories and bus a machine takes, by its longer side."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A layer on a machine."""

    size: LayerSize
    sequence: int
    config: Config

    @property
    def array_bound(self) -> int:
        """Cycles of the passes."""
        return array_cycles(self.size.gemms(self.sequence), self.config.rows, self.config.columns)


def machine(rows: int, columns: int) -> Config:
    """The preset of the longer side with another array and lanes for half its columns.

    The scratchpad has 16,384 words at least: the small presets' are for short sequences.
    """
    base = preset_config(_BASES[max(rows, columns)])
    changes = {
        "name": f"a{rows}x{columns}",
        "rows": rows,
        "columns": columns,
        "lanes": columns // 2,
        "sp_depth": max(base.sp_depth, 2048),
    }
    return Config.from_dict({**base.to_dict(), **changes})


def draw(index: int, seed: int = SEED) -> Draw:
    """Layer `index` of a seed: hidden 64 … 1024, sequence 8 … 512, array 4×4 … 64×64.

    Sizes are uniform in their logarithm, so that small and large ones come alike; two machines of
    three are square.
    """
    rng = np.random.default_rng((seed, index))
    while True:
        head_dim = int(rng.choice(_HEAD_DIMS))
        heads = int(rng.integers(1, 17))
        if 64 <= heads * head_dim <= 1024:
            break
    hidden = heads * head_dim
    ffn = 16 * round(hidden * 2.0 ** rng.uniform(0, 2) / 16)
    sequence = round(8 * 2.0 ** rng.uniform(0, 6))
    rows = int(rng.choice(_SIDES))
    columns = int(rng.choice(_SIDES)) if rng.random() < 1 / 3 else rows
    size = LayerSize(name="drawn", hidden=hidden, heads=heads, head_dim=head_dim, ffn=ffn)
    return Draw(size=size, sequence=sequence, config=machine(rows, columns))


def bounds(one: Draw, result: Mapping[str, Any]) -> tuple[int, int]:
    """Cycles of the array and of the bus that a run cannot go below."""
    bus = bus_cycles(result["read_bytes"], result["write_bytes"], one.config.axi_bytes)
    return one.array_bound, bus


WAITS = {
    "load": {
        "token": "it waits for room in the scratchpad",
        "memory": "it waits for the memory",
        "port": "it waits for a port of the scratchpad",
        "idle": "it has no load to run, as behind the last one, when product, LayerNorm and store "
        "remain",
    },
    "store": {
        "token": "it waits for what is to be stored",
        "memory": "it waits for the memory",
        "port": "it waits for a port of the scratchpad",
        "idle": "it has no store to run",
    },
    "matmul": {
        "token": "it waits for other units",
        "weights": "it waits for the weights of its next tile",
        "hazard": "it waits for accumulators that are being written",
        "drain": "its pipeline empties",
        "idle": "it has no product to run, as behind the last one, when LayerNorm and store remain",
        "padding": "its passes are longer than the bound counts them",
    },
}
"""What a unit's counter says about the layer, for those a layer can be bound by."""
_WORTH = 0.02
"""Share of the cycles from which on something is told."""


def _sentence(
    bound: str, words: Mapping[str, str], counters: Mapping[str, int], cycles: int
) -> str:
    """How long a unit is at work, and what it does instead, in its `words`, the most first."""
    parts = [f"{bound} is at work in {counters['busy'] / cycles:.0%} of the cycles"]
    for name in sorted(words, key=lambda name: -counters[name]):
        if (count := counters[name]) >= _WORTH * cycles:
            parts.append(f"in {count / cycles:.0%} ({number(count)} cycles) {words[name]}")
    return "; ".join(parts)


def _others(one: Draw, counters: Mapping[str, Mapping[str, int]], cycles: int) -> str:
    """What the array waits for: the busier of loads and vector unit, and the input."""
    # A unit is taken in all cycles but those without a command and those waiting for a token.
    load, vector = (
        sum(counters[unit].values()) - counters[unit]["token"] - counters[unit]["idle"]
        for unit in ("load", "vector")
    )
    size, s = one.size, one.sequence
    if load > vector:
        told = [f"LOAD is taken in {load / cycles:.0%}"]
    else:
        heads = "one head" if size.heads == 1 else f"each of {size.heads} heads"
        told = [
            f"the vector unit with its {plural(one.config.lanes, 'lane')} is taken in "
            f"{vector / cycles:.0%} by the softmax of {s} rows of {heads}, by LayerNorm and by "
            "what each product gives"
        ]
        if size.heads == 1:
            told.append("no other head can be multiplied meanwhile")
    first = bus_cycles(2 * s * size.hidden, 0, one.config.axi_bytes)
    if first >= _WORTH * cycles:
        told.append(f"the input takes {number(first)} cycles to come")
    return ", ".join(told)


def reason(one: Draw, result: Mapping[str, Any]) -> str:
    """Why a run took longer than its bound, in sentences made of its counters and its sizes.

    Parameters
    ----------
    one : Draw
    result : mapping
        Of `tilewright.sw.bench.runs.run`: cycles, bytes, and the cycles of each kind of every unit.
    """
    counters, cycles = result["counters"], result["cycles"]
    config = one.config
    array_bound, bus_bound = bounds(one, result)
    if bus_bound > array_bound:
        text = "bound by the bus"
        # Rows that keep the array as long as a weight keeps the bus.
        even = ceil_div(config.rows * config.columns, config.axi_bytes)
        if one.sequence < even:
            text += f": weights come for {one.sequence} rows, {even} would balance array and bus"
        unit = "load" if result["read_bytes"] >= result["write_bytes"] else "store"
        return _sentence(f"{text}; {unit.upper()}", WAITS[unit], counters[unit], cycles)
    matmul = dict(counters["matmul"])
    matmul["padding"] = matmul["busy"] - array_bound
    words = dict(WAITS["matmul"])
    words["token"] += f" ({_others(one, counters, cycles)})"
    return _sentence("bound by the array, which", words, matmul, cycles)


def _spec(index: int, one: Draw) -> dict[str, Any]:
    size = one.size
    return {
        "what": "layer",
        "draw": index,
        "seed": SEED,
        "hidden": size.hidden,
        "heads": size.heads,
        "head_dim": size.head_dim,
        "ffn": size.ffn,
        "sequence": one.sequence,
    }


def _measure(inner: Callable[[Tell], dict[str, Any]], tell: Tell) -> dict[str, Any]:
    """A layer that does not fit is a result too."""
    try:
        return inner(tell)
    except CompileError as error:
        return {"refused": str(error)}


def _item(index: int) -> Item:
    one = draw(index)
    made = item(
        NAME,
        partial(layer_work, one.size, one.config, one.sequence),
        MODEL,
        config=one.config,
        label=f"drawn {index}",
        **_spec(index, one),
    )
    return replace(made, measure=partial(_measure, made.measure))


def items(quick: bool) -> list[Item]:
    """The layers in the cycle model."""
    return [_item(index) for index in range(3 if quick else COUNT)]


def _line(one: Draw, result: dict[str, Any]) -> tuple[list[str], bool]:
    """A line of the table, and whether the layer keeps the goal."""
    size, config = one.size, one.config
    line = [
        f"{size.hidden}, {size.heads}×{size.head_dim}, {size.ffn}",
        str(one.sequence),
        f"{array(config.to_dict())}, {config.axi_bytes} B",
        kib(config.onchip_bytes),
    ]
    if "refused" in result:
        return [*line, "–", number(one.array_bound), "–", "–", result["refused"]], False
    array_bound, bus_bound = bounds(one, result)
    cycles = result["cycles"]
    ratio = cycles / max(array_bound, bus_bound)
    why = "" if ratio <= GOAL else reason(one, result)
    line += [number(cycles), number(array_bound), number(bus_bound), f"{ratio:.3f}", why]
    return line, ratio <= GOAL


def tables(found: Found) -> list[Table]:
    """Every layer; those above the goal with the reason."""
    lines, kept = [], 0
    for row in found[NAME]:
        line, keeps = _line(draw(row.spec["draw"]), row.result)
        lines.append(line)
        kept += keeps
    return [
        Table(
            title="Layers drawn at random",
            header=(
                "hidden, heads, FFN",
                "S",
                "array, bus",
                "on chip",
                "cycles",
                "array",
                "bus",
                "ratio",
                f"above {GOAL}: why",
            ),
            rows=lines,
            notes=[
                f"{kept} of {len(lines)} within {GOAL} of the larger of array and bus. Array: "
                "Σ ceil(K/R)·ceil(N/C)·max(M, R), the three projections and each head's two "
                "products counted whole; bus: the bytes the program moves over the bytes of a "
                "beat, reading and writing at the same time. Cycles are the cycle model's."
            ],
        )
    ]


PART = Part(
    name=NAME, about="drawn layers against the bound of array and bus", items=items, tables=tables
)
