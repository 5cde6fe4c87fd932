"""Products with static weights: one chunk of panels on one row block, and orders of such pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hw.commands import PARAMETER_ROWS, Mul, Opcode, Pre, XMode
from hw.encoding import Value
from sw.compiler.blocks.emitter import Emitter, Rows, Weights
from sw.compiler.pack import Chunk
from sw.compiler.schedule import Issued

Drain = Callable[[Weights, int], object]
"""Empties an accumulator region: (weights, accumulator address)."""


def multiply(emitter: Emitter, x: Rows, weights: Weights, acc: int) -> Issued:
    """Accumulators = x · weights, K whole."""
    chunk = weights.chunk
    geometry = emitter.geometry
    return emitter.emit(
        Opcode.MATMUL,
        m=x.rows,
        kt=geometry.k_tiles(chunk.product.k),
        nt=chunk.panels * geometry.panel_tiles,
        x_addr=x.address,
        x_stride=x.stride,
        w_addr=weights.address,
        w_stride=weights.stride,
        acc_addr=acc,
        acc_stride=x.rows,
        scale=x.scale,
        mode=XMode.SCALED,
    )


def requantize(
    emitter: Emitter,
    x: Rows,
    weights: Weights,
    acc: int,
    *,
    panels: tuple[int, int] | None = None,
    valid: int | None = None,
    **fields: Value,
) -> Issued:
    """VECTOR over accumulators of a product whose operand had row scales.

    Parameters
    ----------
    panels : (int, int), optional
        Panels [a, b) of the chunk; all by default.
    valid : int, optional
        Logical columns in them; those of the chunk by default.
    fields
        Output, statistics and what follows the bias.
    """
    low, high = panels or (0, weights.chunk.panels)
    tiles = low * emitter.geometry.panel_tiles
    return emitter.emit(
        Opcode.VECTOR,
        m=x.rows,
        panels=high - low,
        valid=weights.chunk.valid if valid is None else valid,
        acc_addr=acc + tiles * x.rows,
        acc_stride=x.rows,
        par_addr=weights.parameters(low),
        par_stride=PARAMETER_ROWS,
        scale_in=x.scale,
        pre=Pre.ROW_SCALE,
        mul=Mul.CHANNEL,
        bias=1,
        **fields,
    )


def pairs(blocks: int, chunks: int, share: int) -> Iterator[tuple[int, int]]:
    """Order of (block, chunk): runs of `share` chunks, each over all blocks before the next run.

    So weights are read once for all blocks while a block rests for a run at a time, in which what
    it waits for (its LayerNorm) happens.
    """
    for first in range(0, chunks, share):
        for block in range(blocks):
            for chunk in range(first, min(first + share, chunks)):
                yield block, chunk


def share_of(ring_words: int, chunk: Chunk) -> int:
    """Chunks of a run: what the ring holds, less two on their way."""
    return max(1, ring_words // chunk.words - 2)
