"""Products with static weights: one chunk of panels on one row block, and orders of such pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tilewright.hw.commands import PARAMETER_ROWS, Mul, Opcode, Parts, Pre, WeightFormat, XMode
from tilewright.hw.encoding import Value
from tilewright.sw.compiler.blocks.emitter import Emitter, Rows, Weights
from tilewright.sw.compiler.pack import Chunk
from tilewright.sw.compiler.schedule import Issued
from tilewright.sw.compiler.tile import parts

BYTES = (XMode.HIGH, XMode.LOW)
"""The feeder's passes over a 16-bit operand."""


def regions(acc: int, count: int, words: int) -> dict[str, Value]:
    """Fields of a VECTOR command over `count` accumulator regions of `words` each."""
    if count == 1:
        return {"acc_addr": acc}
    return {"acc_addr": acc, "parts": Parts(count - 1), "acc_part": words}


def byte_products(modes: Sequence[XMode], planes: int) -> Iterator[tuple[XMode, int, int, bool]]:
    """The operand's bytes times the weights' planes, the most significant first.

    Yields the feeder's mode, the plane, the accumulator region, and whether it adds to what an
    earlier one left there.
    """
    seen = set()
    for number, mode in enumerate(modes):
        for plane in range(planes):
            region = number + plane
            yield mode, plane, region, region in seen
            seen.add(region)


def multiply(
    emitter: Emitter,
    x: Rows,
    weights: Weights,
    acc: int,
    *,
    tiles: tuple[int, int] | None = None,
) -> None:
    """Accumulators = x · weights, a region for each weight of byte products.

    Parameters
    ----------
    tiles : (int, int), optional
        K tiles [a, b) only, a panel's first being a; what is behind a = 0 is added.
    """
    chunk = weights.chunk
    product = chunk.product
    geometry = emitter.geometry
    low, high = tiles or (0, geometry.k_tiles(product.k))
    columns = chunk.panels * geometry.panel_tiles
    wide = product.mode.operand_bits == 16
    packed: dict[str, Value] = {}
    if product.scales is not None:
        packed = {
            "weights": WeightFormat.S4,
            "group_addr": weights.address + chunk.group_offset,
            "group_stride": product.group_words,
        }
    rows = emitter.config.rows
    for mode, plane, region, adds in byte_products(
        BYTES if wide else (XMode.SCALED,), product.planes
    ):
        emitter.emit(
            Opcode.MATMUL,
            m=x.rows,
            kt=high - low,
            nt=columns,
            x_addr=x.panel(low * rows // geometry.panel),
            x_stride=x.stride,
            w_addr=weights.address + chunk.plane_offset(plane) + low * rows // 2,
            w_stride=product.plane_words,
            acc_addr=acc + region * columns * x.rows,
            acc_stride=x.rows,
            scale=x.scale,
            mode=mode,
            accumulate=int(adds or low > 0),
            **packed,
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
    """VECTOR over the accumulators of a product.

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
    chunk = weights.chunk
    per_panel = emitter.geometry.panel_tiles * x.rows
    mode = chunk.product.mode
    scaled: dict[str, Value] = {}
    if mode.operand_bits == 8:
        scaled = {"pre": Pre.ROW_SCALE, "scale_in": x.scale}
    return emitter.emit(
        Opcode.VECTOR,
        m=x.rows,
        panels=high - low,
        valid=chunk.valid if valid is None else valid,
        **regions(acc + low * per_panel, parts(mode), chunk.panels * per_panel),
        acc_stride=x.rows,
        par_addr=weights.parameters(low),
        par_stride=PARAMETER_ROWS,
        mul=Mul.CHANNEL,
        bias=1,
        **scaled,
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
