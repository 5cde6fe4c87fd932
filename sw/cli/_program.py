"""Tables of a program's figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from tilewright.sw.cli._output import Column, size
from tilewright.sw.words import plural

Table = tuple[str, Sequence[Column], list[dict[str, Any]]]


def program_tables(figures: Mapping[str, Any], title: str) -> list[Table]:
    """Tables of what `tilewright.sw.program.summary.summary` returns."""
    metadata = figures["metadata"]
    rows = [
        {"what": "configuration", "value": f"{figures['config']}, manifest {figures['hash']}"},
        {
            "what": "commands",
            "value": ", ".join(f"{n:,} {name}" for name, n in figures["commands"].items()),
        },
        {"what": "program", "value": size(figures["bytes"]["program"])},
        {"what": "constants", "value": size(figures["bytes"]["constants"])},
    ]
    for name in ("precision", "sequence", "batch", "layers", "hidden"):
        if name in metadata:
            rows.append({"what": name, "value": str(metadata[name])})
    if "estimate" in metadata:
        cycles = metadata["estimate"]["cycles"]
        rows.append({"what": "estimate", "value": plural(cycles, "cycle")})
    buffers = [
        {
            "buffer": name,
            "direction": entry["direction"],
            "shape": "×".join(map(str, entry["shape"])),
            "layout": entry["layout"],
            "place": f"region {entry['region']} + {entry['offset']:#x}",
            "bytes": entry["size"],
        }
        for name, entry in figures["buffers"].items()
    ]
    return [
        (title, [Column(key="what", header=""), Column(key="value", header="")], rows),
        (
            "inputs and outputs",
            [
                Column(key="buffer", header="buffer"),
                Column(key="direction", header="direction"),
                Column(key="shape", header="shape", right=True),
                Column(key="layout", header="layout"),
                Column(key="place", header="place"),
                Column(key="bytes", header="size", right=True, show=size),
            ],
            buffers,
        ),
    ]
