"""Behind attention: output projection, LayerNorm, FFN, LayerNorm, in groups of row blocks.

While one block's LayerNorm is under way the array works on another's product. A group's blocks
share each load of weights; groups follow each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tilewright.hw.commands import Function, Opcode, Out, Post, Stat
from tilewright.sw.compiler.blocks.emitter import SCRATCH, Emitter, Rows, Weights
from tilewright.sw.compiler.blocks.gemm import multiply, pairs, requantize, share_of
from tilewright.sw.compiler.blocks.layernorm import layernorm
from tilewright.sw.compiler.pack import Chunk, Product
from tilewright.sw.compiler.plan import FFN, Plan
from tilewright.sw.compiler.plan import OUTPUT as OUTPUT_PHASE
from tilewright.sw.compiler.tile import RowBlock, chunk_panels, parts
from tilewright.sw.quantize.formats import EdgeFormat, QLayer
from tilewright.sw.rounding import ceil_div

OUTS = {EdgeFormat.S8: Out.S8, EdgeFormat.S16: Out.S16, EdgeFormat.SYM16: Out.SYM16}
"""Output format of each width at rest."""
_RESIDUAL_SHIFT = 8
_SLICES = 8
"""Transfers a matrix is cut into that arrives beside weights."""
_LAST_PARTS = 4
"""Passes the very last LayerNorm is cut into, so that storing begins early."""


@dataclass(frozen=True)
class TailProducts:
    """The products behind attention; the LayerNorms' have parameters only."""

    o: Product
    ln1: Product
    ffn1: Product
    ffn2: Product
    ln2: Product


@dataclass(frozen=True)
class _Block:
    """A row block of a group and where its matrices lie."""

    block: RowBlock
    x: Rows
    context: Rows
    gelu: Rows
    stat: int
    y: Rows


Load = Callable[[], None]


def _slices(panels: int) -> list[tuple[int, int]]:
    """Panels [a, b) of each transfer."""
    return chunk_panels(panels, ceil_div(panels, _SLICES))


