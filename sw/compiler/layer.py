"""Compilation of one encoder layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

from tilewright.hw.commands import Opcode
from tilewright.hw.config import Config
from tilewright.sw.arguments import instance, integer
from tilewright.sw.compiler.blocks.attention import Attention
from tilewright.sw.compiler.blocks.emitter import (
    INPUT,
    OUTPUT,
    SCRATCH,
    UNTRACKED,
    WEIGHTS,
    Emitter,
    StatePlace,
)
from tilewright.sw.compiler.blocks.tail import OUTS, Tail, TailProducts
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.estimate import Estimate, estimate
from tilewright.sw.compiler.pack import Product, WeightImage
from tilewright.sw.compiler.place import DramMap
from tilewright.sw.compiler.plan import Options, Plan, options
from tilewright.sw.compiler.products import head_products, tail_products
from tilewright.sw.compiler.schedule import Schedule
from tilewright.sw.compiler.tile import Geometry, Shape
from tilewright.sw.program import Buffer, Executable, OperationNames, Program
from tilewright.sw.program.layouts import MAGNITUDES
from tilewright.sw.quantize.formats import EdgeFormat, QLayer, QLinear, check_sizes
from tilewright.sw.quantize.precision import LayerPrecision, format_precision

LENGTH_SCALAR = 0
"""Scalar register with the number of valid tokens of a single layer."""
ALIGNMENT = 64
"""Bytes buffers and chunks in DRAM are aligned to."""
SEQUENCE_MAX = 4096
"""Keys a row of scores may have: the softmax's denominator takes 20 bits."""
EFFORT = 5
"""Choices of each part of a plan that are compiled and compared by their cycles."""
_MODELLED_PASSES = 150_000
"""Passes of the array up to which the cycle model compares all of them. It takes seconds for more:
then the clocks that ordered the commands choose `_FINALISTS`, and it compares those."""
_FINALISTS = 5
_COMMANDS_COMPARED = 20000
"""Commands after which only the first choice of what may stay on chip is compared."""
_COMMAND_CYCLES = 4
"""Cycles a command counts besides the estimate: of nearly equal programs the shorter is better."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layer compiled by one plan.

    Attributes
    ----------
    plan : Plan
    program : Program
    image : WeightImage
    maps : dict of int to DramMap
        Of every region but the program's.
    x, y : StatePlace
    rough : int
        Cycles by the clocks that ordered its commands.
    operations : OperationNames
        What each command belongs to.
    """

    plan: Plan
    program: Program
    image: WeightImage
    maps: dict[int, DramMap]
    x: StatePlace
    y: StatePlace
    rough: int
    operations: OperationNames

    @property
    def passes(self) -> int:
        """Passes of the array."""
        return sum(
            command.integer("kt") * command.integer("nt")
            for command in self.program.body
            if command.opcode == Opcode.MATMUL
        )

    @cached_property
    def estimate(self) -> Estimate:
        """Cycles by the cycle model."""
        return estimate(self.program, self.program.config)

    def executable(self, precision: LayerPrecision) -> Executable:
        """The program with its weights and the names of its buffers."""
        shape = self.plan.shape
        matrix = shape.sequence, shape.hidden
        size = shape.hidden_panels * shape.sequence * self.program.config.word_bytes
        rows = 2 * shape.sequence
        x, y = self.x, self.y
        return Executable(
            config=self.program.config,
            program=self.program,
            constants={WEIGHTS: self.image.to_bytes()},
            regions={region: max(dram.size, ALIGNMENT) for region, dram in self.maps.items()},
            buffers={
                "x": Buffer(x.region, x.panels, size, "s16 panels", matrix, "input"),
                "x magnitudes": Buffer(
                    x.region, x.magnitudes, rows, MAGNITUDES, matrix[:1], "input", of="x"
                ),
                "y": Buffer(y.region, y.panels, size, "s16 panels", matrix, "output"),
                "y magnitudes": Buffer(y.region, y.magnitudes, rows, "u16", matrix[:1], "output"),
            },
            scalars={"length": LENGTH_SCALAR},
            metadata={
                "sequence": shape.sequence,
                "hidden": shape.hidden,
                "precision": format_precision((precision,)),
                "macs": shape.macs,
                "estimate": asdict(self.estimate),
                "operations": self.operations.to_metadata(),
            },
        )


