"""What a program moves over the bus."""

from __future__ import annotations

import math

from tilewright.hw.commands import COMMAND_BYTES, Opcode
from tilewright.sw.program.executable import Executable


def traffic(executable: Executable) -> tuple[int, int]:
    """Bytes a program reads, its commands included, and bytes it writes."""
    moved = {Opcode.LOAD: 0, Opcode.STORE: 0}
    for command in executable.program:
        if command.opcode in moved:
            # A count in a scalar register would be a run's business; the compiler uses none here.
            values = [int(command.fields[name]) for name in ("runs", "planes", "length")]  # type: ignore[arg-type]
            moved[command.opcode] += math.prod(values)
    return moved[Opcode.LOAD] + COMMAND_BYTES * len(executable.program), moved[Opcode.STORE]
