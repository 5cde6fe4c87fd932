"""What is in an executable, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from tilewright.hw.commands import Opcode, Unit
from tilewright.hw.manifest import manifest_hash
from tilewright.sw.program.disassemble import disassemble
from tilewright.sw.program.executable import Executable


def summary(executable: Executable) -> dict[str, Any]:
    """JSON-able figures of an executable.

    Returns
    -------
    dict
        config, hash; commands: all, and by unit; opcodes; bytes: program, constants, regions;
        buffers: with region, offset, size, layout, shape, direction; scalars; metadata.
    """
    units = Counter(item.unit for item in executable.program)
    opcodes = Counter(item.opcode for item in executable.program)
    return {
        "config": executable.config.title,
        "hash": f"{manifest_hash(executable.config):016x}",
        "commands": {
            "all": len(executable.program),
            **{unit.name.lower(): units[unit] for unit in Unit if unit != Unit.FETCH},
        },
        "opcodes": {opcode.name: opcodes[opcode] for opcode in Opcode if opcodes[opcode]},
        "bytes": {
            "program": len(executable.commands),
            "constants": sum(len(content) for content in executable.constants.values()),
            "regions": dict(sorted(executable.regions.items())),
        },
        "buffers": {name: asdict(buffer) for name, buffer in executable.buffers.items()},
        "scalars": dict(executable.scalars),
        "metadata": dict(executable.metadata),
    }


def listing(executable: Executable) -> str:
    """The program's commands, one a line, with the operations they belong to."""
    return disassemble(executable.program, executable.operations)
