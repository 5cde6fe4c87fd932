"""Testbenches of front end, queues with tokens, holders, registers with counters.

Parameters: `config`; `opcodes`, of a holder; `transfer`, fields of a transfer as [offset, width];
`count`.
"""

from collections import deque
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    COUNT_SCALAR_FLAG,
    REGIONS,
    SCALARS,
    SEMAPHORES,
    TOKEN_MAX,
    UNIT_OF_OPCODE,
    Fault,
    Opcode,
    Post,
    Unit,
)
from tilewright.hw.encoding import DecodeError, decode, illegal_field
from tilewright.hw.manifest import manifest_hash
from tilewright.hw.registers import (
    COUNTERS,
    IDENTIFICATION,
    READABLE,
    REGISTERS,
    RESOLVE_BITS,
    WRITABLE,
)
from tilewright.hw.words import (
    ADDRESS_HI,
    ADDRESS_LO,
    BASE_HI,
    BASE_LO,
    BEYOND_BIT,
    BEYOND_WORD,
    IDENTITY,
    LIMIT_HI,
    LIMIT_LO,
    WORDS,
    last_word,
    resolve_cycles,
)
from tilewright.sim.testbenches.units.cell import Bench, pack_command

QUEUES = (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)
LAST_WORDS = {
    Unit.LOAD: LIMIT_LO,
    Unit.MATMUL: last_word(Opcode.MATMUL),
    Unit.VECTOR: last_word(Opcode.VECTOR),
    Unit.STORE: LIMIT_LO,
}


def _put(raw: int, opcode: Opcode, name: str, value: int) -> int:
    field = COMMAND_LAYOUTS[opcode][name]
    mask = (1 << field.width) - 1
    return raw & ~(mask << field.offset) | (value & mask) << field.offset


def random_raw(bench: Bench, opcode: Opcode, *, scalars: bool = True) -> int:
    """A legal command: any bits in fields, slots, and where no field is."""
    rng, config = bench.rng, bench.config
    raw = int.from_bytes(rng.bytes(COMMAND_BYTES), "little") & ~0xFF | opcode
    bounds = {
        "sp": config.sp_words,
        "acc": config.acc_words,
        "scale": config.scale_rows,
        "stat": config.stat_rows,
    }
    for name, field in COMMAND_LAYOUTS[opcode].items():
        if field.values is not None:
            raw = _put(raw, opcode, name, int(rng.choice([int(v) for v in field.values])))
        elif field.kind in bounds:
            last = bounds[field.kind] - 1
            raw = _put(raw, opcode, name, int(rng.choice([0, last, int(rng.integers(last + 1))])))
        elif field.kind == "count" and not scalars:
            raw = _put(raw, opcode, name, int(rng.integers(COUNT_SCALAR_FLAG)))
    if opcode == Opcode.VECTOR:
        functions = [0, 4] + ([1] if "gelu" in config.functions else [])
        raw = _put(raw, opcode, "function", int(rng.choice(functions)))
        if raw >> COMMAND_LAYOUTS[opcode]["post"].offset & 3 == Post.AFFINE:
            raw = _put(raw, opcode, "bias", 0)
    return raw


def _begin(count: int, number: int) -> int:
    raw = _put(int(Opcode.BEGIN), Opcode.BEGIN, "hash", number)
    return _put(raw, Opcode.BEGIN, "commands", count)


UNITS = tuple(op for op in Opcode if op not in (Opcode.BEGIN, Opcode.END))


