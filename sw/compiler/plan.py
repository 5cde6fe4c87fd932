"""Plans: what stays on chip, the sizes of row blocks, and where every buffer lies.

Attention and what follows are planned apart and ranked by a rough cost; the caller compares the
programs of the best.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tilewright.hw.config import Config
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.place import Area, Placer
from tilewright.sw.compiler.tile import RowBlock, Shape, row_blocks
from tilewright.sw.quantize.precision import Mode
from tilewright.sw.rounding import ceil_div

ATTENTION, OUTPUT, FFN = "attention", "output", "ffn"
TAIL = (OUTPUT, FFN)
ALL = (ATTENTION, OUTPUT, FFN)

Tail = tuple[tuple[RowBlock, ...], ...]


@dataclass(frozen=True)
class Slots:
    """Equal parts of a memory that take turns: `count` parts of `size` words from `start` on."""

    start: int
    size: int
    count: int


@dataclass(frozen=True, kw_only=True)
class AccPlan:
    """How the accumulators are shared.

    Attributes
    ----------
    small : Slots
        Projections and P·V during attention.
    scores : Slots
        Blocks of scores.
    tail : Slots
        Everything behind attention.
    """

    small: Slots
    scores: Slots
    tail: Slots


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where buffers lie.

    Attributes
    ----------
    shape : Shape
    areas : dict of str to Area
    ring : dict of str to (start, words)
        The ring weights pass through, by phase.
    """

    shape: Shape
    areas: dict[str, Area]
    ring: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Plan(Placed):
    """One way to map a layer.

    Attributes
    ----------
    x_resident, context_resident : bool
        All rows stay in the scratchpad; otherwise they are streamed in row blocks from DRAM.
    scales_resident : bool
        The row table holds the magnitudes of all rows of x and context.
    projection, query : tuple of RowBlock
        Row blocks of the projections to q, k, v, and of query rows.
    sets : int
        Buffers of q, k, v that take turns.
    windows : int
        Blocks of x that are streamed ahead.
    tail : tuple of tuple of RowBlock
        Groups of row blocks behind attention; the blocks of a group share each load of weights.
    slots : int
        Groups of x on chip at a time, where it is streamed.
    """

    acc: AccPlan
    x_resident: bool
    context_resident: bool
    scales_resident: bool
    projection: tuple[RowBlock, ...]
    query: tuple[RowBlock, ...]
    sets: int
    windows: int
    tail: Tail
    slots: int

    @property
    def tail_rows(self) -> int:
        """Most rows of a group behind attention."""
        return max(sum(block.rows for block in group) for group in self.tail)

    @property
    def projection_rows(self) -> int:
        return max(block.rows for block in self.projection)

    @property
    def query_rows(self) -> int:
        return max(block.rows for block in self.query)

    @property
    def context_slots(self) -> int:
        """Groups of the context on chip at a time, where it is streamed.

        One does unless output projections follow each other: the next group's context arrives
        during an FFN, when this one's has been read.
        """
        return self.slots if self.ahead else 1

    @property
    def ahead(self) -> bool:
        """The output projection of all groups comes before the first FFN."""
        return self.x_resident


