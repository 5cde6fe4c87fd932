"""Multi-head attention, head by head: projections, scores, softmax, context.

Work is emitted as two streams that are merged: scores, softmax and context of head h, and the
projections of head h + 1, which keep the array busy while a softmax is under way. Which comes
next is decided by the estimated time at which its operands are ready.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tilewright.hw.commands import Function, Mul, Opcode, Out, Pre, RowOp, Stat, XMode
from tilewright.hw.encoding import Scalar, Value
from tilewright.sw.compiler.blocks.emitter import SCRATCH, WEIGHTS, Emitter, Rows, Weights
from tilewright.sw.compiler.blocks.gemm import BYTES, byte_products, multiply, regions, requantize
from tilewright.sw.compiler.pack import Chunk, Product
from tilewright.sw.compiler.plan import ATTENTION, Plan
from tilewright.sw.compiler.schedule import Issued
from tilewright.sw.compiler.tile import RowBlock, chunk_panels, parts, row_blocks
from tilewright.sw.quantize.formats import QSoftmax
from tilewright.sw.rounding import ceil_div

PARTS = ("k", "q", "v")
"""Order of the projections in a head's weights."""
_CONTEXT_SHIFT = {8: 8, 16: 15}
"""Behind n, by the bits of v: Q7 of v's unit, and Q0."""


@dataclass
class _Work:
    """A step of a stream.

    Attributes
    ----------
    run : callable
        Emits it.
    ready : callable
        Estimated cycle in which its operands are there.
    needs : set of (head, part)
        Projections that must have been emitted before.
    gives : (head, part) or None
        The projection this step belongs to.
    block, chunk : RowBlock and Chunk, or None
        What a projection reads.
    last : bool
        It belongs to the head's last query block: held back to cover the start of the next head.
    """

    run: Callable[[], None]
    ready: Callable[[], int] = lambda: 0
    needs: set[tuple[int, str]] = field(default_factory=set)
    gives: tuple[int, str] | None = None
    block: RowBlock | None = None
    chunk: Chunk | None = None
    last: bool = False

    @property
    def head(self) -> int:
        """The head a projection belongs to."""
        return -1 if self.gives is None else self.gives[0]