class _FrontEnd:
    """Commands in, words out; the register file and the queues around it."""

    def __init__(self, bench: Bench, commands: list[int], *, count: int, pause: float) -> None:
        rng, config = bench.rng, bench.config
        self.bench, self.count, self.pause = bench, count, pause
        self.queue = deque(enumerate(commands))
        self.held: dict[int, int] = {}
        self.routed: list[tuple[Unit, list[int]]] = []
        self.program: dict[int, int] | None = None
        self.faults: list[int] = []
        self.registers = [0] * (1 << RESOLVE_BITS)
        spaces = [(1 << config.axi_addr_width) - 1, 1 << config.axi_addr_width, (1 << 64) - 1, 0]
        for region in range(REGIONS):
            for name in ("BASE", "LIMIT"):
                value = int(rng.integers((1 << config.axi_addr_width) - 1, dtype=np.uint64))
                self.write(
                    f"{name}{region}", spaces[rng.integers(4)] if rng.random() < 0.3 else value
                )
        for index in range(SCALARS):
            self.registers[REGISTERS[f"SCALAR{index}"].address >> 2] = int(rng.integers(1 << 32))
        self.registers[REGISTERS["PROGRAM_OFFSET"].address >> 2] = int(rng.integers(1 << 32))
        self.asked = self.room = 0
        bench.set("count", count)
        bench.models[:] = [self]

    def write(self, name: str, value: int) -> None:
        for half in range(2):
            address = REGISTERS[f"{name}_{('LO', 'HI')[half]}"].address
            self.registers[address >> 2] = value >> 32 * half & 0xFFFF_FFFF

    def read(self, name: str) -> int:
        low, high = (REGISTERS[f"{name}_{half}"].address >> 2 for half in ("LO", "HI"))
        return self.registers[low] | self.registers[high] << 32

    def before(self) -> None:
        bench = self.bench
        if self.queue:
            index, raw = self.queue[0]
            bench.set("index", index)
            bench.set("command", raw)
            bench.set("last_command", int(index == self.count - 1))
        bench.set("command_valid", int(bool(self.queue)))
        self.room = int(bench.rng.integers(16)) if bench.rng.random() < self.pause else 15
        bench.set("room", self.room)
        bench.set("value", self.registers[self.asked])

    def after(self) -> None:
        get = self.bench.get
        self.asked = get("register")
        if self.queue and get("command_ready"):
            self.queue.popleft()
        if get("word_valid") or get("program_valid"):
            # What takes two registers comes twice, the second time whole. Of a limit nobody reads
            # the bits beyond the address space's end.
            number, word = get("number"), get("word")
            if number == LIMIT_HI:
                word &= (1 << self.bench.config.axi_addr_width - 31) - 1
            self.held[number] = word
        if get("commit"):
            unit = QUEUES[get("unit")]
            assert sorted(self.held) == list(range(max(self.held) + 1))
            self.routed.append((unit, [self.held[n] for n in range(len(self.held))]))
            self.held = {}
        if get("program_ready"):
            self.program, self.held = self.held, {}
        if get("fault") and not self.faults:
            self.held = {}
            self.faults.append(get("fault_code"))

    def place(self, region: int, offset: int) -> dict[int, int]:
        """Words of an address and its window."""
        width = self.bench.config.axi_addr_width
        base = self.read(f"BASE{region}")
        limit = min(self.read(f"LIMIT{region}"), 1 << width)
        address = base + offset
        return {
            ADDRESS_LO: address & 0xFFFF_FFFF,
            ADDRESS_HI: address >> 32 & 0xFFFF_FFFF,
            BASE_LO: base & 0xFFFF_FFFF,
            BASE_HI: base >> 32,
            LIMIT_LO: limit & 0xFFFF_FFFF,
            LIMIT_HI: limit >> 32 & (1 << width - 31) - 1,
            BEYOND_WORD: int(address >> width != 0) << BEYOND_BIT,
        }

    def resolved(self, raw: int, index: int) -> tuple[Unit, list[int]]:
        """What a command must become."""
        opcode = Opcode(raw & 0xFF)
        scalars = [self.registers[REGISTERS[f"SCALAR{i}"].address >> 2] for i in range(SCALARS)]
        layout = COMMAND_LAYOUTS[opcode]
        for name, field in layout.items():
            value = raw >> field.offset & 0xFFFF
            if field.kind == "count" and value & COUNT_SCALAR_FLAG:
                raw = _put(raw, opcode, name, scalars[value % SCALARS])
        words = [raw >> 32 * number & 0xFFFF_FFFF for number in range(WORDS)]
        words[:3] = [raw >> 8 & 0xFFFF_FFFF, raw >> 40 & 0xFFFF_FFFF, raw & 0xFF | index << 8]
        if opcode in (Opcode.LOAD, Opcode.STORE):
            f = {n: raw >> field.offset & (1 << field.width) - 1 for n, field in layout.items()}
            offset = f["offset"] + f["scalar_on"] * scalars[f["scalar"]]
            place = self.place(f["region"], offset)
            place[BEYOND_WORD] |= words[BEYOND_WORD] & ~(1 << BEYOND_BIT)
            for number, word in place.items():
                words[number] = word
        return UNIT_OF_OPCODE[opcode], words[: last_word(opcode) + 1]


