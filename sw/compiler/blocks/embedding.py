"""The embedding's LayerNorm: z of all rows from DRAM, normalized, back with its magnitudes."""

from __future__ import annotations

from tilewright.hw.commands import PARAMETER_ROWS, Opcode, Out, Source, Stat
from tilewright.hw.config import Config
from tilewright.sw.compiler.blocks.emitter import Emitter, Rows
from tilewright.sw.compiler.blocks.layernorm import layernorm
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.pack import Product
from tilewright.sw.compiler.place import Placer
from tilewright.sw.compiler.plan import Placed
from tilewright.sw.compiler.tile import RowBlock, Shape
from tilewright.sw.quantize.formats import QLayerNorm
from tilewright.sw.rounding import ceil_div

_PHASE = "embedding"
_SLOTS = 2
"""Row blocks under way: one is loaded while the other is normalized."""


def place_embedding(config: Config, shape: Shape) -> tuple[Placed, int]:
    """Where its buffers lie, and the rows of a block.

    Raises
    ------
    CompileError
        If not even a row fits.
    """
    panels, width = shape.hidden_panels, shape.geometry.panel
    ring = min(2 * PARAMETER_ROWS * panels, max(2 * PARAMETER_ROWS, config.sp_words // 4))
    rows = min(shape.sequence, config.stat_rows // _SLOTS, config.scale_rows // _SLOTS)
    while rows and ring + _SLOTS * (rows * panels + ceil_div(rows, width)) > config.sp_words:
        rows -= 1
    if not rows:
        raise CompileError(
            f"{config.title}: {config.sp_words} words of scratchpad hold no row of {panels} panels"
        )
    placer = Placer(config.sp_words, config.sp_depth)
    for slot in range(_SLOTS):
        placer.place(f"rows{slot}", rows * panels, (_PHASE,))
        placer.place(f"magnitudes{slot}", ceil_div(rows, width), (_PHASE,))
    area = placer.place("ring", ring, (_PHASE,))
    if area is None or len(placer.areas) != 2 * _SLOTS + 1:
        raise CompileError(f"{config.title}: {config.sp_words} words do not hold the embedding")
    placed = Placed(shape=shape, areas=placer.areas, ring={_PHASE: (area.start, ring)})
    return placed, rows


def normalize_embedding(
    emitter: Emitter, product: Product, constants: QLayerNorm, rows: int
) -> None:
    """Emit ``y = LayerNorm(z)``, z s16 panels at `emitter.x`, y and magnitudes to `emitter.y`.

    Parameters
    ----------
    product : Product
        Parameters only.
    rows : int
        Of a block, as `place_embedding` says.
    """
    shape, x, y = emitter.shape, emitter.x, emitter.y
    panels = shape.hidden_panels
    blocks = [
        RowBlock(first, min(rows, shape.sequence - first))
        for first in range(0, shape.sequence, rows)
    ]
    emitter.begin("embedding")
    for number, block in enumerate(blocks):
        slot = number % _SLOTS
        stat = scale = slot * rows
        z = Rows(emitter.area(f"rows{slot}"), rows, block.rows, scale)
        emitter.move_rows(
            Opcode.LOAD, z, region=x.region, offset=x.panels, first=block.first, panels=(0, panels)
        )
        emitter.emit(
            Opcode.VECTOR,
            m=z.rows,
            panels=panels,
            valid=shape.hidden,
            in_addr=z.address,
            in_stride=z.stride,
            stat=stat,
            source=Source.SP,
            out=Out.NONE,
            stat_op=Stat.MOMENTS,
            first=1,
        )
        layernorm(emitter, z, product, constants, stat=stat, scale=scale, phase=_PHASE)
        emitter.move_rows(
            Opcode.STORE, z, region=y.region, offset=y.panels, first=block.first, panels=(0, panels)
        )
        emitter.put_scales(
            emitter.area(f"magnitudes{slot}"),
            region=y.region,
            offset=y.magnitudes + 2 * block.first,
            rows=z.rows,
            scale=scale,
        )
