"""Real operands: commands of a compiled MiniLM layer with the machine's state around each."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from hw.commands import Opcode
from hw.config import Config, preset_config
from hw.encoding import Command
from hw.manifest import manifest_hash
from sim.iss import Machine
from sw.cache import build_once, cache_dir
from sw.compiler import compile_layer

ROOT = Path(__file__).parents[2]
SOURCES = ("sw/compiler", "sw/models", "sw/quantize", "sw/program", "sim/iss", "sim/golden")
STATE = ("sp", "acc", "scale", "f1", "f2", "factor", "exponent", "top")
KINDS = {
    Opcode.MATMUL: ("mode", "transposed", "accumulate", "k_outer"),
    Opcode.VECTOR: (
        *("source", "pre", "mul", "bias", "function", "post", "out", "stat_op", "magnitude"),
        "first",
    ),
    Opcode.ROW: ("op",),
}
"""Fields by which commands are told apart: the first one of each kind is recorded."""


def config() -> Config:
    """The machine recorded."""
    return preset_config("small")


def _key(sequence: int) -> str:
    digest = hashlib.sha256(f"{manifest_hash(config())} {sequence}".encode())
    files = [Path(__file__), *(p for s in SOURCES for p in sorted((ROOT / s).rglob("*.py")))]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _wanted(program: list[Command]) -> list[int]:
    seen = set()
    found = []
    for index, item in enumerate(program):
        if item.opcode in KINDS:
            kind = (item.opcode, *(item.fields[name] for name in KINDS[item.opcode]))
            if kind not in seen:
                seen.add(kind)
                found.append(index)
    return found


def _record(folder: Path, sequence: int) -> None:
    # Quantizing takes minutes: only where nothing is recorded yet.
    from tests.models import layer_input, minilm

    layer = compile_layer(minilm()[1].layers[0], config(), sequence)
    x, length, _ = layer_input(0, sequence)
    machine = Machine(config())
    contents: dict[int, Any] = {0: layer.commands, **layer.constants, **layer.pack({"x": x})}
    for region, size in {0: len(layer.commands), **layer.regions}.items():
        machine.place(region, contents.get(region, size))
    machine.scalars[layer.scalars["length"]] = length
    program = list(layer.program)
    wanted = set(_wanted(program))
    arrays: dict[str, np.ndarray] = {}
    commands = []

    def observe(index: int, item: Command) -> None:
        if index in wanted:
            fields = item.resolve(dict(enumerate(machine.scalars)))
            commands.append({"index": index, "opcode": item.opcode.name, "fields": fields})
        for when, number in (("after", index), ("before", index + 1)):
            if number in wanted:
                arrays.update(
                    {f"{number}/{when}/{name}": getattr(machine, name).copy() for name in STATE}
                )

    machine.run(count=len(program), observe=observe)
    np.savez_compressed(folder / "state.npz", **arrays)  # type: ignore[arg-type]
    (folder / "commands.json").write_text(json.dumps(commands))


@functools.cache
def recordings(sequence: int = 8) -> list[dict]:
    """Recorded commands: "opcode", "fields", and "before" and "after", the state by name."""
    folder = build_once(
        cache_dir() / "recordings" / _key(sequence), lambda new: _record(new, sequence)
    )
    commands = json.loads((folder / "commands.json").read_text())
    with np.load(folder / "state.npz") as state:
        for item in commands:
            for when in ("before", "after"):
                item[when] = {name: state[f"{item['index']}/{when}/{name}"] for name in STATE}
    return commands


def arrays_of(opcodes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The recordings of some opcodes as `run_cell` takes them."""
    out: dict[str, np.ndarray] = {}
    number = 0
    for item in recordings():
        if item["opcode"] in opcodes:
            command = {"opcode": item["opcode"], "fields": item["fields"]}
            out[f"{number}/command"] = np.array(json.dumps(command))
            for when in ("before", "after"):
                out.update({f"{number}/{when}/{k}": v for k, v in item[when].items()})
            number += 1
    return out