@cocotb.test
async def front_end_routes(dut: Any) -> None:
    """Legal commands reach their queues in order and resolved, and the program its place."""
    bench = Bench(dut)
    await bench.start()
    rng, config = bench.rng, bench.config
    for pause in (0.0, 0.8):
        await bench.reset()
        body = [random_raw(bench, UNITS[rng.integers(len(UNITS))]) for _ in range(150)]
        # Small offsets stay in the address space.
        for index, raw in enumerate(body):
            opcode = Opcode(raw & 0xFF)
            if opcode in (Opcode.LOAD, Opcode.STORE) and rng.random() < 0.7:
                offset = raw >> COMMAND_LAYOUTS[opcode]["offset"].offset
                bits = int(rng.integers(1, config.axi_addr_width + 1))
                body[index] = _put(raw, opcode, "offset", offset & (1 << bits) - 1)
        program = [_begin(len(body) + 2, manifest_hash(config)), *body, int(Opcode.END)]
        model = _FrontEnd(bench, [], count=len(program), pause=pause)
        await bench.tick(start=1)
        await bench.tick(start=0)
        while model.program is None:
            assert bench.cycle < 20
            await bench.tick()
        offset = model.registers[REGISTERS["PROGRAM_OFFSET"].address >> 2]
        assert model.program == model.place(0, offset)
        model.queue.extend(enumerate(program))
        await bench.until(lambda: bench.get("ended"), 40_000, "ended")
        if not pause:
            cycles = sum(resolve_cycles(Opcode(raw & 0xFF)) + 4 for raw in program)
            assert bench.cycle <= cycles + 20
        for _ in range(10):
            await bench.tick()
        assert bench.get("ended")
        assert bench.get("begun")
        want = [model.resolved(raw, index + 1) for index, raw in enumerate(body)]
        for got, expected in zip(model.routed, want, strict=True):
            assert got == expected
        assert not model.faults


