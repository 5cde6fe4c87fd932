"""The manifest: everything software needs to know of a generated machine, and its hash.

The hash covers what a program depends on and nothing else, so that a release or an option that no
program can tell refuses none: the register map and the command layouts, the revision of the
arithmetic, and those parameters that `parameters` names.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    PARAMETER_ROWS,
    REGIONS,
    SCALARS,
    SEMAPHORES,
    TOKEN_MAX,
    Fault,
    all_fields,
)
from tilewright.hw.config import PRESETS, Config
from tilewright.hw.registers import COUNTERS, REGISTERS

ARITHMETIC = 1
"""Revision of the arithmetic: one more whenever any operation gives other bits than before."""

SP_READ_LATENCY = 3
"""Cycles from a granted scratchpad read to its data."""

_HALF = 32
_PARTS = {"commands": "other command layouts", "registers": "another register map"}


def parameters(config: Config) -> dict[str, Any]:
    """Return what of a configuration a program depends on, in its meaning or its legality.

    Not among them are the name, and all that changes cycles alone: lanes, row engines, depth of the
    queues, the split of a memory into banks, width and bursts of the bus. Nor the width of an
    address, since a program has offsets from regions whose addresses registers hold; nor the answer
    to registers that do not exist.
    """
    return {
        # The shape of a tile, the words a row of a matrix takes, the layout of packed weights.
        "rows": config.rows,
        "columns": config.columns,
        # A weight beyond them loses bits.
        "weight_bits": config.weight_bits,
        # A command that names another function faults.
        "functions": sorted(config.functions),
        # What commands may address.
        "sp_words": config.sp_words,
        "acc_words": config.acc_words,
        "scale_rows": config.scale_rows,
        "stat_rows": config.stat_rows,
    }


def register_map() -> dict[str, Any]:
    """Return the registers and what is read from them."""
    return {
        "registers": {
            r.name: {"address": r.address, "access": r.access} for r in REGISTERS.values()
        },
        "counters": {unit: list(reasons) for unit, reasons in COUNTERS.items()},
        "faults": {fault.name: int(fault) for fault in Fault},
    }


def command_layouts() -> dict[str, Any]:
    """Return the commands, bit by bit, and the bounds that no configuration changes."""
    return {
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
            for opcode in COMMAND_LAYOUTS
        },
        "command_bytes": COMMAND_BYTES,
        "parameter_rows": PARAMETER_ROWS,
        "semaphores": SEMAPHORES,
        "token_max": TOKEN_MAX,
        "scalars": SCALARS,
        "regions": REGIONS,
    }


def _digest(value: Any) -> str:
    """Eight hex digits of a value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[: _HALF // 4]


@functools.cache
def _contract() -> dict[str, Any]:
    return {
        "arithmetic": ARITHMETIC,
        "commands": _digest(command_layouts()),
        "registers": _digest(register_map()),
    }


def identity(config: Config) -> dict[str, Any]:
    """Return what the hash is made of, short enough to stand in every program: the parameters, the
    revision of the arithmetic, and digests of the rest.
    """
    return {**_contract(), "parameters": parameters(config)}


def manifest_hash(config: Config) -> int:
    """Return the 64-bit hash the machine carries and every program names: above, 32 bits of
    registers, commands and arithmetic; below, 32 bits of the parameters.
    """
    return int(_digest(_contract()) + _digest(parameters(config)), 16)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return in words where one `identity` is not as another; empty where it is."""
    texts = []
    own, other = found["parameters"], wanted["parameters"]
    for key in (*other, *(key for key in own if key not in other)):
        if own.get(key) != other.get(key):
            texts.append(f"{key} {_text(own.get(key))}, not {_text(other.get(key))}")
    if found["arithmetic"] != wanted["arithmetic"]:
        texts.append(
            f"revision {found['arithmetic']} of the arithmetic, not {wanted['arithmetic']}"
        )
    texts += [text for part, text in _PARTS.items() if found[part] != wanted[part]]
    return "; ".join(texts)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(value) or "none"
    return "unknown" if value is None else str(value)


def hash_difference(found: int, config: Config) -> str:
    """Return what a hash that is not this configuration's says of where it came from."""
    low = (1 << _HALF) - 1
    wrong = found ^ manifest_hash(config)
    texts = []
    if wrong >> _HALF:
        texts.append("other registers, commands or arithmetic")
    if wrong & low:
        presets = (p.name for p in PRESETS.values() if not (found ^ manifest_hash(p)) & low)
        name = next(presets, None)
        texts.append("other parameters" if name is None else f"the parameters of {name!r}")
    return " and ".join(texts)
