"""Testbenches of decoder, dispatcher, semaphores, transfer unit, registers with counters.

Parameters: `config`; `opcodes`, of the dispatcher; `transfer`, fields of a transfer as
[offset, width]; `in_flight`, how many commands a dispatcher has in its unit at most; `count`.
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
    POST_SLOTS,
    REGIONS,
    SCALARS,
    SEMAPHORES,
    TOKEN_MAX,
    UNIT_OF_OPCODE,
    WAIT_SLOTS,
    Fault,
    Opcode,
    Post,
    Unit,
)
from tilewright.hw.encoding import DecodeError, decode, illegal_field
from tilewright.hw.manifest import manifest_hash
from tilewright.hw.registers import COUNTERS, IDENTIFICATION, READABLE, REGISTERS, WRITABLE
from tilewright.sim.testbenches.units.cell import Bench, pack, pack_command, unpack

QUEUES = (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)
HASH = 0x0123_4567_89AB_CDEF


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


def _begin(count: int, number: int = HASH) -> int:
    raw = _put(int(Opcode.BEGIN), Opcode.BEGIN, "hash", number)
    return _put(raw, Opcode.BEGIN, "commands", count)


UNITS = tuple(op for op in Opcode if op not in (Opcode.BEGIN, Opcode.END))


class _Decoder:
    """Commands in, routed commands out."""

    def __init__(self, bench: Bench, commands: list[int], *, pause: float) -> None:
        self.bench, self.pause = bench, pause
        self.queue = deque(enumerate(commands))
        self.routed: list[tuple[Unit, int, int]] = []
        self.faults: list[int] = []
        bench.models[:] = [self]

    def before(self) -> None:
        bench = self.bench
        if self.queue:
            bench.set("index", self.queue[0][0])
            bench.set("command", self.queue[0][1])
        bench.set("command_valid", int(bool(self.queue)))
        self.ready = int(bench.rng.integers(16)) if bench.rng.random() < self.pause else 15
        bench.set("unit_ready", self.ready)

    def after(self) -> None:
        get = self.bench.get
        if self.queue and get("command_ready"):
            self.queue.popleft()
        valid = get("unit_valid")
        assert valid & valid - 1 == 0, f"unit_valid is {valid:b}"
        if valid & self.ready:
            unit = QUEUES[valid.bit_length() - 1]
            self.routed.append((unit, get("raw_index"), get("raw")))
        if get("fault"):
            self.faults.append(get("fault_code"))


@cocotb.test
async def decoder_routes(dut: Any) -> None:
    """Legal commands reach their queues in order, behind queues that are full at times."""
    bench = Bench(dut)
    await bench.start()
    rng = bench.rng
    for pause in (0.0, 0.8):
        await bench.reset()
        body = [random_raw(bench, UNITS[rng.integers(len(UNITS))]) for _ in range(150)]
        program = [_begin(len(body) + 2), *body, int(Opcode.END)]
        bench.set("hash", HASH)
        bench.set("count", len(program))
        decoder = _Decoder(bench, program, pause=pause)
        await bench.until(lambda: bench.get("ended"), 20_000, "ended")
        if not pause:
            assert bench.cycle <= 2 * len(program) + 4, "one command every other cycle"
        for _ in range(10):
            await bench.tick()
        assert bench.get("ended")
        want = [
            (UNIT_OF_OPCODE[Opcode(raw & 0xFF)], index + 1, raw) for index, raw in enumerate(body)
        ]
        assert decoder.routed == want
        assert not decoder.faults


@cocotb.test
async def decoder_faults(dut: Any) -> None:
    """Each fault before those that come later in the order; nothing passes behind it."""
    bench = Bench(dut)
    await bench.start()
    config, rng = bench.config, bench.rng
    vector = random_raw(bench, Opcode.VECTOR)
    beyond = _put(vector, Opcode.VECTOR, "stat", config.stat_rows)
    both = _put(_put(vector, Opcode.VECTOR, "bias", 1), Opcode.VECTOR, "post", Post.AFFINE)
    lacking = _put(vector, Opcode.VECTOR, "function", 2)
    enum = _put(beyond, Opcode.VECTOR, "function", 6)
    load = random_raw(bench, Opcode.LOAD)
    illegal_x = _put(random_raw(bench, Opcode.MATMUL), Opcode.MATMUL, "mode", 5)
    begin, end = _begin(9), int(Opcode.END)
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
        ("hash before count", 0, _begin(8, HASH ^ 1 << 63), 9, Fault.HASH_MISMATCH),
        ("hash", 0, _begin(9, HASH ^ 1), 9, Fault.HASH_MISMATCH),
        ("count", 0, _begin(8), 9, Fault.PROGRAM_LENGTH),
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
        bench.set("hash", HASH)
        bench.set("count", count)
        before = [_begin(count), *[load] * 8][:index]
        decoder = _Decoder(bench, [*before, raw, load, load], pause=0.0)
        for _ in range(2 * index + 12):
            await bench.tick()
        assert decoder.faults == [int(code)], f"{what}: {decoder.faults}, expected {code.name}"
        assert bench.get("raw_index") == index, what
        assert len(decoder.routed) == max(0, index - 1), what
        assert len(decoder.queue) == 2, f"{what}: commands are taken behind the fault"
        assert not bench.get("ended")
    # Any bits: what the decoder of the assembler says, it says too.
    for _ in range(bench.values["count"]):
        await bench.reset()
        bench.set("hash", HASH)
        bench.set("count", 9)
        raw = random_raw(bench, UNITS[rng.integers(len(UNITS))])
        for _ in range(int(rng.integers(3))):
            raw ^= 1 << int(rng.integers(96, 512))
        try:
            command = decode(raw.to_bytes(COMMAND_BYTES, "little"))
            want = [] if illegal_field(command, config) is None else [int(Fault.ILLEGAL_FIELD)]
        except DecodeError as error:
            want = [int(error.fault)]
        decoder = _Decoder(bench, [_begin(9), raw], pause=0.0)
        for _ in range(8):
            await bench.tick()
        assert decoder.faults == want, f"{raw:0128x}"
        assert len(decoder.routed) == (not want)


class _Unit:
    """Decoder, semaphores and unit around a dispatcher; all as slow as chance has it."""

    def __init__(self, bench: Bench, commands: list[int], speed: dict[str, float]) -> None:
        self.bench, self.speed = bench, speed
        self.opcodes = [Opcode(op) for op in bench.values["opcodes"]]
        self.queue = deque(enumerate(commands, start=7))
        self.scalars = bench.rng.integers(0, 1 << 32, SCALARS)
        bench.set("scalars", pack(self.scalars, 32))
        self.waits: deque[tuple[int, int]] = deque()
        self.starts: deque[tuple[int, int]] = deque()
        self.posts: deque[tuple[int, int]] = deque()
        self.running: deque[int] = deque()  # in the unit, not done
        self.held: deque[int] = deque()  # in the unit, posts not out
        self.taken = self.retired = 0
        self.takes: deque[int] = deque()
        self.halted = False
        self.met = self.ready = self.done = False
        bench.models[:] = [self]

    def before(self) -> None:
        bench = self.bench
        rng = bench.rng
        if self.queue:
            index, raw = self.queue[0]
            bench.set("raw", raw)
            bench.set("raw_index", index)
        bench.set("raw_valid", int(bool(self.queue)))
        self.met = rng.random() < self.speed["tokens"]
        self.ready = rng.random() < self.speed["unit"]
        self.done = bool(self.running) and rng.random() < self.speed["done"]
        bench.set("wait_met", int(self.met))
        bench.set("command_ready", int(self.ready))
        bench.set("done", int(self.done))
        bench.set("halt", int(self.halted))

    def after(self) -> None:
        get = self.bench.get
        take, valid = get("take"), get("command_valid")
        assert not (self.halted and (take or valid))
        if take:
            assert self.met
            slot = get("wait_semaphore"), get("wait_count")
            want = self.waits.popleft()
            assert slot == want or slot[1] == want[1] == 0, f"takes {slot}, expected {want}"
            self.takes[0] -= 1
        if valid:
            # All its waits, and no other's, have been met.
            assert self.takes[0] == 0, "released before its tokens are there"
        if valid and self.ready:
            index, raw = self.starts.popleft()
            self.takes.popleft()
            assert get("index") == index
            self._check(raw)
            self.running.append(index)
            self.held.append(index)
            assert len(self.held) <= self.bench.values["in_flight"]
        if self.done:
            self.running.popleft()
        if get("post"):
            slot = get("post_semaphore"), get("post_count")
            while self.posts[0][1] == 0:
                self.posts.popleft()
            assert slot == self.posts.popleft()
        if get("holds"):
            assert get("oldest_index") == self.held[0]
        if get("retired"):
            assert len(self.held) > len(self.running), "retired before it is done"
            self.held.popleft()
            self.retired += 1
        if self.queue and get("raw_ready"):
            index, raw = self.queue.popleft()
            self.taken += 1
            slots = raw >> 8
            self.waits.extend(
                (slots >> 8 * i & 15, slots >> 8 * i + 4 & 15) for i in range(WAIT_SLOTS)
            )
            slots >>= 8 * WAIT_SLOTS
            self.posts.extend(
                (slots >> 8 * i & 15, slots >> 8 * i + 4 & 15) for i in range(POST_SLOTS)
            )
            self.starts.append((index, raw))
            self.takes.append(WAIT_SLOTS)

    def _check(self, raw: int) -> None:
        opcode = Opcode(raw & 0xFF)
        assert self.bench.get("is_second") == int(opcode == self.opcodes[-1])
        fields = {}
        for name, field in COMMAND_LAYOUTS[opcode].items():
            value = raw >> field.offset & ((1 << field.width) - 1)
            if field.kind == "count" and value & COUNT_SCALAR_FLAG:
                value = int(self.scalars[value % SCALARS]) & 0xFFFF
            fields[name] = value
        want = pack_command(opcode, fields)
        bits = sum(field.width for field in COMMAND_LAYOUTS[opcode].values())
        got = self.bench.get("command") & ((1 << bits) - 1)
        assert got == want, f"{opcode.name}: {got:x}, expected {want:x}"


@cocotb.test
async def dispatcher(dut: Any) -> None:
    """Tokens, scalars, order, posts; units and tokens slow and fast; halt."""
    bench = Bench(dut)
    await bench.start()
    rng = bench.rng
    opcodes = [Opcode(op) for op in bench.values["opcodes"]]
    for tokens, unit, done in (
        (1, 1, 1),
        (0.2, 1, 1),
        (1, 0.2, 0.5),
        (1, 1, 0.03),
        (0.5, 0.5, 0.5),
    ):
        count = bench.values["count"]
        raws = [random_raw(bench, opcodes[rng.integers(len(opcodes))]) for _ in range(count)]
        # Slots of no tokens are the usual case.
        raws = [raw & ~(0xF0F0 << 8 * int(rng.integers(1, 8))) for raw in raws]
        model = _Unit(bench, raws, {"tokens": tokens, "unit": unit, "done": done})
        while model.retired < count:
            model.halted = tokens == 0.5 and rng.random() < 0.2
            await bench.tick()
        for _ in range(4):
            await bench.tick()
        assert not any(slot[1] for slot in model.posts), "posts are missing"
        assert not bench.get("holds")
        assert model.retired == count
    # A unit that takes nothing: the queue fills, and holds what it says and the head.
    raws = [random_raw(bench, opcodes[0]) for _ in range(100)]
    model = _Unit(bench, raws, {"tokens": 0.0, "unit": 0.0, "done": 0.0})
    for _ in range(150):
        await bench.tick()
    assert bench.get("waiting")
    assert bench.config.queue_depth <= model.taken <= bench.config.queue_depth + 2


@cocotb.test
async def semaphores(dut: Any) -> None:
    """Takes and posts of all units at once; overflow; clear."""
    bench = Bench(dut)
    await bench.start()
    rng = bench.rng
    units = len(QUEUES)
    counters = [0] * SEMAPHORES
    overflows = 0
    posted: list[tuple[int, int, int]] = []  # of the cycle before: unit, semaphore, tokens
    taken: list[tuple[int, int]] = []  # of the cycle before: semaphore, tokens
    beyond = 0  # of the posts before those
    for n in range(2500):
        clear = int(rng.random() < 0.002)
        waits = [(int(rng.integers(SEMAPHORES)), int(rng.integers(16))) for _ in range(units)]
        # A semaphore has one waiting unit, and is not asked for twice in a row.
        waits = [(s % 2 * 2 + n % 2 + 4 * u, c) for u, (s, c) in enumerate(waits)]
        posts = [(int(rng.integers(SEMAPHORES)), int(rng.integers(16))) for _ in range(units)]
        post = int(rng.integers(16)) if n // 300 % 2 else int(rng.integers(16)) & n
        met = sum(int(counters[s] >= c) << u for u, (s, c) in enumerate(waits))
        take = met & int(rng.integers(16))
        await bench.tick(
            wait_semaphore=pack([s for s, _ in waits], 4),
            wait_count=pack([c for _, c in waits], 4),
            take=take,
            post=post,
            post_semaphore=pack([s for s, _ in posts], 4),
            post_count=pack([c for _, c in posts], 4),
            clear=clear,
        )
        assert bench.get("wait_met") == met, f"cycle {n}: {counters} {waits}"
        assert bench.get("overflow") == beyond, f"cycle {n}: {counters}"
        for number, amount in taken:
            counters[number] -= amount
        for _, number, amount in posted:
            counters[number] += amount
        beyond = sum(1 << unit for unit, number, _ in posted if counters[number] > TOKEN_MAX)
        overflows += bool(beyond)
        posted = [] if clear else [(u, *slot) for u, slot in enumerate(posts) if post >> u & 1]
        taken = [] if clear else [slot for u, slot in enumerate(waits) if take >> u & 1]
        counters = [0 if clear else min(c, TOKEN_MAX) for c in counters]
    assert overflows


@cocotb.test
async def transfer_unit(dut: Any) -> None:
    """Base, offset and scalar added; what leaves the address space is marked; limits clipped."""
    bench = Bench(dut)
    await bench.start()
    rng, config = bench.rng, bench.config
    width = config.axi_addr_width
    layout: dict[str, list[int]] = bench.values["transfer"]
    waiting: deque[dict[str, int]] = deque()
    passed = 0
    command: dict[str, int] = {}
    held = None
    top = (1 << 64) - 1
    spaces = [(1 << width) - 1, min(1 << width, top), top, 0]
    for _ in range(12):
        bases, limits = (
            [
                spaces[rng.integers(4)]
                if rng.random() < 0.3
                else int(rng.integers((1 << width) - 1, dtype=np.uint64))
                for _ in range(REGIONS)
            ]
            for _ in range(2)
        )
        scalars = [int(v) for v in rng.integers(0, 1 << 32, SCALARS)]
        bench.set("bases", sum(v << 64 * i for i, v in enumerate(bases)))
        bench.set("limits", sum(v << 64 * i for i, v in enumerate(limits)))
        bench.set("scalars", pack(scalars, 32))
        for n in range(80):
            valid, ready = n < 60 and rng.random() < 0.8, n > 60 or rng.random() < 0.6
            if valid and held is None:
                raw = random_raw(bench, Opcode.LOAD, scalars=False)
                command = {
                    name: raw >> field.offset & ((1 << field.width) - 1)
                    for name, field in COMMAND_LAYOUTS[Opcode.LOAD].items()
                }
                if rng.random() < 0.7:
                    command["offset"] &= (1 << int(rng.integers(1, width + 1))) - 1
                held = int(rng.integers(1 << 24))
            await bench.tick(
                command=pack_command(Opcode.LOAD, command),
                index=held or 0,
                command_valid=int(held is not None),
                transfer_ready=int(ready),
            )
            if bench.get("transfer_valid") and ready:
                word, want = bench.get("transfer"), waiting.popleft()
                got = {k: word >> at & ((1 << bits) - 1) for k, (at, bits) in layout.items()}
                assert got == {k: want[k] for k in layout}, f"{got}, expected {want}"
                passed += 1
            if held is not None and bench.get("command_ready"):
                region = command["region"]
                address = bases[region] + command["offset"]
                address += scalars[command["scalar"]] * command["scalar_on"]
                waiting.append(
                    {
                        **command,
                        "address": address % (1 << width),
                        "overflow": int(address >= 1 << width),
                        "base": bases[region] % (1 << layout["base"][1]),
                        "limit": min(limits[region], 1 << width),
                        "index": held,
                    }
                )
                held = None
        assert not waiting
    assert passed > 300


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
        assert bench.get("program_offset") == stored["PROGRAM_OFFSET"]
        assert bench.get("program_count") == stored["PROGRAM_COUNT"]
        assert bench.get("watchdog") == stored["WATCHDOG"]
        assert bench.get("irq_enable") == stored["IRQ_ENABLE"] & 1
        scalars = unpack(bench.get("scalars"), 32, SCALARS, signed=False)
        assert scalars.tolist() == [stored[f"SCALAR{i}"] for i in range(SCALARS)]
        for port in ("base", "limit"):
            words = unpack(bench.get(f"{port}s"), 32, 2 * REGIONS, signed=False).tolist()
            assert words == [
                stored[f"{port.upper()}{i}_{half}"] for i in range(REGIONS) for half in ("LO", "HI")
            ]
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