@cocotb.test
async def front_end_faults(dut: Any) -> None:
    """Each fault before those that come later in the order; nothing passes behind it."""
    bench = Bench(dut)
    await bench.start()
    config, rng = bench.config, bench.rng
    digest = manifest_hash(config)
    vector = random_raw(bench, Opcode.VECTOR)
    beyond = _put(vector, Opcode.VECTOR, "stat", config.stat_rows)
    both = _put(_put(vector, Opcode.VECTOR, "bias", 1), Opcode.VECTOR, "post", Post.AFFINE)
    lacking = _put(vector, Opcode.VECTOR, "function", 2)
    enum = _put(beyond, Opcode.VECTOR, "function", 6)
    load = random_raw(bench, Opcode.LOAD)
    illegal_x = _put(random_raw(bench, Opcode.MATMUL), Opcode.MATMUL, "mode", 5)
    begin, end = _begin(9, digest), int(Opcode.END)
    cases: list[tuple[str, int, int, int, Fault]] = [
        ("opcode before all", 0, beyond & ~0xFF | 0x32, 9, Fault.ILLEGAL_OPCODE),
        ("opcode 0", 3, 0, 9, Fault.ILLEGAL_OPCODE),
        ("opcode 255", 3, load | 0xFF, 9, Fault.ILLEGAL_OPCODE),
        ("enumeration before its place", 0, enum, 9, Fault.ILLEGAL_FIELD),
        ("enumeration", 3, illegal_x, 9, Fault.ILLEGAL_FIELD),
        ("place before address", 0, beyond, 9, Fault.PROGRAM_LENGTH),
        ("no BEGIN", 0, load, 9, Fault.PROGRAM_LENGTH),
        ("BEGIN in the midst, before hash", 4, _begin(8, 1), 9, Fault.PROGRAM_LENGTH),
        ("END too early", 4, end, 9, Fault.PROGRAM_LENGTH),
        ("no END", 8, load, 9, Fault.PROGRAM_LENGTH),
        ("END at once", 0, end, 1, Fault.PROGRAM_LENGTH),
        ("BEGIN alone", 0, begin, 1, Fault.PROGRAM_LENGTH),
        ("hash before count", 0, _begin(8, digest ^ 1 << 63), 9, Fault.HASH_MISMATCH),
        ("hash", 0, _begin(9, digest ^ 1), 9, Fault.HASH_MISMATCH),
        ("count", 0, _begin(8, digest), 9, Fault.PROGRAM_LENGTH),
        ("address", 4, beyond, 9, Fault.ILLEGAL_FIELD),
        ("bias with AFFINE", 4, both, 9, Fault.ILLEGAL_FIELD),
        ("a function the lanes lack", 4, lacking, 9, Fault.ILLEGAL_FIELD),
    ]
    for opcode in UNITS:
        for name, field in COMMAND_LAYOUTS[opcode].items():
            bound = {
                "sp": config.sp_words,
                "acc": config.acc_words,
                "scale": config.scale_rows,
                "stat": config.stat_rows,
            }.get(field.kind)
            if bound is not None:
                raw = _put(random_raw(bench, opcode), opcode, name, bound)
                cases.append((f"{opcode.name} {name}", 5, raw, 9, Fault.ILLEGAL_FIELD))
            if field.values is not None and max(field.values) + 1 < 1 << field.width:
                raw = _put(random_raw(bench, opcode), opcode, name, max(field.values) + 1)
                cases.append((f"{opcode.name} {name}", 5, raw, 9, Fault.ILLEGAL_FIELD))
    for what, index, raw, count, code in cases:
        await bench.reset()
        before = [_begin(count, digest), *[load] * 8][:index]
        model = _FrontEnd(bench, [*before, raw, load, load], count=count, pause=0.0)
        for _ in range(24 * index + 60):
            await bench.tick()
        assert model.faults == [int(code)], f"{what}: {model.faults}, expected {code.name}"
        assert model.queue[0] == (index, raw), what
        assert len(model.routed) == max(0, index - 1), what
        assert len(model.queue) == 3, f"{what}: commands are taken behind the fault"
        assert not bench.get("ended")
    # Any bits: what the decoder of the assembler says, it says too.
    for _ in range(bench.values["count"]):
        await bench.reset()
        raw = random_raw(bench, UNITS[rng.integers(len(UNITS))])
        for _ in range(int(rng.integers(3))):
            raw ^= 1 << int(rng.integers(96, 512))
        try:
            command = decode(raw.to_bytes(COMMAND_BYTES, "little"))
            want = [] if illegal_field(command, config) is None else [int(Fault.ILLEGAL_FIELD)]
        except DecodeError as error:
            want = [int(error.fault)]
        model = _FrontEnd(bench, [begin, raw], count=9, pause=0.0)
        for _ in range(40):
            await bench.tick()
        assert model.faults == want, f"{raw:0128x}"
        assert len(model.routed) == (not want)


class _Queued:
    """A command on its way through the queues."""

    def __init__(self, index: int, unit: Unit, waits: list[int], posts: list[int]) -> None:
        self.index, self.unit, self.waits, self.posts = index, unit, waits, posts
        self.words: list[int] = []

    @staticmethod
    def slots(slots: list[int]) -> int:
        return sum(slot << 8 * place for place, slot in enumerate(slots))