def _accumulators(config: Config, shape: Shape) -> tuple[AccPlan, int, int]:
    """Shares of the accumulators, and the most rows of projections and query blocks."""
    geometry = shape.geometry
    depth = config.acc_depth
    half = config.acc_words // 2
    tiles = shape.score_tiles * shape.score_parts
    panel = geometry.panel_tiles * shape.small_parts
    enough = min(shape.sequence, max(geometry.pass_rows, config.columns))
    even = shape.sequence > 1
    least = 2 if even else 1
    size = depth if config.acc_banks >= 4 else depth // 2
    # Scores: two parts where a block still fills the array, else one; then more than a half.
    options = [(half, half // 2, 2), (half, half, 1)]
    options += [(start, config.acc_words - start, 1) for start in (half // 2, half // 4)]
    for rank, (start, words, count) in enumerate(options):
        rows = min(words // tiles, shape.sequence)
        rows -= rows % 2 if rows < shape.sequence else 0
        if rows >= (enough if rank == 0 else least):
            small = Slots(0, min(size, start), max(1, start // size))
            if small.size // panel < least:
                continue
            tail = Slots(0, size, config.acc_words // size)
            return (
                AccPlan(small=small, scores=Slots(start, words, count), tail=tail),
                (small.size // panel),
                rows,
            )
    # The rest stays for the products before and behind them.
    room = [words for start, words, _ in options if min(size, start) // panel >= least]
    raise CompileError(
        f"sequence {shape.sequence}: {least} rows of scores take {least * tiles} accumulator "
        f"words, and products beside them {least * panel}; {config.title} has {config.acc_words}, "
        f"of which scores get {max(room, default=0)} at most"
    )


def _even(rows: int, sequence: int) -> int:
    return rows if rows >= sequence else rows - rows % 2


def _sizes(most: int, sequence: int, enough: int) -> list[int]:
    """Sizes of row blocks that are worth a look, largest first: all rows over 1, 2, 3 … blocks."""
    most = _even(min(most, sequence), sequence)
    out: list[int] = []
    for count in range(1, ceil_div(sequence, 2) + 1):
        rows = min(most, 2 * ceil_div(ceil_div(sequence, count), 2), sequence)
        # Below a full pass every row more counts; above, powers of two of blocks do.
        if rows not in out and (rows <= 2 * enough or count <= 8 or not count & (count - 1)):
            out.append(rows)
    return out


def _tails(shape: Shape, most: int) -> Iterator[Tail]:
    """Groups of row blocks behind attention."""
    seen: set[Tail] = set()
    enough = shape.geometry.pass_rows
    for rows in _sizes(most, shape.sequence, enough):
        blocks = row_blocks(shape.sequence, rows)
        candidates = [blocks]
        first, last = blocks[-1].first, blocks[-1].rows
        # The last block's LayerNorm is exposed: a smaller one is done sooner.
        if len(blocks) > 1 and last >= 2 * enough:
            half = 2 * ceil_div(ceil_div(last, 2), 2)
            split = [RowBlock(first, half), RowBlock(first + half, last - half)]
            candidates.append([*blocks[:-1], *split])
        for cut in candidates:
            for share in (2, 1) if len(cut) > 1 else (1,):
                groups = tuple(tuple(cut[at : at + share]) for at in range(0, len(cut), share))
                if groups not in seen:
                    seen.add(groups)
                    yield groups


def _wanted(plan: Plan) -> Iterator[tuple[str, int, tuple[str, ...], tuple[str, ...]]]:
    """Buffers of a plan: name, words, phases, buffers whose banks to avoid."""
    shape = plan.shape
    width = shape.geometry.panel
    rows = plan.tail_rows
    x = ("x", "x0", "x1", "window0", "window1")
    if plan.x_resident:
        yield "x", shape.hidden_panels * shape.sequence, ALL, ()
    else:
        for slot in range(plan.windows):
            words = shape.hidden_panels * plan.projection_rows
            yield f"window{slot}", words, (ATTENTION,), ()
        for slot in range(plan.slots):
            yield f"x{slot}", shape.hidden_panels * rows, TAIL, ()
    yield "gelu", shape.ffn_panels * rows, (FFN,) if plan.ahead else TAIL, x
    if plan.context_resident:
        yield "context", shape.context_panels * shape.sequence, (ATTENTION, OUTPUT), x
    else:
        for slot in range(plan.context_slots):
            phases = (OUTPUT,) if plan.ahead else TAIL
            yield f"context{slot}", shape.context_panels * rows, phases, x
        for slot in range(2):
            yield f"spill{slot}", shape.head_panels * plan.query_rows, (ATTENTION,), ()
    keys = shape.head_words
    stationary = []
    for index in range(plan.sets):
        for name in ("k", "v"):
            stationary.append(f"{name}{index}")
            yield stationary[-1], keys, (ATTENTION,), x
    for index in range(plan.sets):
        yield f"q{index}", keys, (ATTENTION,), tuple(stationary)
    for index in range(plan.acc.scores.count):
        words = shape.key_panels * ceil_div(plan.query_rows, 2)
        yield f"p{index}", words, (ATTENTION,), tuple(stationary)
    yield "x magnitudes", ceil_div(shape.sequence, width), (ATTENTION,), ()
    for index in range(2):
        yield f"y magnitudes{index}", ceil_div(rows, width), TAIL, ()
        if not plan.scales_resident:
            words = ceil_div(max(rows, plan.query_rows), width)
            yield f"context magnitudes{index}", words, ALL, ()


def _trim(ring: tuple[int, int], bank_words: int) -> tuple[int, int]:
    """Start a ring at a bank where that costs little: the feeder must not shut out the loader."""
    start, words = ring
    aligned = ceil_div(start, bank_words) * bank_words - start
    return (start + aligned, words - aligned) if aligned <= words // 5 else ring


def _place(plan: Plan, config: Config, phases: tuple[str, ...] = ALL) -> Plan | None:
    """Place a plan's buffers of some phases; None where they do not fit."""
    placer = Placer(config.sp_words, config.sp_depth)
    for name, words, when, avoid in _wanted(plan):
        if set(when) & set(phases) and placer.place(name, words, when, avoid) is None:
            return None
    head = _trim(placer.largest_gap((ATTENTION,)), config.sp_depth)
    tail = _trim(placer.largest_gap(TAIL), config.sp_depth)
    placed = replace(plan, areas=placer.areas, ring={ATTENTION: head, OUTPUT: tail, FFN: tail})
    for phase in phases:
        if _buffers(placed, phase) < 1:
            return None
    return placed


def _buffers(plan: Plan, phase: str) -> float:
    """How many of the largest single-panel chunks of a phase its ring holds."""
    shape, precision = plan.shape, plan.shape.precision
    chunks: dict[str, tuple[tuple[int, Mode], ...]] = {
        ATTENTION: ((shape.hidden, precision.qkv),),
        OUTPUT: ((shape.context_columns, precision.o),),
        FFN: ((shape.hidden, precision.ffn1), (shape.ffn, precision.ffn2)),
    }
    return plan.ring[phase][1] / max(
        shape.geometry.blob_words(k, 1, mode) for k, mode in chunks[phase]
    )


def _shallow(buffers: float) -> float:
    """Share of the loading that a ring of few chunks cannot hide."""
    return 1.0 if buffers < 2 else max(0.0, 0.1 * (4 - buffers))


def _attention_cost(plan: Plan, config: Config) -> float:
    """Cycles of attention, roughly: what the array takes, or what the bus does."""
    shape, geometry = plan.shape, plan.shape.geometry
    tiles = shape.head_panels * geometry.panel_tiles
    least = geometry.pass_rows
    width = shape.attention_bytes
    project = 3 * geometry.k_tiles(shape.hidden) * tiles * shape.precision.qkv.passes
    scores = geometry.k_tiles(shape.head_dim) * shape.score_tiles * width * width
    context = geometry.k_tiles(shape.sequence) * tiles * width
    projected = project * sum(max(block.rows, least) for block in plan.projection)
    attended = sum(
        scores * max(block.rows, least, config.columns) + context * max(block.rows, least)
        for block in plan.query
    )
    words = 3 * geometry.blob_words(shape.hidden, shape.head_panels, shape.precision.qkv)
    ring = plan.ring[ATTENTION][1]
    again = 1 if plan.x_resident or ring >= 2 * words else len(plan.projection)
    weights = again * words * config.word_bytes
    traffic = 0
    if not plan.x_resident:
        traffic += shape.hidden_panels * shape.sequence * config.word_bytes
    bus = (weights + traffic) / config.axi_bytes
    exposed = _shallow(_buffers(plan, ATTENTION)) * weights / config.axi_bytes
    if plan.windows == 1 and not plan.x_resident:
        exposed += traffic / config.axi_bytes
    softmax = sum(
        (2 if shape.score_parts > 1 else 1)
        * shape.key_panels
        * geometry.panel
        // config.lanes
        * max(block.rows * shape.score_parts, 8)
        + 20 * block.rows // config.row_engines
        for block in plan.query
    )
    # Without a second set of buffers, or of scores, the softmax has little to hide under.
    if plan.sets == 1 and plan.acc.scores.count == 1:
        exposed += softmax
    elif plan.sets == 1:
        exposed += max(0, softmax - attended) + softmax / len(plan.query)
    elif len(plan.query) > 1 and plan.acc.scores.count == 1:
        exposed += max(0, softmax - projected)
    return shape.heads * (max(projected + attended, bus) + exposed)


def _tail_cost(plan: Plan, config: Config) -> float:
    """Cycles behind attention, roughly."""
    shape, geometry = plan.shape, plan.shape.geometry
    least = geometry.pass_rows
    hidden = shape.hidden_panels * geometry.panel_tiles
    products = (
        (geometry.k_tiles(shape.context_columns) * hidden, shape.precision.o),
        (
            geometry.k_tiles(shape.hidden) * shape.ffn_panels * geometry.panel_tiles,
            shape.precision.ffn1,
        ),
        (geometry.k_tiles(shape.ffn) * hidden, shape.precision.ffn2),
    )
    tiles = sum(count * mode.passes for count, mode in products)
    blocks = [block for group in plan.tail for block in group]
    array = tiles * sum(max(block.rows, least) for block in blocks)
    stored = sum(count * mode.weight_bits / 8 for count, mode in products)
    weights = len(plan.tail) * stored * config.rows * config.columns / config.axi_bytes
    traffic = 0
    if not plan.context_resident:
        traffic += shape.context_panels * shape.sequence * config.word_bytes
    if not plan.x_resident:
        traffic += shape.hidden_panels * shape.sequence * config.word_bytes
    bus = weights + traffic / config.axi_bytes
    exposed = _shallow(_buffers(plan, FFN)) * weights

    def norm(rows: int) -> float:
        return rows * (
            60 / config.row_engines + shape.hidden_panels * geometry.panel / config.lanes
        )

    exposed += norm(blocks[-1].rows)
    if len(blocks) == 1:
        exposed += norm(blocks[0].rows)
    elif not plan.ahead and plan.slots == 1:
        if max(len(group) for group in plan.tail) == 1:
            exposed += sum(norm(block.rows) for block in blocks)
        exposed += traffic / config.axi_bytes
    return max(array, bus) + exposed


@dataclass(frozen=True)
class Options:
    """Ways to map a layer, attention and what follows apart, each the cheapest first.

    Attributes
    ----------
    attention, tail : list of (cost, Plan)
        Only the part of each plan that the name says is meant.
    """

    config: Config
    attention: list[tuple[float, Plan]]
    tail: list[tuple[float, Plan]]

    @property
    def cost(self) -> float:
        """Of the cheapest of both."""
        return self.attention[0][0] + self.tail[0][0]

    def combine(self, attention: int, tail: int) -> Plan | None:
        """The plan of one choice of each; None where there is none, or it does not fit."""
        if attention >= len(self.attention) or tail >= len(self.tail):
            return None
        behind = self.tail[tail][1]
        plan = replace(self.attention[attention][1], tail=behind.tail, slots=behind.slots)
        return _place(plan, self.config)


def options(config: Config, shape: Shape) -> list[Options]:
    """All ways that fit, by what stays on chip, the cheapest first.

    Raises
    ------
    CompileError
        If not even scores fit the accumulators.
    """
    out = []
    for x_resident, context_resident in ((True, True), (True, False), (False, False)):
        found = _options(config, shape, x_resident, context_resident)
        if found.attention and found.tail:
            out.append(found)
    return sorted(out, key=lambda option: option.cost)


def _options(config: Config, shape: Shape, x_resident: bool, context_resident: bool) -> Options:
    geometry, sequence = shape.geometry, shape.sequence
    acc, projection_most, query_most = _accumulators(config, shape)
    enough = geometry.pass_rows
    scales = 2 * sequence <= config.scale_rows
    found = Options(config, [], [])
    if not scales and x_resident:
        return found
    some = RowBlock(0, min(2, sequence))
    base = Plan(
        shape=shape,
        acc=acc,
        x_resident=x_resident,
        context_resident=context_resident,
        scales_resident=scales,
        projection=(some,),
        query=(some,),
        sets=1,
        windows=1,
        tail=((some,),),
        slots=1,
        areas={},
        ring={},
    )
    projections = _sizes(projection_most, sequence, enough)
    queries = _sizes(query_most, sequence, max(enough, config.columns))
    for windows in (1,) if x_resident else (2, 1):
        for projection in projections[:1] if x_resident else projections:
            for query in queries:
                if acc.scores.count * query > config.stat_rows:
                    continue
                if not scales and windows * projection + 2 * query > config.scale_rows:
                    continue
                for sets in (2, 1):
                    plan = _place(
                        replace(
                            base,
                            projection=tuple(row_blocks(sequence, projection)),
                            query=tuple(row_blocks(sequence, query)),
                            sets=sets,
                            windows=windows,
                        ),
                        config,
                        (ATTENTION,),
                    )
                    if plan is not None:
                        found.attention.append((_attention_cost(plan, config), plan))
                        break
    tail_most = acc.tail.size // (geometry.panel_tiles * shape.tail_parts)
    # Two rows share a word of bytes.
    for tail in _tails(shape, tail_most) if tail_most >= min(2, sequence) else ():
        plan = replace(base, tail=tail)
        rows = plan.tail_rows
        # Two groups are under way at a time.
        if rows * min(2, len(tail)) > config.stat_rows:
            continue
        if not scales and 5 * rows > config.scale_rows:
            continue
        most = 1 if x_resident and context_resident else min(2, len(tail))
        for slots in range(most, 0, -1):
            placed = _place(replace(plan, slots=slots), config, TAIL)
            if placed is not None:
                found.tail.append((_tail_cost(placed, config), placed))
    for choices in (found.attention, found.tail):
        choices.sort(key=lambda choice: choice[0])
    return found
