"""Real operands: commands of a compiled MiniLM layer with the machine's state around each."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.hw.commands import Opcode
from tilewright.hw.config import Config, preset_config
from tilewright.hw.encoding import Command
from tilewright.hw.manifest import manifest_hash
from tilewright.sim.iss import IssMachine
from tilewright.sw.cache import build_once, cache_dir
from tilewright.sw.compiler import compile_layer

ROOT = Path(__file__).parents[2]
SOURCES = ("sw/compiler", "sw/models", "sw/quantize", "sw/program", "sim/iss", "sim/golden")
STATE = ("sp", "acc", "scale", "f1", "f2", "factor", "exponent", "top")
TRANSFERS = (Opcode.LOAD, Opcode.STORE)
_TRANSFER = (
    *("region", "half", "scalar_on", "length", "runs", "planes", "run_stride", "plane_stride"),
    "sp_chunk",
)
KINDS = {
    Opcode.LOAD: _TRANSFER,
    Opcode.STORE: _TRANSFER,
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


def _dram(machine: IssMachine, f: dict[str, int]) -> tuple[int, int, int]:
    """Address of a transfer's first run, of its lowest byte, and bytes from there to its last."""
    start = machine.base[f["region"]] + f["offset"]
    start += machine.scalars[f["scalar"]] if f["scalar_on"] else 0
    steps = [
        k * f["plane_stride"] + j * f["run_stride"]
        for k in (0, f["planes"] - 1)
        for j in (0, f["runs"] - 1)
    ]
    return start, start + min(steps), max(steps) - min(steps) + f["length"]


def _record(folder: Path, sequence: int) -> None:
    # Quantizing takes minutes: only where nothing is recorded yet.
    from tests.models import layer_input, minilm

    layer = compile_layer(minilm()[1].layers[0], config(), sequence)
    x, length, _ = layer_input(0, sequence)
    machine = IssMachine(config())
    contents: dict[int, Any] = {0: layer.commands, **layer.constants, **layer.pack({"x": x})}
    for region, size in {0: len(layer.commands), **layer.regions}.items():
        machine.place(region, contents.get(region, size))
    machine.scalars[layer.scalars["length"]] = length
    program = list(layer.program)
    wanted = set(_wanted(program))
    arrays: dict[str, np.ndarray] = {}
    commands = []

    def resolved(index: int) -> dict[str, int]:
        return program[index].resolve(dict(enumerate(machine.scalars)))

    def observe(index: int, item: Command) -> None:
        if index in wanted:
            fields = resolved(index)
            found = {"index": index, "opcode": item.opcode.name, "fields": fields}
            if item.opcode in TRANSFERS:
                found["start"], found["lowest"], _ = _dram(machine, fields)
            commands.append(found)
        for when, number in (("after", index), ("before", index + 1)):
            if number in wanted:
                state = {name: getattr(machine, name).copy() for name in STATE}
                if program[number].opcode in TRANSFERS:
                    _, lowest, size = _dram(machine, resolved(number))
                    state["dram"] = np.frombuffer(machine.dram.read(lowest, size), np.uint8)
                arrays.update({f"{number}/{when}/{name}": value for name, value in state.items()})

    machine.run(count=len(program), observe=observe)
    np.savez_compressed(folder / "state.npz", **arrays)  # type: ignore[arg-type]
    (folder / "commands.json").write_text(json.dumps(commands))


@functools.cache
def recordings(sequence: int = 8) -> list[dict]:
    """Recorded commands: "index", "opcode", "fields", and "before" and "after", the state by name.

    A LOAD and a STORE has besides "start", the address of its first run, "lowest", that of its
    lowest byte, and in its states "dram", the bytes from there to its last.
    """
    folder = build_once(
        cache_dir() / "recordings" / _key(sequence), lambda new: _record(new, sequence)
    )
    commands = json.loads((folder / "commands.json").read_text())
    with np.load(folder / "state.npz") as state:
        for item in commands:
            names = (*STATE, "dram") if Opcode[item["opcode"]] in TRANSFERS else STATE
            for when in ("before", "after"):
                item[when] = {name: state[f"{item['index']}/{when}/{name}"] for name in names}
    return commands


def arrays_of(opcodes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The recordings of some opcodes as testbenches take them."""
    out: dict[str, np.ndarray] = {}
    number = 0
    for item in recordings():
        if item["opcode"] in opcodes:
            command = {key: item[key] for key in item if key not in ("before", "after")}
            out[f"{number}/command"] = np.array(json.dumps(command))
            for when in ("before", "after"):
                out.update({f"{number}/{when}/{k}": v for k, v in item[when].items()})
            number += 1
    return out
