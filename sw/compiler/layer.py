"""Compilation of one encoder layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.config import Config
from sw.compiler.blocks.attention import PARTS, Attention
from sw.compiler.blocks.emitter import (
    INPUT,
    LENGTH_SCALAR,
    OUTPUT,
    SCRATCH,
    WEIGHTS,
    Emitter,
)
from sw.compiler.blocks.tail import Tail, TailProducts
from sw.compiler.errors import CompileError
from sw.compiler.estimate import Estimate, timeline_estimate
from sw.compiler.pack import Product, WeightImage, from_panels, pad, panels, parameters
from sw.compiler.place import DramMap
from sw.compiler.plan import Options, Plan, options
from sw.compiler.tile import COLUMNS_MAX, Geometry, Shape
from sw.program import Program
from sw.quantize.formats import QLayer, QLayerNorm, QLinear, Width

I16 = npt.NDArray[np.int16]
U16 = npt.NDArray[np.uint16]

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


def _check(layer: QLayer, config: Config, sequence: int) -> None:
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
    bound = 1 << config.weight_bits - 1
    for name in ("q", "k", "v", "o", "ffn1", "ffn2"):
        linear: QLinear = getattr(layer, name)
        if not linear.row_scaled:
            raise CompileError(f"{name}: an operand without row scale is not implemented")
        low, high = int(linear.weight.min()), int(linear.weight.max())
        if low < -bound or high >= bound:
            raise CompileError(
                f"{name}: weights of {low} to {high}, weight_bits = {config.weight_bits} holds "
                f"{-bound} to {bound - 1}"
            )
        wanted = Width.S8 if name in ("q", "k", "v") else Width.S16
        if linear.out is not wanted:
            raise CompileError(f"{name}: output {linear.out.value}, {wanted.value} is implemented")
        if int(linear.shift.min()) < 9:
            raise CompileError(f"{name}: shift {int(linear.shift.min())}, at least 9 is needed")
    if layer.k.act or layer.q.act or layer.v.act or layer.o.act or layer.ffn2.act:
        raise CompileError("an activation is implemented behind ffn1 only")
    if layer.ffn1.act != layer.act or layer.ffn1.smooth is None:
        raise CompileError("ffn1: an activation with its smoothing factor is needed")
    if layer.o.residual is None or layer.ffn2.residual is None:
        raise CompileError("o and ffn2: a residual is needed")
    if config.weight_bits < 8:
        # Keys and values come from the vector unit as s8 and are stationary operands.
        raise CompileError(f"weight_bits = {config.weight_bits}: attention needs 8")


def _heads(layer: QLayer, geometry: Geometry) -> list[Product]:
    """q, k, v of each head side by side, each padded to panels."""
    width = geometry.panel
    d = layer.head_dim
    padded = geometry.panels(d) * width
    rows = geometry.k_tiles(layer.hidden) * geometry.config.rows
    out = []
    for head in range(layer.heads):
        span = slice(head * d, (head + 1) * d)
        weights, params = [], []
        for part in PARTS:
            linear: QLinear = getattr(layer, part)
            weights.append(pad(linear.weight[:, span], rows, padded))
            values = parameters(
                d, mult=linear.mult[span], shift=linear.shift[span], bias=linear.bias[span]
            )
            # A shift of a padded channel must not become negative by the row's exponent.
            params.append(_pad_parameters(values, padded))
        out.append(
            Product(
                name=f"head {head}",
                k=layer.hidden,
                n=padded * len(PARTS),
                weight=np.concatenate(weights, axis=1).astype(np.int8),
                params=np.concatenate(params, axis=1),
                width=width,
            )
        )
    return out


def _pad_parameters(params: I16, columns: int) -> I16:
    out = pad(params, params.shape[0], columns).astype(np.int16)
    out[1, params.shape[1] :] = 9
    return out


def _linear(
    name: str,
    linear: QLinear,
    geometry: Geometry,
    factor: npt.NDArray[np.integer[Any]] | None,
    rows: npt.NDArray[np.int8] | None = None,
) -> Product:
    weight = linear.weight if rows is None else rows
    k, n = weight.shape
    columns = geometry.panels(n) * geometry.panel
    values = parameters(n, mult=linear.mult, shift=linear.shift, bias=linear.bias, factor=factor)
    return Product(
        name=name,
        k=k,
        n=n,
        weight=pad(weight, geometry.k_tiles(k) * geometry.config.rows, columns).astype(np.int8),
        params=_pad_parameters(values, columns),
        width=geometry.panel,
    )


def _norm(name: str, constants: QLayerNorm, geometry: Geometry) -> Product:
    n = len(constants.gamma)
    columns = geometry.panels(n) * geometry.panel
    values = parameters(n, bias=constants.beta, factor=constants.gamma)
    return Product(
        name=name,
        k=0,
        n=n,
        weight=np.zeros((0, columns), dtype=np.int8),
        params=pad(values, values.shape[0], columns).astype(np.int16),
        width=geometry.panel,
    )


def _tail_products(layer: QLayer, geometry: Geometry) -> TailProducts:
    d, width = layer.head_dim, geometry.panel
    padded = geometry.panels(d) * width
    # The context's heads start on panels, so their rows of the output projection do too.
    rows = np.zeros((layer.heads * padded, layer.o.weight.shape[1]), dtype=np.int8)
    for head in range(layer.heads):
        rows[head * padded : head * padded + d] = layer.o.weight[head * d : (head + 1) * d]
    residuals = layer.o.residual, layer.ffn2.residual
    assert residuals[0] is not None
    assert residuals[1] is not None
    assert layer.ffn1.smooth is not None
    return TailProducts(
        o=_linear("o", layer.o, geometry, residuals[0].mult, rows),
        ln1=_norm("ln1", layer.ln1, geometry),
        ffn1=_linear("ffn1", layer.ffn1, geometry, layer.ffn1.smooth.mult),
        ffn2=_linear("ffn2", layer.ffn2, geometry, residuals[1].mult),
        ln2=_norm("ln2", layer.ln2, geometry),
    )


def _compile(
    layer: QLayer, config: Config, plan: Plan, heads: list[Product], products: TailProducts
) -> tuple[LayerProgram, WeightImage]:
    shape = plan.shape
    word = config.word_bytes
    state = shape.hidden_panels * shape.sequence * word
    maps = {region: DramMap(ALIGNMENT) for region in (WEIGHTS, INPUT, OUTPUT, SCRATCH)}
    image = WeightImage(maps[WEIGHTS], word)
    for region in (INPUT, OUTPUT):
        maps[region].add("panels", state)
        maps[region].add("magnitudes", 2 * shape.sequence)
    context = context_magnitudes = 0
    if not plan.context_resident:
        size = shape.context_panels * shape.sequence * word
        context = maps[SCRATCH].add("context", size)
        if not plan.scales_resident:
            context_magnitudes = maps[SCRATCH].add("context magnitudes", 2 * shape.sequence)
    emitter = Emitter(config, plan, image)
    Attention(
        emitter,
        heads,
        layer.softmax,
        magnitudes=maps[INPUT].offsets["magnitudes"],
        context=context,
        context_magnitudes=context_magnitudes,
    ).emit()
    Tail(
        emitter,
        layer,
        products,
        context=context,
        context_magnitudes=context_magnitudes,
        magnitudes=maps[OUTPUT].offsets["magnitudes"],
    ).emit()
    program = Program(config, emitter.schedule.commands())
    regions = {0: 64 * len(program), **{r: max(m.size, ALIGNMENT) for r, m in maps.items()}}
    matrix = (shape.sequence, shape.hidden)
    buffers = {
        "program": Buffer(0, 0, regions[0], "program", (regions[0],)),
        "weights": Buffer(WEIGHTS, 0, regions[WEIGHTS], "chunks", (regions[WEIGHTS],)),
    }
    for name, region in (("x", INPUT), ("y", OUTPUT)):
        offsets = maps[region].offsets
        rows = 2 * shape.sequence
        buffers[name] = Buffer(region, offsets["panels"], state, "s16 panels", matrix)
        buffers[f"{name} magnitudes"] = Buffer(
            region, offsets["magnitudes"], rows, "u16", (shape.sequence,)
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
        estimate=timeline_estimate(emitter.schedule.timeline),
    )
    return compiled, image


def compile_layer(
    layer: QLayer, config: Config, sequence: int, *, effort: int = EFFORT
) -> LayerProgram:
    """Map one encoder layer onto a configuration.

    Parameters
    ----------
    layer : QLayer
        W8A8.
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
    _check(layer, config, sequence)
    geometry = Geometry(config)
    shape = Shape(
        geometry=geometry,
        sequence=sequence,
        hidden=layer.hidden,
        heads=layer.heads,
        head_dim=layer.head_dim,
        ffn=layer.ffn,
    )
    heads = _heads(layer, geometry)
    products = _tail_products(layer, geometry)
    search = _Search(layer, config, heads, products, effort)
    for choices in options(config, shape):
        search.run(choices)
    if search.best is None:
        raise CompileError(
            f"{config.name}: a scratchpad of {config.sp_words} words of {config.word_bytes} bytes "
            f"(with {config.scale_rows} scale and {config.stat_rows} statistics rows) is too small "
            f"for sequence {sequence}, hidden {layer.hidden}, {layer.heads} heads of "
            f"{layer.head_dim}, ffn {layer.ffn}"
        )
    compiled, image = search.best
    return replace(compiled, weights=image.to_bytes())


class _Search:
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