class Attention:
    """Emits attention of a layer.

    Parameters
    ----------
    emitter : Emitter
    plan : Plan
    heads : list of Product
        q, k and v of each head side by side, in the order of `PARTS`, each padded to panels.
    softmax : QSoftmax
    context_out : Out
        Format of the context.
    context : int
        Offset of the context in the scratch region, where it is spilled.
    context_magnitudes : int
        Offset of its magnitudes there.
    """

    def __init__(
        self,
        emitter: Emitter,
        plan: Plan,
        heads: list[Product],
        softmax: QSoftmax,
        *,
        context_out: Out,
        context: int,
        context_magnitudes: int,
    ) -> None:
        self.emitter = emitter
        self.plan = plan
        self.shape = emitter.shape
        self.heads = heads
        self.softmax = softmax
        self.context_out = context_out
        self.wide = emitter.shape.precision.attention == 16
        self.context = context
        self.context_magnitudes = context_magnitudes
        self.drained: dict[tuple[int, str], int] = {}
        self.windows: dict[int, tuple[int, RowBlock]] = {}
        self.window_turn = 0
        self.spill_turn = 0

    # Input.

    def _get_x_scales(self, block: RowBlock, scale: int) -> None:
        self.emitter.get_scales(
            self.emitter.area("x magnitudes"),
            region=self.emitter.x.region,
            offset=self.emitter.x.magnitudes + 2 * block.first,
            rows=block.rows,
            scale=scale,
        )

    def _x(self, block: RowBlock, *, load: bool = True) -> Rows:
        """Rows of x, loaded where they are streamed."""
        emitter, plan, shape = self.emitter, self.plan, self.shape
        if plan.x_resident:
            return Rows(emitter.area("x") + block.first, shape.sequence, block.rows, block.first)
        for slot, (scale, held) in self.windows.items():
            if held == block:
                return Rows(emitter.area(f"window{slot}"), plan.projection_rows, block.rows, scale)
        slot = self.window_turn % plan.windows
        self.window_turn += 1
        scale = block.first if plan.scales_resident else slot * plan.projection_rows
        self.windows[slot] = (scale, block)
        if not plan.scales_resident:
            self._get_x_scales(block, scale)
        rows = Rows(emitter.area(f"window{slot}"), plan.projection_rows, block.rows, scale)
        if load:
            self._load_x(rows, block, (0, shape.hidden_panels))
        return rows

    def _load_x(self, rows: Rows, block: RowBlock, panels: tuple[int, int]) -> None:
        x = self.emitter.x
        self.emitter.move_rows(
            Opcode.LOAD, rows, region=x.region, offset=x.panels, first=block.first, panels=panels
        )

    # Projections.

    def _drain(self, head: int, x: Rows, block: RowBlock, weights: Weights, acc: int) -> None:
        """Requantize the accumulators of a chunk into q, k, v."""
        shape = self.shape
        first, last = weights.chunk.first, weights.chunk.last
        for index, part in enumerate(PARTS):
            low = max(first, index * shape.head_panels)
            high = min(last, (index + 1) * shape.head_panels)
            if low >= high:
                continue
            panel = low - index * shape.head_panels
            width = shape.geometry.panel
            area = self.emitter.area(f"{part}{head % self.plan.sets}")
            for out, plane in self._formats(part):
                words = 2 * shape.key_words if out == Out.SYM16 else shape.key_words
                row = block.first if out == Out.SYM16 else block.first // 2
                issued = requantize(
                    self.emitter,
                    x,
                    weights,
                    acc,
                    panels=(low - first, high - first),
                    valid=min(shape.head_dim - panel * width, (high - low) * width),
                    out_addr=area + self._plane(plane) + panel * words + row,
                    out_stride=words,
                    out=out,
                )
                key = (head, part)
                self.drained[key] = max(self.drained.get(key, 0), issued.done)

    def _formats(self, part: str) -> tuple[tuple[Out, int], ...]:
        """Outputs that make q, k or v, each with its plane: 16-bit k and v are stored as bytes."""
        if not self.wide:
            return ((Out.S8, 0),)
        return ((Out.SYM16, 0),) if part == "q" else ((Out.HIGH, 0), (Out.LOW, 1))

    def _plane(self, plane: int) -> int:
        """Words before a plane of bytes of a head's k or v."""
        return plane * self.shape.head_panels * self.shape.key_words

    def _project(self, head: int, block: RowBlock, chunk: Chunk) -> None:
        emitter = self.emitter
        emitter.begin(f"head {head} / qkv")
        x = self._x(block)
        weights = emitter.fetch(chunk, ATTENTION)
        acc = emitter.slot(self.plan.acc.small)
        multiply(emitter, x, weights, acc)
        self._drain(head, x, block, weights, acc)

    def projections(self, head: int) -> list[_Work]:
        """Steps that make q, k, v of a head: by part where x is resident, else by row block."""
        shape, plan = self.shape, self.plan
        geometry = shape.geometry
        rows = plan.projection_rows
        mode = shape.precision.qkv
        most = max(1, plan.acc.small.size // (rows * geometry.panel_tiles * parts(mode)))
        ring = self.emitter.ring(ATTENTION).words
        most = min(most, max(1, ring // 3 // geometry.blob_words(shape.hidden, 1, mode)))
        steps = []
        for index, part in enumerate(PARTS):
            for low, high in chunk_panels(shape.head_panels, most):
                offset = index * shape.head_panels
                for block in plan.projection:
                    steps.append((block, part, low + offset, high + offset))
        if not plan.x_resident:
            steps.sort(key=lambda step: step[0].first)
        works = []
        for block, part, low, high in steps:
            chunk = self.heads[head].chunk(low, high)
            works.append(
                _Work(
                    run=partial(self._project, head, block, chunk),
                    gives=(head, part),
                    block=block,
                    chunk=chunk,
                )
            )
        return works

    def _run(self, pending: deque[_Work]) -> None:
        """Emit the next projection, and the loads of the one behind it."""
        work = pending.popleft()
        work.run()
        if not pending:
            return
        behind = pending[0]
        self.emitter.begin(f"head {behind.head} / qkv")
        if behind.chunk is not None and behind.chunk != work.chunk:
            kept = work.chunk if behind.block == work.block else None
            self.emitter.prefetch(behind.chunk, ATTENTION, kept)
        if not self.plan.x_resident and self.plan.windows > 1:
            # Its window is free: the block before this one has no work left.
            following = next((item.block for item in pending if item.block != work.block), None)
            if following is not None:
                self._x(following)

    # The first head: x arrives while it is used.

    def start(self) -> bool:
        """Emit head 0's projections K outer while x arrives, where that is possible."""
        emitter, plan, shape = self.emitter, self.plan, self.shape
        geometry = shape.geometry
        emitter.begin("head 0 / qkv")
        if plan.scales_resident:
            self._get_x_scales(RowBlock(0, shape.sequence), 0)
        product = self.heads[0]
        chunk = product.chunk(0, product.panels)
        tiles = product.panels * geometry.panel_tiles * parts(product.mode)
        half = emitter.config.acc_words // 2
        if plan.x_resident:
            most = min(half // tiles, shape.sequence)
            enough = min(geometry.pass_rows, shape.sequence)
            blocks = row_blocks(shape.sequence, most) if most >= max(enough, 2) else []
            if most == shape.sequence:
                blocks = [RowBlock(0, shape.sequence)]
        else:
            fits = plan.projection_rows * tiles <= emitter.config.acc_words
            blocks = list(plan.projection) if fits else []
        ring = emitter.ring(ATTENTION)
        # Group scales are not cut along K.
        if not blocks or chunk.words > ring.words // 2 or product.scales is not None:
            if plan.x_resident:
                whole = RowBlock(0, shape.sequence)
                self._load_x(self._x(whole), whole, (0, shape.hidden_panels))
            return False
        weights = Weights(chunk, ring.take(chunk))
        words = max(block.rows for block in blocks) * tiles
        for index, block in enumerate(blocks):
            x = self._x(block, load=False)
            # The upper half comes first: scores need it last.
            acc = half if index % 2 == 0 and words <= half else 0
            self._k_outer(x, block, weights, acc, first=index == 0)
            self._drain(0, x, block, weights, acc)
        return True

    def _k_outer(
        self, x: Rows, block: RowBlock, weights: Weights, acc: int, *, first: bool
    ) -> None:
        """Load slices of x (and weights) along K and multiply each as it comes."""
        emitter, shape = self.emitter, self.shape
        geometry = shape.geometry
        config = emitter.config
        chunk = weights.chunk
        tiles = geometry.k_tiles(shape.hidden)
        per_panel = geometry.panel // config.rows
        offset = emitter.image.offset(chunk)
        word = config.word_bytes
        done, size = 0, 1
        while done < shape.hidden_panels:
            size = min(size, shape.hidden_panels - done)
            low, high = done * per_panel, min((done + size) * per_panel, tiles)
            if first:
                words = config.rows // 2
                stride = chunk.product.plane_words
                # Planes follow each other as panels do.
                emitter.transfer(
                    Opcode.LOAD,
                    sp=weights.address + low * words,
                    region=WEIGHTS,
                    offset=offset + low * words * word,
                    length=(high - low) * words * word,
                    runs=chunk.panels * chunk.product.planes,
                    run_stride=stride * word,
                    sp_run=stride,
                )
            self._load_x(x, block, (done, done + size))
            multiply(emitter, x, weights, acc, tiles=(low, high))
            if first and done == 0:
                emitter.transfer(
                    Opcode.LOAD,
                    sp=weights.parameters(),
                    region=WEIGHTS,
                    offset=offset + chunk.parameter_offset * word,
                    length=(chunk.words - chunk.parameter_offset) * word,
                )
            done += size
            size = min(2 * size, 4)

    # Scores, softmax, context.

    def _scores(self, head: int, block: RowBlock) -> tuple[int, Issued]:
        """Emit scores and softmax; return the slot and the command that makes probabilities."""
        emitter, plan, shape = self.emitter, self.plan, self.shape
        geometry = shape.geometry
        number = emitter.turn(plan.acc.scores)
        acc = plan.acc.scores.start + number * plan.acc.scores.size
        which = head % plan.sets
        step = shape.attention_bytes
        region = shape.score_tiles * block.rows
        modes = BYTES if self.wide else (XMode.S8,)
        stat = number * plan.query_rows
        valid = Scalar(emitter.length)
        # Sums of several parts are whole only where the vector unit reads them together.
        maximum: dict[str, Value] = (
            {} if self.wide else {"row_max": 1, "valid": valid, "stat": stat}
        )
        emitter.begin(f"head {head} / scores")
        for mode, plane, number_of, adds in byte_products(modes, step):
            emitter.emit(
                Opcode.MATMUL,
                m=block.rows,
                kt=geometry.k_tiles(shape.head_dim),
                nt=shape.score_tiles,
                x_addr=emitter.area(f"q{which}") + block.first * step // 2,
                x_stride=shape.key_words * step,
                w_addr=emitter.area(f"k{which}") + self._plane(plane),
                w_stride=shape.key_words,
                acc_addr=acc + number_of * region,
                acc_stride=block.rows,
                mode=mode,
                accumulate=int(adds),
                transposed=1,
                **maximum,
            )
        emitter.begin(f"head {head} / softmax")
        common: dict[str, Value] = {
            "m": block.rows,
            "panels": shape.key_panels,
            "valid": valid,
            **regions(acc, shape.score_parts, region),
            "acc_stride": block.rows,
            "stat": stat,
            "first": 1,
        }
        if self.wide:
            emitter.emit(Opcode.VECTOR, **common, stat_op=Stat.MAX, out=Out.NONE)
        exponentials = emitter.emit(
            Opcode.VECTOR,
            **common,
            out_addr=emitter.area(f"p{number}"),
            out_stride=ceil_div(block.rows, 2),
            imm=self.softmax.mult,
            shift=self.softmax.shift,
            pre=Pre.MAX_MINUS if self.wide else Pre.TOP_MINUS,
            mul=Mul.IMMEDIATE,
            function=Function.EXP2,
            out=Out.U8,
            stat_op=Stat.SUM,
        )
        emitter.emit(Opcode.ROW, op=RowOp.DIVIDE, m=block.rows, stat=stat)
        return number, exponentials

    def _context_rows(self, head: int, block: RowBlock) -> Rows:
        emitter, plan, shape = self.emitter, self.plan, self.shape
        scale = shape.sequence + block.first
        if plan.context_resident:
            panel = emitter.area("context") + head * shape.head_panels * shape.sequence
            return Rows(panel + block.first, shape.sequence, block.rows, scale)
        slot = self.spill_turn % 2
        self.spill_turn += 1
        if not plan.scales_resident:
            scale = plan.windows * plan.projection_rows + slot * plan.query_rows
            if head:
                emitter.get_scales(
                    emitter.area(f"context magnitudes{slot}"),
                    region=SCRATCH,
                    offset=self.context_magnitudes + 2 * block.first,
                    rows=block.rows,
                    scale=scale,
                )
        return Rows(emitter.area(f"spill{slot}"), plan.query_rows, block.rows, scale)

    def _context(self, head: int, block: RowBlock, number: int) -> None:
        emitter, plan, shape = self.emitter, self.plan, self.shape
        geometry = shape.geometry
        emitter.begin(f"head {head} / context")
        out = self._context_rows(head, block)
        rows = block.rows
        planes = shape.attention_bytes
        most = max(1, plan.acc.small.size // (rows * geometry.panel_tiles * planes))
        for low, high in chunk_panels(shape.head_panels, most):
            acc = emitter.slot(plan.acc.small)
            region = (high - low) * geometry.panel_tiles * rows
            for plane in range(planes):
                emitter.emit(
                    Opcode.MATMUL,
                    m=rows,
                    kt=geometry.k_tiles(shape.sequence),
                    nt=(high - low) * geometry.panel_tiles,
                    x_addr=emitter.area(f"p{number}"),
                    x_stride=ceil_div(rows, 2),
                    w_addr=emitter.area(f"v{head % plan.sets}")
                    + self._plane(plane)
                    + low * shape.key_words,
                    w_stride=shape.key_words,
                    acc_addr=acc + plane * region,
                    acc_stride=rows,
                    mode=XMode.U8,
                )
            emitter.emit(
                Opcode.VECTOR,
                m=rows,
                panels=high - low,
                valid=min(shape.head_dim - low * geometry.panel, (high - low) * geometry.panel),
                **regions(acc, planes, region),
                acc_stride=rows,
                out_addr=out.panel(low),
                out_stride=out.stride,
                scale_out=out.scale,
                stat=number * plan.query_rows,
                shift=_CONTEXT_SHIFT[shape.precision.attention],
                mul=Mul.ROW,
                out=self.context_out,
                magnitude=1,
                first=int(head == 0 and low == 0),
            )
        if plan.context_resident:
            return
        emitter.move_rows(
            Opcode.STORE,
            out,
            region=SCRATCH,
            offset=self.context
            + head * shape.head_panels * shape.sequence * emitter.config.word_bytes,
            first=block.first,
            panels=(0, shape.head_panels),
        )
        if not plan.scales_resident:
            slot = (self.spill_turn - 1) % 2
            emitter.put_scales(
                emitter.area(f"context magnitudes{slot}"),
                region=SCRATCH,
                offset=self.context_magnitudes + 2 * block.first,
                rows=rows,
                scale=out.scale,
            )

    def attend(self, head: int) -> list[_Work]:
        """Steps of scores and context of a head.

        Scores run ahead by as many blocks as there are accumulator slots for them.
        """
        plan = self.plan
        blocks = plan.query
        count = plan.acc.scores.count
        softmax: dict[int, Issued] = {}
        used: dict[int, int] = {}

        def scores(index: int) -> _Work:
            def run() -> None:
                used[index], softmax[index] = self._scores(head, blocks[index])

            def ready() -> int:
                operands = max(self.drained.get((head, part), 0) for part in ("q", "k"))
                before = softmax.get(index - count)
                return max(operands, before.done if before else 0)

            return _Work(run, ready, needs={(head, "q"), (head, "k")})

        def context(index: int) -> _Work:
            return _Work(
                lambda: self._context(head, blocks[index], used[index]),
                lambda: max(softmax[index].done, self.drained.get((head, "v"), 0)),
                needs={(head, "v")},
                last=index == len(blocks) - 1,
            )

        out = [scores(index) for index in range(min(count, len(blocks)))]
        for index in range(len(blocks)):
            out.append(context(index))
            if index + count < len(blocks):
                out.append(scores(index + count))
        return out

    def emit(self) -> None:
        """Emit attention of all heads."""
        heads = range(len(self.heads))
        begun = self.start()
        pending = deque(
            work for head in heads if head or not begun for work in self.projections(head)
        )
        left = Counter(work.gives for work in pending)
        for head in heads:
            # Later heads overwrite buffers that this one still needs.
            most = head + self.plan.sets - 1
            steps = deque(self.attend(head))
            while steps:
                step = steps[0]
                needs = set(step.needs)
                if step.last and most > head:
                    # Held back to cover the drain between the next head's q and its scores.
                    needs |= {(head + 1, "k"), (head + 1, "q")}
                stalls = step.ready() > self.emitter.schedule.matmul_free
                allowed = bool(pending) and pending[0].head <= most
                if any(left[need] for need in needs) or (stalls and allowed):
                    left[pending[0].gives] -= 1
                    self._run(pending)
                else:
                    steps.popleft().run()