class _Units:
    """Front end and units around the queues; all as slow as chance has it."""

    def __init__(self, bench: Bench, commands: list[_Queued], speed: dict[str, float]) -> None:
        self.bench, self.speed = bench, speed
        self.queue = deque(commands)
        self.number = 0
        self.next: dict[Unit, deque[_Queued]] = {unit: deque() for unit in QUEUES}
        self.running: dict[Unit, deque[_Queued]] = {unit: deque() for unit in QUEUES}
        self.held: dict[Unit, deque[_Queued]] = {unit: deque() for unit in QUEUES}
        self.registers: dict[Unit, dict[int, int]] = {unit: {} for unit in QUEUES}
        self.tokens = [0] * SEMAPHORES
        self.taken = self.retired = 0
        self.halted = False
        self.ready = self.done = 0
        self.room = 0
        self.sends = self.commits = False
        bench.models[:] = [self]

    def before(self) -> None:
        bench, rng, speed = self.bench, self.bench.rng, self.speed
        # What room there is behind a commit is known a cycle later.
        fresh = self.number == 0 and self.commits
        roomy = self.queue and (self.number > 0 or self.room >> self.queue[0].unit & 1)
        self.sends = bool(roomy) and not fresh and rng.random() < speed["words"]
        if self.sends:
            command = self.queue[0]
            bench.set("unit", QUEUES.index(command.unit))
            bench.set("number", self.number)
            bench.set("word", command.words[self.number])
            self.number += 1
        last = self.sends and self.number == len(self.queue[0].words)
        bench.set("word_valid", int(self.sends))
        bench.set("commit", int(last))
        self.commits = last
        if last:
            command = self.queue.popleft()
            self.next[command.unit].append(command)
            self.number = 0
        self.ready = sum(int(rng.random() < speed["unit"]) << place for place in range(4))
        self.done = sum(
            int(bool(self.running[unit]) and rng.random() < speed["done"]) << unit
            for unit in QUEUES
        )
        bench.set("command_ready", self.ready)
        bench.set("done", self.done)
        bench.set("halt", int(self.halted))

    def after(self) -> None:
        get = self.bench.get
        bus, number = get("bus_unit"), get("bus_number")
        assert bus & bus - 1 == 0
        valid = get("command_valid")
        assert not (self.halted and valid)
        for unit in QUEUES:
            if self.done >> unit & 1:
                for slot in self.running[unit].popleft().posts:
                    self.tokens[slot & 15] += slot >> 4
            if valid & self.ready & 1 << unit:
                command = self.next[unit].popleft()
                for slot in command.waits:
                    self.tokens[slot & 15] -= slot >> 4
                    assert self.tokens[slot & 15] >= 0, f"command {command.index} is early"
                register = self.registers[unit]
                for at in range(IDENTITY, LAST_WORDS[unit] + 1):
                    assert register[at] == command.words[at], f"word {at} of {command.index}"
                self.running[unit].append(command)
                self.held[unit].append(command)
                self.taken += 1
            if bus >> unit & 1:
                assert not valid >> unit & 1, "a word for a register that is offered"
                self.registers[unit][number] = get("bus_word")
            if get("retired") >> unit & 1:
                assert len(self.held[unit]) > len(self.running[unit]), "retired before it is done"
                self.held[unit].popleft()
                self.retired += 1
        self.room = get("room")


def _balanced(bench: Bench, count: int) -> list[_Queued]:
    """Commands in a legal serial order; each semaphore has one unit that waits."""
    rng = bench.rng
    there = [0] * SEMAPHORES
    commands = []
    for index in range(count):
        unit = QUEUES[rng.integers(len(QUEUES))]
        waits, posts = [], []
        for number in rng.permutation(4)[: int(rng.integers(5))]:
            semaphore = 4 * unit + int(number)
            amount = min(int(rng.integers(1, 16)), there[semaphore])
            if amount:
                there[semaphore] -= amount
                waits.append(amount << 4 | semaphore)
        for semaphore in rng.permutation(SEMAPHORES)[: int(rng.integers(5))]:
            amount = int(rng.integers(1, 16))
            if there[semaphore] + amount <= TOKEN_MAX // 4:
                there[semaphore] += amount
                posts.append(amount << 4 | int(semaphore))
        commands.append(_Queued(index, unit, waits, posts))
    for command in commands:
        words = [_Queued.slots(command.waits), _Queued.slots(command.posts)]
        words.append(int(rng.integers(256)) | command.index << 8)
        while len(words) <= LAST_WORDS[command.unit]:
            words.append(int(rng.integers(1 << 32)))
        command.words = words
    return commands


@cocotb.test
async def issue(dut: Any) -> None:
    """Tokens, order, words, posts; units and words slow and fast; halt; full queues."""
    bench = Bench(dut)
    await bench.start()
    rng, count = bench.rng, bench.values["count"]
    for words, unit, done in ((1, 1, 1), (1, 0.1, 0.5), (1, 1, 0.02), (0.3, 0.5, 0.2)):
        await bench.reset()
        model = _Units(bench, _balanced(bench, count), {"words": words, "unit": unit, "done": done})
        while model.retired < count:
            model.halted = words < 1 and rng.random() < 0.2
            await bench.tick()
        await bench.tick()
        assert bench.get("empty")
        assert not bench.get("fault")
    # A unit that takes nothing: its queue fills, and the others'.
    await bench.reset()
    model = _Units(bench, _balanced(bench, 200), {"words": 1.0, "unit": 0.0, "done": 0.0})
    for _ in range(4000):
        await bench.tick()
    held = max(len(queue) for queue in model.next.values())
    assert bench.config.queue_depth <= held == bench.config.queue_places - 1


