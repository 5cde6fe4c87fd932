"""Compilation of one encoder layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.config import Config
from sw.compiler.blocks.attention import Attention
from sw.compiler.blocks.emitter import (
    INPUT,
    OUTPUT,
    SCRATCH,
    UNTRACKED,
    WEIGHTS,
    Emitter,
    StatePlace,
)
from sw.compiler.blocks.tail import OUTS, Tail, TailProducts
from sw.compiler.errors import CompileError
from sw.compiler.estimate import Estimate, timeline_estimate
from sw.compiler.pack import Product, WeightImage, from_panels, panels
from sw.compiler.place import DramMap
from sw.compiler.plan import Options, Plan, options
from sw.compiler.products import head_products, tail_products
from sw.compiler.schedule import Schedule
from sw.compiler.tile import COLUMNS_MAX, Geometry, Shape
from sw.program import Program
from sw.quantize.formats import QLayer, QLinear, Width

I16 = npt.NDArray[np.int16]
U16 = npt.NDArray[np.uint16]

LENGTH_SCALAR = 0
"""Scalar register with the number of valid tokens of a single layer."""
ALIGNMENT = 64
"""Bytes buffers and chunks in DRAM are aligned to."""
SEQUENCE_MAX = 4096
"""Keys a row of scores may have: the softmax's denominator takes 20 bits."""
EFFORT = 5
"""Choices of each part of a plan that are compared by their estimated cycles."""
_COMMANDS_COMPARED = 12000
"""Commands after which no more programs are compared."""
_SHORT_PASSES = 0.01
"""Share of the cycles that row blocks of less than two arrays' rows count in addition: their passes
leave the weight loader no slack, which the event model does not see."""
_COMMAND_CYCLES = 4
"""Cycles a command counts besides the estimate: of nearly equal programs the shorter is better."""


