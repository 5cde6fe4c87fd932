"""What is done to a legal program before it runs, and what the machine must say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    POST_SLOTS,
    PROGRAM_REGION,
    Fault,
    Opcode,
    Post,
)
from tilewright.hw.encoding import Command, Token, encode, field_bound
from tilewright.sim.iss import FaultRecord, MachineFault
from tilewright.sim.native.simulator import DECERR, SLVERR
from tilewright.sim.random_program import RandomProgram

Bytes = npt.NDArray[np.uint8]
FREE_SEMAPHORE = 12
"""The first that random programs do not use: one each way between the four units."""


@dataclass(kw_only=True)
class Scenario:
    """One first run.

    Attributes
    ----------
    program : bytes
        Commands as they stand in memory.
    count : int
        PROGRAM_COUNT.
    record : FaultRecord or None
        The fault that must be latched; None: the run ends well.
    exact : bool
        Whether the record's unit and index are the only right ones: of a watchdog any command that
        waits may be named.
    addresses : range, optional
        Where the fault's address must lie; that of the record if None.
    failing : tuple, optional
        (access, low, high, response) of bytes whose beats the memory answers with an error.
    reset_after : int, optional
        Cycles after which a soft reset breaks the run off.
    """

    program: bytes
    count: int
    record: FaultRecord | None = None
    exact: bool = True
    addresses: range | None = None
    failing: tuple[str, int, int, int] | None = None
    reset_after: int | None = None
    notes: list[str] = field(default_factory=list)


class NotApplicable(Exception):
    """The program has no place for this scenario."""


def program_start(program: RandomProgram) -> int:
    """DRAM address of command 0."""
    return program.regions[PROGRAM_REGION][0] + program.program_offset


def assembled(commands: list[Command]) -> bytearray:
    return bytearray(b"".join(encode(item) for item in commands))


def _poke(data: bytearray, index: int, opcode: Opcode, name: str, value: int) -> None:
    """Set a field to a raw value, legal or not."""
    spec = COMMAND_LAYOUTS[opcode][name]
    at = index * COMMAND_BYTES
    word = int.from_bytes(data[at : at + COMMAND_BYTES], "little")
    word &= ~(((1 << spec.width) - 1) << spec.offset)
    word |= value << spec.offset
    data[at : at + COMMAND_BYTES] = word.to_bytes(COMMAND_BYTES, "little")


def _faulting(
    program: RandomProgram, data: bytes | bytearray, count: int | None = None
) -> Scenario:
    """A run of these bytes; the simulator says how it must end."""
    count = len(program.commands) if count is None else count
    memory = program.memory.copy()
    start = program_start(program)
    memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
    machine = program.machine(memory)
    try:
        machine.run(offset=program.program_offset, count=count)
    except MachineFault as fault:
        return Scenario(program=bytes(data), count=count, record=fault.record)
    raise NotApplicable


def _pick(rng: np.random.Generator, program: RandomProgram, *opcodes: Opcode) -> int:
    """Index of a command, of one of the opcodes if any are named."""
    found = [
        index
        for index, item in enumerate(program.commands)
        if not opcodes or item.opcode in opcodes
    ]
    if not found:
        raise NotApplicable
    return int(rng.choice(found))


def legal(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """Nothing."""
    return Scenario(program=bytes(assembled(program.commands)), count=len(program.commands))


def opcode(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """An opcode that is none."""
    data = assembled(program.commands)
    unknown = [value for value in range(256) if value not in set(Opcode)]
    data[COMMAND_BYTES * _pick(rng, program)] = int(rng.choice(unknown))
    return _faulting(program, data)


def enumeration(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """A code that an enumeration does not have."""
    index = _pick(rng, program)
    code = program.commands[index].opcode
    free = [
        (name, value)
        for name, spec in COMMAND_LAYOUTS[code].items()
        if spec.values is not None
        for value in range(1 << spec.width)
        if value not in set(spec.values)
    ]
    if not free:
        raise NotApplicable
    data = assembled(program.commands)
    _poke(data, index, code, *free[int(rng.integers(len(free)))])
    return _faulting(program, data)


def address(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """An on-chip address beyond its memory, by one or by much."""
    index = _pick(rng, program, *(code for code in COMMAND_LAYOUTS if code not in (0, Opcode.END)))
    code = program.commands[index].opcode
    fields = [
        (name, bound, 1 << spec.width)
        for name, spec in COMMAND_LAYOUTS[code].items()
        if (bound := field_bound(spec, program.config)) is not None and bound < 1 << spec.width
    ]
    if not fields:
        raise NotApplicable
    name, bound, end = fields[int(rng.integers(len(fields)))]
    data = assembled(program.commands)
    _poke(data, index, code, name, int(rng.choice([bound, end - 1, int(rng.integers(bound, end))])))
    return _faulting(program, data)


def combination(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """Fields of VECTOR that exclude each other."""
    index = _pick(rng, program, Opcode.VECTOR)
    data = assembled(program.commands)
    _poke(data, index, Opcode.VECTOR, "bias", 1)
    _poke(data, index, Opcode.VECTOR, "post", Post.AFFINE)
    return _faulting(program, data)


def ends(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """A hash, a count or an END that is not this program's."""
    data, count = assembled(program.commands), len(program.commands)
    match int(rng.integers(4)):
        case 0:
            data[int(rng.integers(8, 16))] ^= 1 << int(rng.integers(8))
        case 1:
            count = int(rng.integers(0, count))
        case 2:
            index = _pick(rng, program) % (count - 1) + 1
            at = index * COMMAND_BYTES
            data[at : at + COMMAND_BYTES] = encode(
                Command(Opcode.BEGIN if index == count - 1 else Opcode.END)
            )
        case _:
            _poke(data, 0, Opcode.BEGIN, "commands", count + int(rng.integers(1, 9)))
    return _faulting(program, data, count)


