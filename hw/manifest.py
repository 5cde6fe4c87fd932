"""The manifest: everything software needs to know of a generated machine, and its hash."""

import hashlib
import json
from typing import Any

from tilewright import __version__
from tilewright.hw.commands import (
    COMMAND_BYTES,
    LAYOUTS,
    PARAMETER_ROWS,
    REGIONS,
    SCALARS,
    SEMAPHORES,
    TOKEN_MAX,
    Fault,
    all_fields,
)
from tilewright.hw.config import Config
from tilewright.hw.registers import COUNTERS, REGISTERS

SP_READ_LATENCY = 3
"""Cycles from a granted scratchpad read to its data."""


def interface(config: Config) -> dict[str, Any]:
    """Return what the hash covers: configuration, command layouts, register map, version."""
    return {
        "version": __version__,
        "config": config.to_dict(),
        "commands": {
            opcode.name: {
                "opcode": int(opcode),
                "fields": {
                    field.name: {
                        "bit": field.offset,
                        "width": field.width,
                        "signed": field.signed,
                        "kind": field.kind,
                        "values": {v.name: int(v) for v in field.values} if field.values else None,
                    }
                    for field in all_fields(opcode).values()
                },
            }
            for opcode in LAYOUTS
        },
        "command_bytes": COMMAND_BYTES,
        "parameter_rows": PARAMETER_ROWS,
        "semaphores": SEMAPHORES,
        "token_max": TOKEN_MAX,
        "scalars": SCALARS,
        "regions": REGIONS,
        "registers": {
            r.name: {"address": r.address, "access": r.access} for r in REGISTERS.values()
        },
        "counters": {unit: list(reasons) for unit, reasons in COUNTERS.items()},
        "faults": {fault.name: int(fault) for fault in Fault},
    }


def manifest_hash(config: Config) -> int:
    """Return the 64-bit hash the machine carries and every program names (SHA-256, first 8 bytes,
    little-endian, of the interface as canonical JSON).
    """
    text = json.dumps(interface(config), sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
