"""Blocks of rows of an s16 matrix that pass through the scratchpad whole, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.hw.commands import Opcode
from tilewright.sw.arguments import integer
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.operations.builder import ROWS_MAX, Builder, blocks
from tilewright.sw.compiler.tile import COLUMNS_MAX
from tilewright.sw.program.executable import Buffer
from tilewright.sw.rounding import ceil_div


@dataclass(frozen=True)
class Block:
    """Rows [first, first + rows) in the scratchpad.

    Attributes
    ----------
    first, rows : int
    address : int
        Of panel 0; panels are `rows` words apart.
    stat : int
        Statistics row of the first one.
    """

    first: int
    rows: int
    address: int
    stat: int


class RowBlocks:
    """Two slots for blocks of rows, which take turns.

    Parameters
    ----------
    builder : Builder
    operation : str
        For the refusal.
    rows, columns : int
        Of the matrix.
    words : int
        Scratchpad words from 0 that may be used.
    """

    def __init__(
        self,
        builder: Builder,
        operation: str,
        rows: int,
        columns: int,
        *,
        words: int,
    ) -> None:
        config = builder.config
        integer(f"{operation}: rows", rows, 1)
        integer(f"{operation}: columns", columns, 1, COLUMNS_MAX)
        self.builder = builder
        self.rows = rows
        self.panels = ceil_div(columns, config.panel)
        # Where two blocks do not fit, one has to do.
        for count in (2, 1):
            self.slot = words // count
            self.stats = config.stat_rows // count
            self.most = min(self.slot // self.panels, self.stats, ROWS_MAX)
            if self.most:
                self.count = count
                return
        raise CompileError(
            f"{operation}: a row of {columns} takes {self.panels} words, {config.title} "
            f"has {words} of scratchpad for them"
        )

    def load(self, source: Buffer) -> Iterator[Block]:
        """Load block after block."""
        for number, (first, last) in enumerate(blocks(self.rows, self.most)):
            slot = number % self.count
            rows = last - first
            block = Block(first, rows, slot * self.slot, slot * self.stats)
            self._move(Opcode.LOAD, source, block, block.address)
            yield block

    def store(self, target: Buffer, block: Block, address: int) -> None:
        """Store a block from an address."""
        self._move(Opcode.STORE, target, block, address)

    def _move(self, opcode: Opcode, buffer: Buffer, block: Block, address: int) -> None:
        self.builder.move(
            opcode,
            buffer,
            first=block.first,
            words=block.rows,
            pitch=self.rows,
            panels=self.panels,
            sp=address,
            sp_pitch=block.rows,
        )