@cocotb.test
async def issue_faults(dut: Any) -> None:
    """Too many tokens; a watchdog while a unit works, while one waits, while nobody does."""
    bench = Bench(dut)
    await bench.start()

    def command(index: int, unit: Unit, waits: list[int], posts: list[int]) -> _Queued:
        one = _Queued(index, unit, waits, posts)
        one.words = [one.slots(waits), one.slots(posts), index << 8]
        one.words += [0] * (LAST_WORDS[unit] - IDENTITY)
        return one

    async def outcome(commands: list[_Queued], done: float, bites: int) -> tuple[int, int, int]:
        await bench.reset()
        _Units(bench, commands, {"words": 1.0, "unit": 1.0, "done": done})
        for _ in range(300):
            await bench.tick(completed=7, bites=0)
        if bites:
            assert not bench.get("fault")
            for _ in range(8):
                await bench.tick(bites=1)
        assert bench.get("fault")
        return bench.get("fault_code"), bench.get("fault_unit"), bench.get("fault_index")

    post, wait = [0xF3], [0x13]
    for count, faults in ((4, 0), (5, 1)):
        commands = [command(20 + n, Unit.STORE, [], post) for n in range(count)]
        commands.append(command(30, Unit.LOAD, wait if faults else [0xF4], []))
        code, unit, index = await outcome(commands, 0.5, not faults)
        if faults:
            assert (code, unit, index) == (Fault.TOKEN_OVERFLOW, Unit.STORE, 24)
        else:
            assert (code, unit, index) == (Fault.WATCHDOG, Unit.LOAD, 30)
    works = [command(5, Unit.VECTOR, [], []), command(6, Unit.LOAD, wait, [])]
    assert await outcome(works, 0.0, 1) == (Fault.WATCHDOG, Unit.VECTOR, 5)
    assert await outcome([], 0.0, 1) == (Fault.WATCHDOG, Unit.FETCH, 7)


async def _fill(bench: Bench, words: list[int]) -> None:
    """Words in any order, with others of no concern between them."""
    for number in bench.rng.permutation(range(IDENTITY, len(words))):
        await bench.tick(valid=1, number=int(number), word=words[number])
        noise = int(bench.rng.integers(1 << 32))
        await bench.tick(valid=0, number=int(bench.rng.integers(WORDS)), word=noise)


@cocotb.test
async def command_holder(dut: Any) -> None:
    """Fields of a command, whole and in their places."""
    bench = Bench(dut)
    await bench.start()
    opcodes = [Opcode(code) for code in bench.values["opcodes"]]
    for _ in range(bench.values["count"]):
        opcode = opcodes[bench.rng.integers(len(opcodes))]
        raw = random_raw(bench, opcode)
        words = [raw >> 32 * number & 0xFFFF_FFFF for number in range(WORDS)]
        words[IDENTITY] = opcode | int(bench.rng.integers(1 << 24)) << 8
        await _fill(bench, words)
        assert bench.get("is_last") == int(opcode == opcodes[-1])
        fields = {
            name: raw >> field.offset & (1 << field.width) - 1
            for name, field in COMMAND_LAYOUTS[opcode].items()
        }
        assert bench.get(opcode.name.lower()) == pack_command(opcode, fields)


