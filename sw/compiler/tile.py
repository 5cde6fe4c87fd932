"""Sizes: tiles, panels, row blocks and chunks of a layer on a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from hw.commands import PARAMETER_ROWS
from hw.config import Config

PASS_MIN = 8
"""Rows below which a pass gets no shorter."""
COLUMNS_MAX = 4096
"""Widest row and longest K the arithmetic is built for."""


def up(value: int, unit: int) -> int:
    """``ceil(value / unit)``."""
    return -(-value // unit)


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
    size = min(most, 2 * up(up(total, up(total, most)), 2))
    return [RowBlock(first, min(size, total - first)) for first in range(0, total, size)]


def chunk_panels(panels: int, most: int, *, small_end: bool = False) -> list[tuple[int, int]]:
    """Cut panels into ranges of at most `most`, as equal as possible.

    With `small_end` the last range is one panel, so that little remains to be drained behind it.
    """
    count = up(panels, most)
    size = up(panels, count)
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
        return up(columns, self.panel)

    @property
    def panel_tiles(self) -> int:
        """Tiles along N in a panel."""
        return self.panel // self.config.columns

    def k_tiles(self, k: int) -> int:
        """Tiles along K."""
        return up(k, self.config.rows)

    def weight_words(self, k: int) -> int:
        """Words of one panel of weights, K padded to whole tiles."""
        return self.k_tiles(k) * self.config.rows // 2

    def blob_words(self, k: int, panels: int) -> int:
        """Words of a chunk: weights and parameters."""
        return panels * (self.weight_words(k) + PARAMETER_ROWS)

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
    """

    geometry: Geometry
    sequence: int
    hidden: int
    heads: int
    head_dim: int
    ffn: int

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
        """Words of one panel of k, v or q: rows padded to whole tiles of either kind."""
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