def _check_linear(name: str, linear: QLinear, config: Config) -> None:
    if linear.mode.weight_bits == 8:
        bound = 1 << config.weight_bits - 1
        low, high = int(linear.weight.min()), int(linear.weight.max())
        if low < -bound or high >= bound:
            raise CompileError(
                f"{name}: weights of {low} to {high}, weight_bits = {config.weight_bits} holds "
                f"{-bound} to {bound - 1}"
            )
    if name in ("o", "ffn1", "ffn2") and linear.out is not EdgeFormat.S16:
        raise CompileError(f"{name}: output {linear.out.value}: must be s16")
    least = 9 if linear.row_scaled else 8
    if int(linear.shift.min()) < least:
        raise CompileError(f"{name}: shift {int(linear.shift.min())}: must be at least {least}")


def check_layer(layer: QLayer, config: Config, sequence: int) -> None:
    """Refuse what the machine or the arithmetic cannot do."""
    if integer("sequence", sequence, 1) > SEQUENCE_MAX:
        raise CompileError(f"sequence = {sequence}: must be 1 to {SEQUENCE_MAX}")
    if layer.act not in config.functions:
        raise CompileError(
            f"activation {layer.act}: the lanes of {config.title} hold "
            f"{', '.join(config.functions) or 'no function'}"
        )
    check_sizes(hidden=layer.hidden, heads=layer.heads, head_dim=layer.head_dim, ffn=layer.ffn)
    for name in ("q", "k", "v", "o", "ffn1", "ffn2"):
        _check_linear(name, getattr(layer, name), config)
    wanted = EdgeFormat.S8 if layer.attention_bits == 8 else EdgeFormat.SYM16
    for name in ("q", "k", "v"):
        if getattr(layer, name).out is not wanted:
            raise CompileError(
                f"{name}: output {getattr(layer, name).out.value}, attention of "
                f"{layer.attention_bits} bits takes {wanted.value}"
            )
    if len({layer.q.mode, layer.k.mode, layer.v.mode}) > 1:
        raise CompileError("q, k and v: must have the same mode")
    if layer.k.act or layer.q.act or layer.v.act or layer.o.act or layer.ffn2.act:
        raise CompileError("an activation is implemented behind ffn1 only")
    if layer.ffn1.act != layer.act or layer.ffn1.smooth is None:
        raise CompileError("ffn1: must have an activation with its smoothing factor")
    if layer.o.residual is None or layer.ffn2.residual is None:
        raise CompileError("o and ffn2: must have a residual")
    if config.weight_bits < 8:
        # Keys and values come from the vector unit as s8 and are stationary operands.
        raise CompileError(f"weight_bits = {config.weight_bits}: attention needs 8")


def _operation_macs(shape: Shape) -> dict[str, int]:
    """A layer's own multiply-accumulates, by the names the blocks give its operations."""
    rows, hidden, width = shape.sequence, shape.hidden, shape.heads * shape.head_dim
    attention = {
        f"head {head} / {name}": macs
        for head in range(shape.heads)
        for name, macs in (
            ("qkv", 3 * rows * hidden * shape.head_dim),
            ("scores", rows * rows * shape.head_dim),
            ("context", rows * rows * shape.head_dim),
        )
    }
    ffn = rows * hidden * shape.ffn
    return {**attention, "output": rows * width * hidden, "ffn1": ffn, "ffn2": ffn}


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
    owner: str = "",
) -> None:
    """Emit a layer's commands; what it spills gets its place in the scratch region.

    Parameters
    ----------
    x, y : StatePlace
        Input and output.
    length : int
        Scalar register with the number of valid tokens.
    owner : str
        Before the names of the operations.
    """
    shape = plan.shape
    schedule.macs |= {owner + name: macs for name, macs in _operation_macs(shape).items()}
    context = context_magnitudes = 0
    if not plan.context_resident:
        size = shape.context_panels * shape.sequence * schedule.config.word_bytes
        context = scratch.share("context", size)
        if not plan.scales_resident:
            context_magnitudes = scratch.share("context magnitudes", 2 * shape.sequence)
    emitter = Emitter(schedule, plan, image, x=x, y=y, length=length, owner=owner)
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
) -> Candidate:
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
    return Candidate(
        plan=plan,
        program=Program(config, schedule.commands()),
        image=image,
        maps=maps,
        x=places[INPUT],
        y=places[OUTPUT],
        rough=schedule.timeline.last,
        operations=schedule.operations(),
    )