@cocotb.test
async def transfer_holder(dut: Any) -> None:
    """Fields of a transfer, its address and its window."""
    bench = Bench(dut)
    await bench.start()
    layout: dict[str, list[int]] = bench.values["transfer"]
    for _ in range(bench.values["count"]):
        words = [int(word) for word in bench.rng.integers(1 << 32, size=WORDS)]
        raw = sum(word << 32 * number for number, word in enumerate(words))
        await _fill(bench, words)
        want = {
            "address": words[ADDRESS_LO] | words[ADDRESS_HI] << 32,
            "base": words[BASE_LO] | words[BASE_HI] << 32,
            "limit": words[LIMIT_LO] | words[LIMIT_HI] << 32,
            "overflow": words[BEYOND_WORD] >> BEYOND_BIT & 1,
            "index": words[IDENTITY] >> 8,
        }
        got = bench.get("transfer")
        for name, (at, bits) in layout.items():
            field = COMMAND_LAYOUTS[Opcode.LOAD].get(name)
            value = raw >> field.offset if name not in want and field else want[name]
            assert got >> at & (1 << bits) - 1 == value & (1 << bits) - 1, name


class _Pulses:
    """Counts pulses, and drives the counters' flags at random."""

    NAMES = ("start", "soft_reset", "irq_clear")

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.counts = dict.fromkeys(self.NAMES, 0)
        self.counters = {unit: dict.fromkeys(reasons, 0) for unit, reasons in COUNTERS.items()}
        self.cycles = 0
        self.run = 0.0
        self.now = (0, 0)
        bench.models[:] = [self]

    def before(self) -> None:
        rng = self.bench.rng
        if self.run:
            self.now = (
                int(rng.random() < self.run),
                int(rng.integers(1 << 22) & rng.integers(1 << 22)),
            )
        else:
            self.now = 0, self.now[1]
        self.bench.set("run", self.now[0])
        self.bench.set("flags", self.now[1])

    def after(self) -> None:
        for name in self.NAMES:
            self.counts[name] += self.bench.get(name)
        run, flags = self.now
        self.cycles += run
        for unit, reasons in COUNTERS.items():
            active = [r for i, r in enumerate(reasons[:-1]) if flags >> i & 1]
            flags >>= len(reasons)
            self.counters[unit][active[0] if active else reasons[-1]] += run


async def _ticking(bench: Bench) -> None:
    while True:
        await bench.tick()


