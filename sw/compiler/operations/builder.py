"""What programs of operations are built with: buffers in DRAM, transfers, tokens."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tilewright.hw.commands import Opcode
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, Value
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.estimate import estimate
from tilewright.sw.compiler.schedule import Schedule
from tilewright.sw.program import Executable, Program
from tilewright.sw.program.executable import Buffer, Direction
from tilewright.sw.program.layouts import layout
from tilewright.sw.rounding import ceil_div, round_up

INPUT, PARAMETERS, OUTPUT = 1, 2, 3
"""Regions: what is read once, what is read again and again, what is written."""
ROWS_MAX = 32767
"""Rows a command may have."""

_ALIGNMENT = 64
_STRIDE_MAX = (1 << 31) - 1


class Builder:
    """Collects the commands and buffers of a program.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.schedule = Schedule(config, frozenset({INPUT, PARAMETERS, OUTPUT}))
        self.buffers: dict[str, Buffer] = {}
        self._sizes: dict[int, int] = {}

    def buffer(
        self, name: str, region: int, form: str, shape: tuple[int, ...], direction: Direction
    ) -> Buffer:
        """Append a buffer to a region."""
        offset = self._sizes.get(region, 0)
        size = layout(form).size(shape, self.config.panel)
        placed = Buffer(region, offset, size, form, shape, direction)
        self.buffers[name] = placed
        self._sizes[region] = round_up(placed.end, _ALIGNMENT)
        return placed

    def emit(self, opcode: Opcode, **fields: Value) -> None:
        """Append a command; its tokens follow from what it touches."""
        self.schedule.emit(Command(opcode, dict(fields)))

    def move(
        self,
        opcode: Opcode,
        buffer: Buffer,
        *,
        first: int,
        words: int,
        pitch: int,
        panels: int,
        sp: int,
        sp_pitch: int,
    ) -> None:
        """LOAD or STORE the same words of several panels.

        Parameters
        ----------
        first : int
            Word of the buffer's region with the first one, from the buffer's start.
        words : int
            Of each panel, contiguous.
        pitch, sp_pitch : int
            Words from panel to panel, in DRAM and in the scratchpad.
        """
        word = self.config.word_bytes
        if pitch * word > _STRIDE_MAX:
            raise CompileError(f"panels of {pitch * word} bytes: must be at most {_STRIDE_MAX}")
        self.emit(
            opcode,
            sp_addr=sp,
            region=buffer.region,
            offset=buffer.offset + first * word,
            length=words * word,
            runs=panels,
            planes=1,
            run_stride=pitch * word,
            sp_chunk=1,
            sp_run=sp_pitch,
        )

    def executable(
        self, operation: str, *, scalars: dict[str, int] | None = None, **metadata: Any
    ) -> Executable:
        """The program with its buffers."""
        program = Program(self.config, self.schedule.commands())
        return Executable(
            config=self.config,
            program=program,
            regions=dict(self._sizes),
            buffers=self.buffers,
            scalars=scalars or {},
            metadata={
                "operation": operation,
                **metadata,
                "estimate": asdict(estimate(program, self.config)),
            },
        )


def blocks(total: int, most: int) -> list[tuple[int, int]]:
    """Ranges [first, last) of at most `most`, as equal as possible; all but the last even.

    An odd `most` above 1 is taken as the even number below: two rows of s8 share a word.
    """
    if total <= most:
        return [(0, total)]
    if most < 2:
        return [(first, first + 1) for first in range(total)]
    most -= most % 2
    count = ceil_div(total, most)
    size = ceil_div(total, count)
    size += size % 2
    return [(first, min(first + size, total)) for first in range(0, total, size)]
