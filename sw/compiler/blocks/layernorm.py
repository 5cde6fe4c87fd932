"""LayerNorm of row blocks in place: row values, then the output pass."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.hw.commands import PARAMETER_ROWS, Mul, Opcode, Out, Post, Pre, RowOp, Source
from tilewright.sw.compiler.blocks.emitter import Emitter, Rows
from tilewright.sw.compiler.pack import Product
from tilewright.sw.compiler.tile import chunk_panels
from tilewright.sw.quantize.formats import EdgeFormat, QLayerNorm

_XHAT_BITS = 16


def layernorm(
    emitter: Emitter,
    z: Rows,
    product: Product,
    constants: QLayerNorm,
    *,
    stat: int,
    scale: int,
    phase: str,
    parts: int = 1,
    after: Callable[[tuple[int, int]], object] | None = None,
) -> None:
    """``y = LayerNorm(z)`` in place; statistics of z are at `stat`, magnitudes of y go to `scale`.

    Parameters
    ----------
    product : Product
        Parameters only.
    parts : int
        Output passes the panels are cut into.
    after : callable, optional
        Called with the panels [a, b) that are done.
    """
    columns = product.n
    emitter.emit(Opcode.ROW, op=RowOp.RSQRT, m=z.rows, stat=stat, n=columns, eps=constants.eps)
    panels = product.panels
    most = max(1, min(-(-panels // parts), emitter.ring(phase).words // (2 * PARAMETER_ROWS)))
    for low, high in chunk_panels(panels, most):
        weights = emitter.fetch(product.chunk(low, high), phase)
        emitter.emit(
            Opcode.VECTOR,
            m=z.rows,
            panels=high - low,
            valid=weights.chunk.valid,
            in_addr=z.panel(low),
            in_stride=z.stride,
            out_addr=z.panel(low),
            out_stride=z.stride,
            par_addr=weights.parameters(),
            par_stride=PARAMETER_ROWS,
            scale_out=scale,
            stat=stat,
            imm=columns,
            shift=_XHAT_BITS - constants.fraction,
            shift2=constants.shift,
            source=Source.SP,
            pre=Pre.CENTER,
            mul=Mul.ROW,
            post=Post.AFFINE,
            out=Out.SYM16 if constants.out is EdgeFormat.SYM16 else Out.S16,
            magnitude=1,
            first=int(low == 0),
        )
        if after is not None:
            after((low, high))