@cocotb.test
async def registers(dut: Any) -> None:
    """Every register over AXI4-Lite; strobes; either order of address and data; the counters."""
    bench = Bench(dut)
    rng, config = bench.rng, bench.config
    await bench.start()
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
    model = _Pulses(bench)
    ticking = cocotb.start_soon(_ticking(bench))
    write_if, read_if = master.write_if, master.read_if

    def pauses(probability: float) -> Any:
        while True:
            yield rng.random() < probability

    error = AxiResp.SLVERR if config.register_errors else AxiResp.OKAY
    stored = dict.fromkeys((n for n, r in REGISTERS.items() if r.access == "rw"), 0)

    async def read(name: str) -> int:
        response = await master.read(REGISTERS[name].address, 4)
        assert response.resp == 0
        return int.from_bytes(response.data, "little")

    async def write(name: str, first: int, data: bytes) -> None:
        address = REGISTERS[name].address
        response = await master.write(address + first, data)
        assert response.resp == (0 if address in WRITABLE else error)
        if name in stored:
            value = bytearray(stored[name].to_bytes(4, "little"))
            value[first : first + len(data)] = data
            stored[name] = int.from_bytes(value, "little")

    status = {"STATUS": 4, "FAULT_INDEX": 32, "COMMANDS": 32}
    # Address first, data first, both; answers waited for or not.
    for aw, w, b in ((0.0, 0.0, 0.0), (0.8, 0.0, 0.5), (0.0, 0.8, 0.0), (0.6, 0.6, 0.6)):
        for channel, pause in (
            (write_if.aw_channel, aw),
            (write_if.w_channel, w),
            (write_if.b_channel, b),
            (read_if.ar_channel, aw),
            (read_if.r_channel, b),
        ):
            channel.set_pause_generator(pauses(pause))
        for name in REGISTERS:
            if name == "CONTROL":
                continue
            if rng.random() < 0.7:
                first = int(rng.integers(4))
                await write(name, first, rng.bytes(int(rng.integers(1, 5 - first))))
        for name in rng.permutation(list(stored)):
            assert await read(str(name)) == stored[str(name)], name
        for name, bits in status.items():
            value = int(rng.integers(1 << bits))
            bench.set(name.lower(), value)
            assert await read(name) == value, name
        assert bench.get("program_count") == stored["PROGRAM_COUNT"]
        assert bench.get("watchdog") == stored["WATCHDOG"]
        assert bench.get("irq_enable") == stored["IRQ_ENABLE"] & 1
        for name in stored:
            bench.set("resolve", REGISTERS[name].address >> 2)
            for _ in range(3):
                await RisingEdge(dut.clk)
            assert bench.get("resolved") == stored[name], name
    # During a run some are constant.
    bench.set("busy", 1)
    for name in stored:
        held = stored[name]
        response = await master.write(REGISTERS[name].address, rng.bytes(4))
        assert response.resp == (error if REGISTERS[name].constant else 0)
        if REGISTERS[name].constant:
            assert await read(name) == held
        else:
            stored[name] = await read(name)
            assert stored[name] != held
    bench.set("busy", 0)
    assert await read("ID") == IDENTIFICATION
    number = manifest_hash(config)
    assert await read("HASH_LO") == number & 0xFFFFFFFF
    assert await read("HASH_HI") == number >> 32
    assert await read("ARRAY") == config.rows | config.columns << 8 | config.lanes << 16
    bench.set("fault_code", 11)
    bench.set("fault_unit", 4)
    bench.set("fault_address", 0xFEDC_BA98_7654_3210)
    assert await read("FAULT_CODE") == 4 << 8 | 11
    assert await read("FAULT_ADDRESS_LO") == 0x7654_3210
    assert await read("FAULT_ADDRESS_HI") == 0xFEDC_BA98
    # Unused addresses and read-only registers answer, and hold nothing that is written.
    for address in (0x014, 0x05C, 0xFFC, 0x1F0, *READABLE - WRITABLE):
        before = await master.read(address, 4)
        assert before.resp == (0 if address in READABLE else error)
        assert address in READABLE or before.data == b"\0\0\0\0"
        for first, length in ((0, 4), (3, 1)):
            assert (await master.write(address + first, b"\xff" * length)).resp == error
            assert (await master.read(address, 4)).data == before.data
    # An answer is that to its own access.
    assert (await master.write(REGISTERS["SCALAR0"].address, b"\0")).resp == 0
    stored["SCALAR0"] &= 0xFFFF_FF00
    # CONTROL: one pulse a bit written as one, none without the strobe; reads as 0.
    assert not any(model.counts.values())
    for value, names in (
        (1, {"start"}),
        (2, {"soft_reset"}),
        (4, {"irq_clear"}),
        (7, set(model.NAMES)),
    ):
        before = dict(model.counts)
        await write("CONTROL", 0, bytes([value]))
        for _ in range(4):
            await RisingEdge(dut.clk)
        pulsed = {name: model.counts[name] - before[name] for name in model.NAMES}
        assert pulsed == {name: int(name in names) for name in model.NAMES}
    before = dict(model.counts)
    await write("CONTROL", 1, b"\xff\xff\xff")
    for _ in range(4):
        await RisingEdge(dut.clk)
    assert model.counts == before
    assert await read("CONTROL") == 0
    # Counters: a reason a unit and cycle, together the cycles of the run.
    model.run = 0.7
    # One that is read meanwhile is as it was in one of the cycles between question and answer.
    for _ in range(15):
        before = model.cycles
        assert before <= await read("CYCLES_LO") <= model.cycles
        before = model.counters["load"]["idle"]
        assert before <= await read("COUNT_LOAD_IDLE_LO") <= model.counters["load"]["idle"]
    model.run = 0.0
    for _ in range(3):
        await RisingEdge(dut.clk)
    cycles = await read("CYCLES_LO")
    assert cycles == model.cycles > 200
    assert await read("CYCLES_HI") == 0
    for unit, reasons in COUNTERS.items():
        found = {}
        for reason in reasons:
            found[reason] = await read(f"COUNT_{unit}_{reason}_LO".upper())
            assert await read(f"COUNT_{unit}_{reason}_HI".upper()) == 0
        assert found == model.counters[unit]
        assert sum(found.values()) == cycles
        assert all(found.values())
    bench.set("clear", 1)
    for _ in range(3):
        await RisingEdge(dut.clk)
    bench.set("clear", 0)
    assert await read("CYCLES_LO") == 0
    assert await read("COUNT_LOAD_IDLE_LO") == 0
    ticking.cancel()