def window(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """A transfer of which no byte lies in its region."""
    index = _pick(rng, program, Opcode.LOAD, Opcode.STORE)
    item = program.commands[index]
    data = assembled(program.commands)
    if rng.random() < 0.5:
        _poke(data, index, item.opcode, "region", 7)
    else:
        spec = COMMAND_LAYOUTS[item.opcode]["offset"]
        _poke(data, index, item.opcode, "offset", int(rng.integers(1 << spec.width - 2)) | 1 << 31)
    return _faulting(program, data)


def _footprint(program: RandomProgram, item: Command) -> tuple[int, int]:
    """Lowest and highest DRAM byte (one behind) of a transfer."""
    f = item.resolve(dict(enumerate(program.scalars)))
    start = program.regions[f["region"]][0] + f["offset"]
    if f["scalar_on"]:
        start += program.scalars[f["scalar"]]
    far = [f["run_stride"] * (f["runs"] - 1), f["plane_stride"] * (f["planes"] - 1)]
    low = start + sum(min(0, step) for step in far)
    return low, start + sum(max(0, step) for step in far) + f["length"]


def bus_error(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """A beat that the memory answers with an error."""
    unit = (Opcode.LOAD, Opcode.STORE)[int(rng.integers(2))]
    victim = program.commands[_pick(rng, program, unit)]
    f = victim.resolve(dict(enumerate(program.scalars)))
    if not (f["runs"] and f["planes"] and f["length"]):
        raise NotApplicable
    beat = program.config.axi_bytes
    # Of the first byte of the first run, or the last of the last: bytes that are really moved.
    low, high = _footprint(program, victim)
    place = low if rng.random() < 0.5 else high - 1
    place -= place % beat
    touching = [
        index
        for index, item in enumerate(program.commands)
        if item.opcode == unit
        and (span := _footprint(program, item))[0] < place + beat
        and span[1] > place
        and item.fields["runs"] != 0
    ]
    # Bursts of a command between whose runs the place lies do not touch it.
    if len(touching) != 1:
        raise NotApplicable
    response = int(rng.choice([SLVERR, DECERR]))
    kind = "READ" if unit == Opcode.LOAD else "WRITE"
    code = Fault[f"{kind}_{'SLVERR' if response == SLVERR else 'DECERR'}"]
    scenario = legal(program, rng)
    scenario.failing = (kind.lower(), place, place + beat, response)
    scenario.record = FaultRecord(code, victim.unit, touching[0])
    scenario.addresses = range(max(0, low - 4096), high)
    return scenario


def starvation(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """A token that never comes."""
    posting = [i for i, item in enumerate(program.commands) if item.posts]
    if not posting:
        raise NotApplicable
    index = int(rng.choice(posting))
    commands = list(program.commands)
    item = commands[index]
    commands[index] = Command(item.opcode, item.fields, item.waits, item.posts[1:])
    scenario = _faulting(program, assembled(commands))
    scenario.exact = False
    return scenario


def overflow(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """More tokens of a semaphore than it holds."""
    semaphore = int(rng.integers(FREE_SEMAPHORE, 16))
    unit = program.commands[int(rng.integers(1, len(program.commands) - 1))].unit
    commands, given = list(program.commands), 0
    for index, item in enumerate(commands):
        if item.unit == unit and len(item.posts) < POST_SLOTS:
            posts = (*item.posts, Token(semaphore, 15))
            commands[index] = Command(item.opcode, item.fields, item.waits, posts)
            given += 1
    if given < 5:
        raise NotApplicable
    return _faulting(program, assembled(commands))


def soft_reset(program: RandomProgram, rng: np.random.Generator) -> Scenario:
    """Broken off in the middle."""
    scenario = legal(program, rng)
    scenario.reset_after = int(rng.integers(1, 1 << int(rng.integers(3, 14))))
    return scenario


SCENARIOS: dict[str, Callable[[RandomProgram, np.random.Generator], Scenario]] = {
    function.__name__: function
    for function in (
        legal,
        opcode,
        enumeration,
        address,
        combination,
        ends,
        window,
        bus_error,
        starvation,
        overflow,
        soft_reset,
    )
}