@dataclass(frozen=True)
class Buffer:
    """A matrix or vector in DRAM.

    Attributes
    ----------
    region, offset, size : int
        Region, and bytes from its base.
    layout : str
        "s16 panels", "u16", "program" or "chunks".
    shape : tuple of int
        Logical shape; bytes for "program" and "chunks".
    """

    region: int
    offset: int
    size: int
    layout: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LayerProgram:
    """A compiled layer.

    Attributes
    ----------
    config : Config
    shape : Shape
    plan : Plan
        How it was mapped.
    program : Program
    weights : bytes
        The image of region 1.
    regions : dict of int to int
        Bytes each region needs; 0 program, 1 weights, 2 input, 3 output, 4 scratch.
    buffers : dict of str to Buffer
        "x", "x magnitudes", "y", "y magnitudes", "program", "weights".
    scalars : dict of str to int
        Scalar registers by meaning: "length", the number of valid tokens.
    estimate : Estimate
        Cycles and busy shares by the event model.
    """

    config: Config
    shape: Shape
    plan: Plan
    program: Program
    weights: bytes
    regions: dict[int, int]
    buffers: dict[str, Buffer]
    scalars: dict[str, int]
    estimate: Estimate

    @property
    def utilization(self) -> float:
        """The layer's own MACs over cycles times elements, by the estimate."""
        elements = self.config.rows * self.config.columns
        return self.shape.macs / (self.estimate.cycles * elements)

    def pack_input(self, x: npt.NDArray[np.integer[Any]]) -> bytes:
        """Region 2 of an input [S, hidden], s16: panels and row magnitudes.

        Raises
        ------
        ValueError
            If the shape is another, or a value does not fit s16.
        """
        expected = self.shape.sequence, self.shape.hidden
        if x.shape != expected:
            raise ValueError(f"input of shape {x.shape}: {expected} is needed")
        if x.size and (int(x.min()) < -32768 or int(x.max()) > 32767):
            raise ValueError(f"input of {int(x.min())} to {int(x.max())}: s16 is needed")
        out = bytearray(self.regions[INPUT])
        self._put(out, "x", panels(x, self.config.panel).astype("<i2").tobytes())
        largest = np.abs(x.astype(np.int64)).max(axis=1)
        self._put(out, "x magnitudes", largest.astype("<u2").tobytes())
        return bytes(out)

    def _put(self, out: bytearray, name: str, data: bytes) -> None:
        offset = self.buffers[name].offset
        out[offset : offset + len(data)] = data

    def unpack_output(self, data: bytes) -> tuple[I16, U16]:
        """Return y [S, hidden] and its row magnitudes [S] from the bytes of region 3."""
        y, magnitudes = self.buffers["y"], self.buffers["y magnitudes"]
        sequence, hidden = y.shape
        width = self.config.panel
        raw = np.frombuffer(data, dtype="<i2", count=y.size // 2, offset=y.offset)
        values = from_panels(raw.reshape(-1, sequence, width), hidden).astype(np.int16)
        rows = np.frombuffer(data, dtype="<u2", count=sequence, offset=magnitudes.offset)
        return values, rows.astype(np.uint16)


def _check_linear(name: str, linear: QLinear, config: Config) -> None:
    if linear.mode.weight_bits == 8:
        bound = 1 << config.weight_bits - 1
        low, high = int(linear.weight.min()), int(linear.weight.max())
        if low < -bound or high >= bound:
            raise CompileError(
                f"{name}: weights of {low} to {high}, weight_bits = {config.weight_bits} holds "
                f"{-bound} to {bound - 1}"
            )
    if name in ("o", "ffn1", "ffn2") and linear.out is not Width.S16:
        raise CompileError(f"{name}: output {linear.out.value}, s16 is implemented")
    least = 9 if linear.row_scaled else 8
    if int(linear.shift.min()) < least:
        raise CompileError(f"{name}: shift {int(linear.shift.min())}, at least {least} is needed")


def check_layer(layer: QLayer, config: Config, sequence: int) -> None:
    """Refuse what the machine or the arithmetic cannot do."""
    if not 1 <= sequence <= SEQUENCE_MAX:
        raise CompileError(f"sequence = {sequence}: 1 to {SEQUENCE_MAX} is needed")
    if layer.act not in config.functions:
        raise CompileError(
            f"activation {layer.act}: the lanes of {config.name} hold "
            f"{', '.join(config.functions) or 'no function'}"
        )
    for name in ("hidden", "ffn"):
        if getattr(layer, name) > COLUMNS_MAX:
            raise CompileError(f"{name} = {getattr(layer, name)}: at most {COLUMNS_MAX}")
    for name in ("q", "k", "v", "o", "ffn1", "ffn2"):
        _check_linear(name, getattr(layer, name), config)
    wanted = Width.S8 if layer.attention_bits == 8 else Width.SYM16
    for name in ("q", "k", "v"):
        if getattr(layer, name).out is not wanted:
            raise CompileError(
                f"{name}: output {getattr(layer, name).out.value}, attention of "
                f"{layer.attention_bits} bits takes {wanted.value}"
            )
    if len({layer.q.mode, layer.k.mode, layer.v.mode}) > 1:
        raise CompileError("q, k and v: one mode for the three is needed")
    if layer.k.act or layer.q.act or layer.v.act or layer.o.act or layer.ffn2.act:
        raise CompileError("an activation is implemented behind ffn1 only")
    if layer.ffn1.act != layer.act or layer.ffn1.smooth is None:
        raise CompileError("ffn1: an activation with its smoothing factor is needed")
    if layer.o.residual is None or layer.ffn2.residual is None:
        raise CompileError("o and ffn2: a residual is needed")
    if config.weight_bits < 8:
        # Keys and values come from the vector unit as s8 and are stationary operands.
        raise CompileError(f"weight_bits = {config.weight_bits}: attention needs 8")


def emit_layer(
    schedule: Schedule,
    image: WeightImage,
    scratch: DramMap,
    layer: QLayer,
    plan: Plan,
    heads: list[Product],
    products: TailProducts,
    *,
    x: StatePlace,
    y: StatePlace,
    length: int,
) -> None:
    """Emit a layer's commands; what it spills gets its place in the scratch region.

    Parameters
    ----------
    x, y : StatePlace
        Input and output.
    length : int
        Scalar register with the number of valid tokens.
    """
    shape = plan.shape
    context = context_magnitudes = 0
    if not plan.context_resident:
        size = shape.context_panels * shape.sequence * schedule.config.word_bytes
        context = scratch.share("context", size)
        if not plan.scales_resident:
            context_magnitudes = scratch.share("context magnitudes", 2 * shape.sequence)
    emitter = Emitter(schedule, plan, image, x=x, y=y, length=length)
    Attention(
        emitter,
        plan,
        heads,
        layer.softmax,
        context_out=OUTS[layer.context],
        context=context,
        context_magnitudes=context_magnitudes,
    ).emit()
    Tail(
        emitter,
        plan,
        layer,
        products,
        context=context,
        context_magnitudes=context_magnitudes,
    ).emit()


def _compile(
    layer: QLayer, config: Config, plan: Plan, heads: list[Product], products: TailProducts
) -> tuple[LayerProgram, WeightImage]:
    shape = plan.shape
    word = config.word_bytes
    state = shape.hidden_panels * shape.sequence * word
    maps = {region: DramMap(ALIGNMENT) for region in (WEIGHTS, INPUT, OUTPUT, SCRATCH)}
    image = WeightImage(maps[WEIGHTS], word)
    places = {
        region: StatePlace(
            region,
            maps[region].add("panels", state),
            maps[region].add("magnitudes", 2 * shape.sequence),
        )
        for region in (INPUT, OUTPUT)
    }
    schedule = Schedule(config, UNTRACKED)
    emit_layer(
        schedule,
        image,
        maps[SCRATCH],
        layer,
        plan,
        heads,
        products,
        x=places[INPUT],
        y=places[OUTPUT],
        length=LENGTH_SCALAR,
    )
    program = Program(config, schedule.commands())
    regions = {0: 64 * len(program), **{r: max(m.size, ALIGNMENT) for r, m in maps.items()}}
    matrix = (shape.sequence, shape.hidden)
    buffers = {
        "program": Buffer(0, 0, regions[0], "program", (regions[0],)),
        "weights": Buffer(WEIGHTS, 0, regions[WEIGHTS], "chunks", (regions[WEIGHTS],)),
    }
    for name, region in (("x", INPUT), ("y", OUTPUT)):
        place = places[region]
        rows = 2 * shape.sequence
        buffers[name] = Buffer(region, place.panels, state, "s16 panels", matrix)
        buffers[f"{name} magnitudes"] = Buffer(
            region, place.magnitudes, rows, "u16", (shape.sequence,)
        )
    compiled = LayerProgram(
        config=config,
        shape=shape,
        plan=plan,
        program=program,
        weights=b"",
        regions=regions,
        buffers=buffers,
        scalars={"length": LENGTH_SCALAR},
        estimate=timeline_estimate(schedule.timeline),
    )
    return compiled, image


def compile_layer(
    layer: QLayer, config: Config, sequence: int, *, effort: int = EFFORT
) -> LayerProgram:
    """Map one encoder layer onto a configuration.

    Parameters
    ----------
    layer : QLayer
    config : Config
    sequence : int
        Rows S; how many of them are valid is scalar register 0's business when the program runs.
    effort : int
        Choices of each part of a plan that are compared; 1 takes the first that fits.

    Returns
    -------
    LayerProgram
        Of the plans that fit, the one with the fewest estimated cycles.

    Raises
    ------
    CompileError
        With the reason and the sizes, where the layer does not fit.
    """
    search = plan_layer(layer, config, sequence, effort=effort)
    compiled, image = search.compiled
    return replace(compiled, weights=image.to_bytes())


def layer_shape(layer: QLayer, config: Config, sequence: int) -> Shape:
    """Sizes of a layer on a configuration."""
    return Shape(
        geometry=Geometry(config),
        sequence=sequence,
        hidden=layer.hidden,
        heads=layer.heads,
        head_dim=layer.head_dim,
        ffn=layer.ffn,
        precision=layer.precision,
    )


def plan_layer(layer: QLayer, config: Config, sequence: int, *, effort: int = EFFORT) -> Search:
    """Find the plan with the fewest estimated cycles; as `compile_layer`."""
    check_layer(layer, config, sequence)
    shape = layer_shape(layer, config, sequence)
    heads = head_products(layer, shape.geometry)
    products = tail_products(layer, shape.geometry)
    search = Search(layer, config, heads, products, effort)
    for choices in options(config, shape):
        search.run(choices)
    if search.best is None:
        raise CompileError(
            f"{config.name}: a scratchpad of {config.sp_words} words of {config.word_bytes} bytes "
            f"(with {config.scale_rows} scale and {config.stat_rows} statistics rows) is too small "
            f"for sequence {sequence}, hidden {layer.hidden}, {layer.heads} heads of "
            f"{layer.head_dim}, ffn {layer.ffn}"
        )
    return search


class Search:
    """Compares plans by the estimated cycles of their programs."""

    def __init__(
        self,
        layer: QLayer,
        config: Config,
        heads: list[Product],
        products: TailProducts,
        effort: int,
    ) -> None:
        self.layer = layer
        self.config = config
        self.heads = heads
        self.products = products
        self.effort = effort
        self.commands = 0
        self.best_cost = 0.0
        self.best: tuple[LayerProgram, WeightImage] | None = None

    @property
    def compiled(self) -> tuple[LayerProgram, WeightImage]:
        """The best program and its weights."""
        assert self.best is not None
        return self.best

    def score(self, compiled: LayerProgram) -> float:
        """What is minimised."""
        shape, cycles = compiled.shape, compiled.estimate.cycles
        short = sum(
            block.rows
            for group in compiled.plan.tail
            for block in group
            if block.rows < 2 * shape.geometry.pass_rows
        )
        slack = _SHORT_PASSES * cycles * short / shape.sequence
        return cycles + slack + _COMMAND_CYCLES * len(compiled.program)

    def attempt(self, plan: Plan) -> float:
        """Compile a plan and keep it if it is the best so far; return its score."""
        compiled, image = _compile(self.layer, self.config, plan, self.heads, self.products)
        self.commands += len(compiled.program)
        if self.best is None or self.score(compiled) < self.score(self.best[0]):
            self.best = compiled, image
        return self.score(compiled)

    def run(self, choices: Options) -> None:
        """Vary what follows attention, then attention, the other part at its best."""
        if self.best is not None and (
            self.effort == 1
            or self.commands > _COMMANDS_COMPARED
            or choices.cost > 1.1 * self.best_cost
        ):
            return
        self.best_cost = choices.cost if self.best is None else min(self.best_cost, choices.cost)
        chosen = self.vary(choices, 0, None)
        if chosen is not None and self.effort > 1:
            self.vary(choices, None, chosen)

    def vary(self, choices: Options, attention: int | None, tail: int | None) -> int | None:
        """Try the first choices of the part that is None; return the best one's number."""
        scores: dict[int, float] = {}
        for number in self.numbers(choices, attention, tail):
            plan = choices.combine(
                number if attention is None else attention, number if tail is None else tail
            )
            if plan is not None:
                scores[number] = self.attempt(plan)
                if self.commands > _COMMANDS_COMPARED:
                    break
        return min(scores, key=lambda number: scores[number]) if scores else None

    def numbers(self, choices: Options, attention: int | None, tail: int | None) -> Iterator[int]:
        """Numbers to try: the first ones, and as long as nothing was found the others too."""
        count = len(choices.attention if attention is None else choices.tail)
        for number in range(count):
            if number < self.effort or self.best is None:
                yield number