def compile_layer(
    layer: QLayer, config: Config, sequence: int, *, effort: int = EFFORT
) -> Executable:
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
    Executable
        Of the plans that fit, the one with the fewest cycles by the cycle model. Input "x" (s16
        [S, H] in ``layer.input``), outputs "y" and its rows' largest magnitudes, scalar "length".
        Metadata: "sequence", "hidden", "precision", "macs", "estimate", "operations".

    Raises
    ------
    InputError
        If an argument cannot be.
    CompileError
        With the reason and the sizes, where the layer does not fit.
    """
    instance("layer", layer, QLayer)
    instance("config", config, Config)
    integer("effort", effort, 1)
    return plan_layer(layer, config, sequence, effort=effort).executable(layer.precision)


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


def plan_layer(layer: QLayer, config: Config, sequence: int, *, effort: int = EFFORT) -> Candidate:
    """Find the plan with the fewest estimated cycles; as `compile_layer`."""
    check_layer(layer, config, sequence)
    shape = layer_shape(layer, config, sequence)
    heads = head_products(layer, shape.geometry)
    products = tail_products(layer, shape.geometry)
    search = _Search(layer, config, heads, products, effort)
    for choices in options(config, shape):
        search.run(choices)
    best = search.best()
    if best is None:
        raise CompileError(
            f"{config.title}: a scratchpad of {config.sp_words} words of {config.word_bytes} bytes "
            f"(with {config.scale_rows} scale and {config.stat_rows} statistics rows) is too small "
            f"for sequence {sequence}, hidden {layer.hidden}, {layer.heads} heads of "
            f"{layer.head_dim}, ffn {layer.ffn}"
        )
    return best


def _score(cycles: int, compiled: Candidate) -> float:
    return cycles + _COMMAND_CYCLES * len(compiled.program)


class _Search:
    """Compares plans by the cycles of their programs."""

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
        self.modelled: bool | None = None
        self.found: list[tuple[float, Candidate]] = []

    def attempt(self, plan: Plan) -> float:
        """Compile a plan and keep it if it is among the best so far; return its score."""
        compiled = _compile(self.layer, self.config, plan, self.heads, self.products)
        self.commands += len(compiled.program)
        if self.modelled is None:
            self.modelled = self.effort > 1 and compiled.passes <= _MODELLED_PASSES
        score = _score(compiled.estimate.cycles if self.modelled else compiled.rough, compiled)
        self.found.append((score, compiled))
        self.found.sort(key=lambda item: item[0])
        del self.found[_FINALISTS:]
        return score

    def best(self) -> Candidate | None:
        """The one with the fewest cycles; None where nothing fits."""
        finalists = [compiled for _, compiled in self.found]
        if self.modelled or self.effort == 1 or not finalists:
            return finalists[0] if finalists else None
        return min(finalists, key=lambda one: _score(one.estimate.cycles, one))

    def run(self, choices: Options) -> None:
        """Vary what follows attention, then attention, the other part at its best."""
        if self.found and (self.effort == 1 or choices.cost > 1.1 * self.best_cost):
            return
        self.best_cost = min(self.best_cost, choices.cost) if self.found else choices.cost
        if self.commands > _COMMANDS_COMPARED:
            plan = choices.combine(0, 0)
            if plan is not None:
                self.attempt(plan)
            return
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
            if number < self.effort or not self.found:
                yield number