class Tail:
    """Emits everything behind attention.

    Parameters
    ----------
    emitter : Emitter
    plan : Plan
    layer : QLayer
    products : TailProducts
    context, context_magnitudes : int
        Offsets in the scratch region, where the context is spilled.
    """

    def __init__(
        self,
        emitter: Emitter,
        plan: Plan,
        layer: QLayer,
        products: TailProducts,
        *,
        context: int,
        context_magnitudes: int,
    ) -> None:
        self.emitter = emitter
        self.plan = plan
        self.shape = emitter.shape
        self.layer = layer
        self.products = products
        self.context = context
        self.context_magnitudes = context_magnitudes
        self.groups = [self._group(index) for index in range(len(self.plan.tail))]

    def _group(self, index: int) -> list[_Block]:
        emitter, plan, shape = self.emitter, self.plan, self.shape
        rows = plan.tail_rows
        group = plan.tail[index]
        slot = index % plan.slots
        turn = index % 2
        out = []
        for block in group:
            local = block.first - group[0].first
            if plan.scales_resident:
                x_scale, c_scale = block.first, shape.sequence + block.first
                y_scale, g_scale = x_scale, c_scale
            else:
                c_scale = turn * rows + local
                x_scale = y_scale = (2 + turn) * rows + local
                g_scale = 4 * rows + local
            if plan.x_resident:
                x = (emitter.area("x") + block.first, shape.sequence)
            else:
                x = (emitter.area(f"x{slot}") + local, rows)
            if plan.context_resident:
                c = (emitter.area("context") + block.first, shape.sequence)
            else:
                c = (emitter.area(f"context{index % plan.context_slots}") + local, rows)
            stat = local + (turn * rows if len(plan.tail) > 1 else 0)
            out.append(
                _Block(
                    block=block,
                    x=Rows(*x, block.rows, x_scale),
                    context=Rows(*c, block.rows, c_scale),
                    gelu=Rows(emitter.area("gelu") + local, rows, block.rows, g_scale),
                    stat=stat,
                    y=Rows(*x, block.rows, y_scale),
                )
            )
        return out

    def _chunks(self, product: Product, phase: str, *, small_end: bool = False) -> list[Chunk]:
        """Panels of a product in chunks that fit an accumulator slot and leave the ring turning."""
        emitter, plan = self.emitter, self.plan
        block_rows = max(block.rows for group in plan.tail for block in group)
        tiles = emitter.geometry.panel_tiles * parts(product.mode)
        most = plan.acc.tail.size // (block_rows * tiles)
        ring = emitter.ring(phase).words
        shared = max(len(group) for group in plan.tail)
        one = product.chunk(0, 1).words
        most = min(most, ring // ((3 if shared == 1 else 6) * one))
        return [
            product.chunk(low, high)
            for low, high in chunk_panels(product.panels, max(1, most), small_end=small_end)
        ]

    def _context_loads(self, group: list[_Block]) -> list[Load]:
        """Bring the context of a group, where it is streamed."""
        return [
            partial(self._load_context, item, panels)
            for item in group
            if not self.plan.context_resident
            for panels in _slices(self.shape.context_panels)
        ]

    def _load_context(self, item: _Block, panels: tuple[int, int]) -> None:
        emitter, first = self.emitter, item.block.first
        emitter.begin("output")
        if not self.plan.scales_resident and panels[0] == 0:
            emitter.get_scales(
                emitter.area("context magnitudes0"),
                region=SCRATCH,
                offset=self.context_magnitudes + 2 * first,
                rows=item.block.rows,
                scale=item.context.scale,
            )
        emitter.move_rows(
            Opcode.LOAD,
            item.context,
            region=SCRATCH,
            offset=self.context,
            first=first,
            panels=panels,
        )

    def _x_loads(self, item: _Block) -> list[tuple[int, Load]]:
        """Bring x of a block, the first residual, where it is streamed: first panel, and load."""
        if self.plan.x_resident:
            return []
        return [
            (panels[0], partial(self._load_x, item, panels))
            for panels in _slices(self.shape.hidden_panels)
        ]

    def _load_x(self, item: _Block, panels: tuple[int, int]) -> None:
        self.emitter.begin("output")
        self.emitter.move_rows(
            Opcode.LOAD,
            item.x,
            region=self.emitter.x.region,
            offset=self.emitter.x.panels,
            first=item.block.first,
            panels=panels,
        )

    def _products(
        self, group: list[_Block], product: Product, phase: str, *, small_end: bool = False
    ) -> list[tuple[_Block, Chunk, bool]]:
        """(block, chunk, last of the block) in the order they run."""
        chunks = self._chunks(product, phase, small_end=small_end)
        share = share_of(self.emitter.ring(phase).words, chunks[0])
        if len(group) == 1:
            share = len(chunks)
        return [
            (group[block], chunks[number], number == len(chunks) - 1)
            for block, number in pairs(len(group), len(chunks), share)
        ]

    def _multiply(self, x: Rows, chunk: Chunk, phase: str) -> tuple[Weights, int]:
        weights = self.emitter.fetch(chunk, phase)
        acc = self.emitter.slot(self.plan.acc.tail)
        multiply(self.emitter, x, weights, acc)
        return weights, acc

    def _residual(
        self,
        x: Rows,
        item: _Block,
        chunk: Chunk,
        phase: str,
        shift: int,
        incoming: deque[tuple[int, Load]] | None = None,
    ) -> None:
        """A product with residual x, in place over it, with its moments.

        What is `incoming` of x is loaded behind the product's start, as far as its drain needs it.
        """
        weights, acc = self._multiply(x, chunk, phase)
        while incoming and incoming[0][0] < chunk.last:
            incoming.popleft()[1]()
        self.emitter.begin("output" if phase == OUTPUT_PHASE else "ffn2")
        requantize(
            self.emitter,
            x,
            weights,
            acc,
            in_addr=item.x.panel(chunk.first),
            in_stride=item.x.stride,
            out_addr=item.x.panel(chunk.first),
            out_stride=item.x.stride,
            stat=item.stat,
            shift1=shift,
            shift2=_RESIDUAL_SHIFT,
            post=Post.RESIDUAL,
            out=Out.S16,
            stat_op=Stat.MOMENTS,
            first=int(chunk.first == 0),
        )

    def output(self, group: list[_Block], *, with_x: bool = False) -> None:
        """Output projection, first residual, first LayerNorm.

        `with_x` brings x as well. No product waits for it, only drains do: as many weights as the
        ring and the queue hold go before it.
        """
        residual = self.layer.o.residual
        assert residual is not None
        works = self._products(group, self.products.o, OUTPUT_PHASE)
        incoming = {item: deque(self._x_loads(item) if with_x else ()) for item in group}
        if with_x and not self.plan.x_resident:
            self.emitter.begin("output")
            for _, chunk, _ in works[: self.emitter.config.queue_depth]:
                self.emitter.prefetch(chunk, OUTPUT_PHASE, works[0][1])
        for item, chunk, last in works:
            self.emitter.begin("output")
            self._residual(item.context, item, chunk, OUTPUT_PHASE, residual.shift, incoming[item])
            if last:
                self.emitter.begin("layernorm1")
                layernorm(
                    self.emitter,
                    item.x,
                    self.products.ln1,
                    self.layer.ln1,
                    stat=item.stat,
                    scale=item.x.scale,
                    phase=OUTPUT_PHASE,
                )

    def ffn1(self, group: list[_Block], incoming: Sequence[Load] = ()) -> None:
        """FFN up to its activation; `incoming` is spread over it, so that weights keep coming."""
        smooth = self.layer.ffn1.smooth
        assert smooth is not None
        function = Function[self.layer.act.upper()]
        works = self._products(group, self.products.ffn1, FFN, small_end=True)
        for number, (item, chunk, _) in enumerate(works):
            done, through = (n * len(incoming) // len(works) for n in (number, number + 1))
            for load in incoming[done:through]:
                load()
            self.emitter.begin("ffn1")
            weights, acc = self._multiply(item.x, chunk, FFN)
            requantize(
                self.emitter,
                item.x,
                weights,
                acc,
                out_addr=item.gelu.panel(chunk.first),
                out_stride=item.gelu.stride,
                scale_out=item.gelu.scale,
                shift2=smooth.shift,
                function=function,
                post=Post.SMOOTH,
                out=OUTS[self.layer.ffn1.act_out],
                magnitude=1,
                first=int(chunk.first == 0),
            )

    def ffn2(self, group: list[_Block], *, end: bool) -> None:
        """FFN behind its activation, second residual, second LayerNorm, and y to DRAM."""
        residual = self.layer.ffn2.residual
        assert residual is not None
        for item, chunk, last in self._products(group, self.products.ffn2, FFN, small_end=True):
            self.emitter.begin("ffn2")
            self._residual(item.gelu, item, chunk, FFN, residual.shift)
            if last:
                self._finish(item, final=end and item is group[-1])

    def _finish(self, item: _Block, *, final: bool) -> None:
        emitter, first = self.emitter, item.block.first
        emitter.begin("layernorm2")

        def store(panels: tuple[int, int]) -> None:
            y = emitter.y
            emitter.move_rows(
                Opcode.STORE, item.y, region=y.region, offset=y.panels, first=first, panels=panels
            )

        layernorm(
            emitter,
            item.x,
            self.products.ln2,
            self.layer.ln2,
            stat=item.stat,
            scale=item.y.scale,
            phase=FFN,
            parts=_LAST_PARTS if final else 1,
            after=store,
        )
        emitter.put_scales(
            emitter.area(f"y magnitudes{item.block.first // max(1, item.block.rows) % 2}"),
            region=emitter.y.region,
            offset=emitter.y.magnitudes + 2 * first,
            rows=item.block.rows,
            scale=item.y.scale,
        )

    def emit(self) -> None:
        """Emit all groups.

        Where x stays on chip all output projections come first. Otherwise, with room for x of two
        groups, the next one's comes between the two products of an FFN: its LayerNorm hides under
        the second, and what it reads arrives during the first.
        """
        count = len(self.groups)
        if self.plan.ahead:
            for group in self.groups:
                for load in self._context_loads(group):
                    load()
                self.output(group)
            for index, group in enumerate(self.groups):
                self.ffn1(group)
                self.ffn2(group, end=index == count - 1)
            return
        for load in self._context_loads(self.groups[0]):
            load()
        self.output(self.groups[0], with_x=True)
        for group, following in zip(self.groups, [*self.groups[1:], None], strict=True):
            if following is None:
                self.ffn1(group)
                self.ffn2(group, end=True)
            elif self.plan.slots > 1:
                # Behind the context, since the group before this one still stores from that x.
                loads = [load for item in following for _, load in self._x_loads(item)]
                self.ffn1(group, self._context_loads(following) + loads)
                self.output(following)
                self.ffn2(group, end=False)
            else:
                self.ffn1(group, self._context_loads(following))
                self.ffn2(group, end=False)
                self.output(following, with_x=True)
