"""Sizes: tiles, panels, row blocks and chunks of a layer on a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.hw.commands import GROUP_ROWS, PARAMETER_ROWS
from tilewright.hw.config import Config
from tilewright.sw.quantize.precision import LayerPrecision, Mode
from tilewright.sw.rounding import ceil_div

PASS_MIN = 8
"""Rows below which a pass gets no shorter."""
COLUMNS_MAX = 4096
"""Widest row and longest K the arithmetic is built for."""


def parts(mode: Mode) -> int:
    """Accumulator regions of a product: byte products of equal weight share one."""
    return planes(mode) + mode.operand_bits // 8 - 1


def planes(mode: Mode) -> int:
    """Matrices of bytes (or nibbles) the weights are stored as."""
    return max(1, mode.weight_bits // 8)


@dataclass(frozen=True)
class RowBlock:
    """Rows [first, first + rows)."""

    first: int
    rows: int


def row_blocks(total: int, most: int) -> list[RowBlock]:
    """Cut rows into blocks of at most `most`, as equal as even sizes allow (the last may be odd).

    Blocks start at even rows, since two s8 rows share a word.
    """
    if total <= most:
        return [RowBlock(0, total)]
    if most < 2:
        raise ValueError(f"row blocks of {most}: two rows share a word")
    most -= most % 2
    size = min(most, 2 * ceil_div(ceil_div(total, ceil_div(total, most)), 2))
    return [RowBlock(first, min(size, total - first)) for first in range(0, total, size)]


def chunk_panels(panels: int, most: int, *, small_end: bool = False) -> list[tuple[int, int]]:
    """Cut panels into ranges of at most `most`, as equal as possible.

    With `small_end` the last range is one panel, so that little remains to be drained behind it.
    """
    count = ceil_div(panels, most)
    size = ceil_div(panels, count)
    ranges = [(p, min(p + size, panels)) for p in range(0, panels, size)]
    first, last = ranges[-1]
    if small_end and last - first > 1:
        ranges[-1:] = [(first, last - 1), (last - 1, last)]
    return ranges


@dataclass(frozen=True)
class Geometry:
    """Tile and panel arithmetic of a configuration."""

    config: Config

    @property
    def panel(self) -> int:
        """W: columns of a panel."""
        return self.config.panel

    def panels(self, columns: int) -> int:
        """Panels of a matrix."""
        return ceil_div(columns, self.panel)

    @property
    def panel_tiles(self) -> int:
        """Tiles along N in a panel."""
        return self.panel // self.config.columns

    def k_tiles(self, k: int) -> int:
        """Tiles along K."""
        return ceil_div(k, self.config.rows)

    def plane_words(self, k: int, mode: Mode) -> int:
        """Words of one panel of one plane of weights, K padded to whole tiles."""
        return self.k_tiles(k) * self.config.rows // (4 if mode.weight_bits == 4 else 2)

    def group_words(self, k: int, mode: Mode) -> int:
        """Words of one panel of group scales; four groups share one."""
        return ceil_div(ceil_div(k, GROUP_ROWS), 4) if mode.weight_bits == 4 else 0

    def blob_words(self, k: int, panels: int, mode: Mode) -> int:
        """Words of a chunk: weights and parameters."""
        weights = planes(mode) * self.plane_words(k, mode) + self.group_words(k, mode)
        return panels * (weights + PARAMETER_ROWS)

    @property
    def pass_rows(self) -> int:
        """Rows from which a pass wastes nothing."""
        return max(self.config.rows, PASS_MIN)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a layer and its sequence, and what follows from them.

    Attributes
    ----------
    sequence, hidden, heads, head_dim, ffn : int
    precision : LayerPrecision
    """

    geometry: Geometry
    sequence: int
    hidden: int
    heads: int
    head_dim: int
    ffn: int
    precision: LayerPrecision

    @property
    def attention_bytes(self) -> int:
        """Bytes of an element of q, k and v."""
        return self.precision.attention // 8

    @property
    def score_parts(self) -> int:
        """Accumulator regions of scores."""
        return 2 * self.attention_bytes - 1

    @property
    def small_parts(self) -> int:
        """Accumulator regions of projections or of the context, whichever has more."""
        return max(parts(self.precision.qkv), self.attention_bytes)

    @property
    def tail_parts(self) -> int:
        """Most accumulator regions of the products behind attention."""
        return max(parts(getattr(self.precision, name)) for name in ("o", "ffn1", "ffn2"))

    @property
    def head_words(self) -> int:
        """Words of q, of k or of v of one head."""
        return self.attention_bytes * self.head_panels * self.key_words

    @property
    def hidden_panels(self) -> int:
        return self.geometry.panels(self.hidden)

    @property
    def head_panels(self) -> int:
        """Panels of one head: heads start on panel boundaries."""
        return self.geometry.panels(self.head_dim)

    @property
    def context_panels(self) -> int:
        return self.heads * self.head_panels

    @property
    def context_columns(self) -> int:
        return self.context_panels * self.geometry.panel

    @property
    def ffn_panels(self) -> int:
        return self.geometry.panels(self.ffn)

    @property
    def key_panels(self) -> int:
        """Panels of a row of scores."""
        return self.geometry.panels(self.sequence)

    @property
    def key_words(self) -> int:
        """Words of one panel of bytes of k, v or q: rows padded to whole tiles of either kind."""
        return self.key_panels * self.geometry.panel // 2

    @property
    def score_tiles(self) -> int:
        """Accumulator tiles of a block of scores."""
        return self.key_panels * self.geometry.panel_tiles

    @property
    def macs(self) -> int:
        """The layer's own multiply-accumulates, unpadded."""
        width = self.heads * self.head_dim
        projections = self.sequence * (4 * self.hidden * width + 2 * self.hidden * self.ffn)
        return projections + 2 * self.sequence**2 * width
