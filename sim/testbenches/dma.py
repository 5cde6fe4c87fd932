"""Testbench of the DMA: transfers against a model of both memories, faults, and the soft reset.

Parameters (see `runner.parameters`): `config`, a configuration as a mapping; `layouts`, for each
port's payload its fields as [offset, width]; `scale`, how much to run; `seed`.
"""

import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from hw.commands import COMMAND_BYTES, Fault
from hw.config import Config
from hw.manifest import SP_READ_LATENCY
from sim.testbenches.axi_memory import AxiMemory, no_error
from sim.testbenches.runner import PARAMETERS, parameters

VALUES = parameters() if PARAMETERS in os.environ else {"config": {}, "layouts": {}}
CONFIG = Config.from_dict(VALUES["config"])
LAYOUTS: dict[str, dict[str, list[int]]] = VALUES["layouts"]
SCALE = VALUES.get("scale", 1)
SEED = VALUES.get("seed", 1)

D, W = CONFIG.axi_bytes, CONFIG.panel
SIZE = 1 << 16
ORIGIN = (1 << CONFIG.axi_addr_width) - SIZE
"""The memory ends where addresses do, so that wrapping shows."""
BEATS = min(1 << (CONFIG.axi_max_burst.bit_length() - 1), 4096 // D)

Run = dict[str, int]


def pack(layout: str, values: Run) -> int:
    """Return a payload as an integer."""
    word = 0
    for name, value in values.items():
        offset, width = LAYOUTS[layout][name]
        word |= (value & ((1 << width) - 1)) << offset
    return word


def unpack(layout: str, word: int) -> Run:
    """Return the fields of a payload."""
    return {
        name: word >> offset & ((1 << width) - 1)
        for name, (offset, width) in LAYOUTS[layout].items()
    }


def runs_of(t: Run) -> Iterator[tuple[int, int, int, int]]:
    """Address of each run, its first scratchpad word, and j, k."""
    if not t["length"]:
        return
    for k in range(t["planes"]):
        for j in range(t["runs"]):
            address = t["address"] + k * t["plane_stride"] + j * t["run_stride"]
            row = j >> 1 if t["half"] else j
            yield address, t["sp_addr"] + k * t["sp_plane"] + row * t["sp_run"], j, k


def chunks_of(t: Run, sp: int, j: int) -> Iterator[tuple[int, int, int]]:
    """(first byte of the run, bytes, byte address in the scratchpad) of each chunk."""
    size = W if t["half"] else 2 * W
    for c, at in enumerate(range(0, t["length"], size)):
        word = (sp + c * t["sp_chunk"]) % CONFIG.sp_words
        yield at, min(size, t["length"] - at), word * 2 * W + (W * (j & 1) if t["half"] else 0)


def bursts_of(address: int, length: int) -> Iterator[tuple[int, int]]:
    """(address, beats) of each burst of a run."""
    first, last = address // D, (address + length - 1) // D
    while first <= last:
        beats = min(last + 1, (first // BEATS + 1) * BEATS) - first
        yield first * D, beats
        first += beats


def outside(t: Run, address: int) -> bool:
    """Whether a run leaves its window or the address space."""
    end = address + t["length"]
    return address < t["base"] or end > t["limit"] or end > 1 << CONFIG.axi_addr_width


def model_load(t: Run, source: np.ndarray, pad: np.ndarray) -> None:
    """What a LOAD leaves in the scratchpad."""
    size = W if t["half"] else 2 * W
    for address, sp, j, _ in runs_of(t):
        for at, count, to in chunks_of(t, sp, j):
            start = address - ORIGIN + at
            pad[to : to + size] = 0
            pad[to : to + count] = source[start : start + count]


def model_store(t: Run, pad: np.ndarray, target: np.ndarray) -> None:
    """What a STORE leaves in memory."""
    for address, sp, j, _ in runs_of(t):
        for at, count, from_ in chunks_of(t, sp, j):
            start = address - ORIGIN + at
            target[start : start + count] = pad[from_ : from_ + count]


def random_transfer(rng: np.random.Generator, *, longest: int = 3000) -> Run:
    """A transfer that fits into the memory, in a window that fits it closely or not."""
    width = CONFIG.axi_addr_width
    while True:
        kind = int(rng.integers(8))
        length = int(rng.integers(1, 1 + int(rng.choice([4, 2 * D, 4 * W, 300, longest]))))
        runs, planes = int(rng.integers(1, 9)), int(rng.integers(1, 4))
        if kind == 0:
            length = max(1, length // (2 * W)) * 2 * W
        if kind == 1:
            runs = planes = 1
        if kind == 2:
            length = int(rng.choice([1, D, 2 * W, W, 2 * D]))
        if length * runs * planes > 8 * longest:
            continue
        run_stride = int(rng.integers(-2 * length - 64, 2 * length + 64))
        plane_stride = int(rng.integers(-4096, 4096))
        align = int(rng.choice([1, D, 2 * W, 4096]))
        if kind in (0, 3):
            run_stride -= run_stride % D
            plane_stride -= plane_stride % D
        corners = [
            k * plane_stride + j * run_stride for k in (0, planes - 1) for j in (0, runs - 1)
        ]
        low, high = min(corners), max(corners) + length
        if high - low > SIZE:
            continue
        start = int(rng.integers(0, SIZE - (high - low) + 1))
        if start >= (start - low) % align:
            start -= (start - low) % align
        if rng.random() < 0.1:
            start = SIZE - (high - low)
        t = {
            "address": ORIGIN + start - low,
            "overflow": 0,
            "base": ORIGIN + start,
            "limit": ORIGIN + start + high - low,
            "length": length,
            "runs": runs,
            "planes": planes,
            "run_stride": run_stride,
            "plane_stride": plane_stride,
            "half": int(rng.integers(2)),
            "sp_addr": int(rng.integers(CONFIG.sp_words)),
            "sp_chunk": int(rng.choice([1, 1, 2, 5, int(rng.integers(0, 1 << 16))])),
            "sp_run": int(rng.integers(0, 64)),
            "sp_plane": int(rng.integers(0, 1 << 16)),
            "index": int(rng.integers(1 << 32)),
        }
        if rng.random() < 0.5:
            # Not rng.choice: an array of these would be one of floats.
            t["base"] = (0, ORIGIN, t["base"] - 1)[rng.integers(3)]
            t["limit"] = (1 << width, t["limit"], min(t["limit"] + 1, 1 << width))[rng.integers(3)]
        if rng.random() < 0.08:
            t[str(rng.choice(["length", "runs", "planes"]))] = 0
            t["limit"] = (t["limit"], t["base"])[rng.integers(2)]
        return t


class Bench:
    """The DMA among its memories; everything happens in `tick`."""

    def __init__(self, dut: Any, rng: np.random.Generator, *, own_memory: bool = True) -> None:
        self.dut, self.rng = dut, rng
        self.ports: dict[str, Any] = {}
        self.driven: dict[str, int] = {}
        self.memory = AxiMemory(
            dut,
            origin=ORIGIN,
            size=SIZE,
            beat=D,
            limits=(BEATS, CONFIG.axi_outstanding),
            rng=rng,
        )
        self.own_memory = own_memory
        words = CONFIG.sp_words * 2 * W
        self.loaded = rng.integers(0, 256, words, dtype=np.uint8)
        self.stored = rng.integers(0, 256, words, dtype=np.uint8)
        self.queues: dict[str, deque[int]] = {"load": deque(), "store": deque(), "fetch": deque()}
        self.done = {"load": 0, "store": 0}
        self.done_cycle = {"load": 0, "store": 0}
        self.accepted = {"load": 0, "store": 0, "fetch": 0}
        self.accept_cycle = {"load": 0, "store": 0, "fetch": 0}
        self.commands: list[tuple[int, int]] = []
        self.port_pause = 0.0
        self.command_pause = 0.0
        self.activity = {
            name: {"busy": 0, "wait_memory": 0, "wait_port": 0} for name in ("load", "store")
        }
        self.reads: deque[int | None] = deque([None] * (SP_READ_LATENCY - 1))
        self.cycle = 0
        self.sp_offered: dict[str, int | None] = {"sp_write": None, "sp_read": None}
        self.strict = True

    def value(self, name: str) -> int:
        if name not in self.ports:
            self.ports[name] = getattr(self.dut, name)
        return int(self.ports[name].value)

    def drive(self, name: str, value: int) -> None:
        if self.driven.get(name) != value:
            self.driven[name] = value
            getattr(self.dut, name).value = value

    async def start(self) -> None:
        dut = self.dut
        for name in ("load", "store", "fetch"):
            self.drive(name + "__valid", 0)
            self.drive(name + "__payload", 0)
        for name in (
            "command__ready",
            "sp_write__ready",
            "sp_read__ready",
            "sp_read_data",
            "halt",
            "quiesce",
        ):
            self.drive(name, 0)
        dut.rst.value = 1
        for _ in range(3):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)

    async def tick(self) -> None:
        dut, rng = self.dut, self.rng
        await RisingEdge(dut.clk)
        self.cycle += 1
        if self.own_memory:
            self.memory.step()
        for name, queue in self.queues.items():
            valid, ready = self.value(name + "__valid"), self.value(name + "__ready")
            if valid and ready:
                self.accepted[name] += 1
                self.accept_cycle[name] = self.cycle
                queue.popleft()
                valid = 0
            if queue and not valid:
                self.drive(name + "__payload", queue[0])
            self.drive(name + "__valid", int(bool(queue)))
        for name in ("load", "store"):
            if self.value(name + "_done"):
                self.done[name] += 1
                self.done_cycle[name] = self.cycle
            flags = unpack("activity", self.value(name + "_activity"))
            assert sum(flags.values()) <= 1, flags
            for key, value in flags.items():
                self.activity[name][key] += value

        if self.value("command__valid") and self.value("command__ready"):
            command = unpack("command", self.value("command__payload"))
            self.commands.append((command["index"], command["data"]))
        self.drive("command__ready", int(rng.random() >= self.command_pause))

        valid, ready = self.value("sp_write__valid"), self.value("sp_write__ready")
        if valid:
            word = self.value("sp_write__payload")
            self._hold("sp_write", word, ready)
            if ready:
                write = unpack("sp_write", word)
                raw = np.frombuffer(write["data"].to_bytes(2 * W, "little"), np.uint8)
                for half in (0, 1):
                    if write["mask"] >> half & 1:
                        to = write["addr"] * 2 * W + half * W
                        self.loaded[to : to + W] = raw[half * W : (half + 1) * W]
        else:
            self._hold("sp_write", None, 0)
        self.drive("sp_write__ready", int(rng.random() >= self.port_pause))

        granted = None
        if self.value("sp_read__valid"):
            address, ready = self.value("sp_read__payload"), self.value("sp_read__ready")
            self._hold("sp_read", address, ready)
            granted = address if ready else None
        else:
            self._hold("sp_read", None, 0)
        self.reads.append(granted)
        due = self.reads.popleft()
        if due is None:
            self.drive("sp_read_data", 0x5A)
        else:
            raw_word = self.stored[due * 2 * W : (due + 1) * 2 * W].tobytes()
            self.drive("sp_read_data", int.from_bytes(raw_word, "little"))
        self.drive("sp_read__ready", int(rng.random() >= self.port_pause))

    def _hold(self, port: str, payload: int | None, ready: int) -> None:
        before = self.sp_offered[port]
        assert before is None or payload == before or not self.strict, f"{port} not held"
        self.sp_offered[port] = None if ready else payload

    async def until(self, condition: Any, cycles: int, what: str) -> None:
        for _ in range(cycles):
            if condition():
                return
            await self.tick()
        raise AssertionError(f"not within {cycles} cycles: {what}")

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            await self.tick()

    def submit(self, name: str, t: Run) -> None:
        self.queues[name].append(pack("transfer", t))

    def submit_fetch(
        self, address: int, count: int, *, base: int = ORIGIN, limit: int = ORIGIN + SIZE
    ) -> None:
        self.queues["fetch"].append(
            pack(
                "start",
                {"address": address, "overflow": 0, "base": base, "limit": limit, "count": count},
            )
        )

    def fault(self, name: str) -> Run:
        return unpack("fault", self.value(name + "_fault"))

    def expected_commands(self, address: int, count: int) -> list[tuple[int, int]]:
        source = self.memory.source
        return [
            (n, int.from_bytes(source[at : at + COMMAND_BYTES].tobytes(), "little"))
            for n in range(count)
            for at in [address - ORIGIN + COMMAND_BYTES * n]
        ]

    async def quiesce(self, cycles: int = 20000) -> None:
        """Soft reset, as the control unit does it."""
        self.strict = False
        for queue in self.queues.values():
            queue.clear()
        self.drive("quiesce", 1)
        await self.tick()
        await self.until(lambda: self.value("quiet"), cycles, "quiet")
        assert self.memory.idle(), "quiet with something outstanding"
        await self.ticks(2)
        self.drive("quiesce", 0)
        self.done = {"load": 0, "store": 0}
        self.commands.clear()
        await self.ticks(2)
        self.strict = True

    async def traffic(
        self,
        rng: np.random.Generator,
        transfers: int,
        *,
        fetch: bool = True,
        longest: int = 3000,
        cycles: int = 200_000,
    ) -> None:
        """Random transfers of both engines and a program, compared with the model."""
        loads = [random_transfer(rng, longest=longest) for _ in range(transfers)]
        stores = [random_transfer(rng, longest=longest) for _ in range(transfers)]
        pad, target = self.loaded.copy(), self.memory.target.copy()
        for t in loads:
            model_load(t, self.memory.source, pad)
        for t in stores:
            model_store(t, self.stored, target)
        count = int(rng.integers(1, 40)) if fetch else 0
        at = ORIGIN + 64 * int(rng.integers(0, SIZE // 64 - count))
        start = dict(self.done)
        seen = len(self.commands)
        for load, store in zip(loads, stores, strict=True):
            self.submit("load", load)
            self.submit("store", store)
        if fetch:
            tight = bool(rng.integers(2))
            self.submit_fetch(
                at,
                count,
                base=at if tight else ORIGIN,
                limit=at + 64 * count if tight else ORIGIN + SIZE,
            )
        faults = ("load_fault", "store_fault", "fetch_fault")
        await self.until(
            lambda: (
                (
                    all(self.done[name] - start[name] == transfers for name in start)
                    and len(self.commands) - seen == count
                )
                or any(self.value(name) & 1 for name in faults)
            ),
            cycles,
            f"{transfers} transfers; done {self.done} after {start}",
        )
        assert self.commands[seen:] == self.expected_commands(at, count)
        for name in ("load", "store", "fetch"):
            assert not self.fault(name)["valid"], self.fault(name)
        assert np.array_equal(self.loaded, pad), _difference(self.loaded, pad)
        if self.own_memory:
            assert np.array_equal(self.memory.target, target)
            await self.ticks(3)
            assert self.memory.idle()
        else:
            self.expected_target = target


def _difference(a: np.ndarray, b: np.ndarray) -> str:
    where = np.flatnonzero(a != b)
    return f"{len(where)} bytes differ, the first at word {where[0] // (2 * W)} byte {where[0]}"


async def bench_for(dut: Any, number: int, *, own_memory: bool = True) -> Bench:
    seed = SEED * 1000 + number
    print(f"seed {seed}")
    Clock(dut.clk, 10, unit="ns").start()
    bench = Bench(dut, np.random.default_rng(seed), own_memory=own_memory)
    await bench.start()
    return bench


def plain(length: int, *, runs: int = 1, stride: int = 0, **more: int) -> Run:
    """A contiguous transfer from the memory's start to scratchpad word 0."""
    chunks = -(-length // (2 * W))
    return {
        "address": ORIGIN,
        "overflow": 0,
        "base": ORIGIN,
        "limit": ORIGIN + SIZE,
        "length": length,
        "runs": runs,
        "planes": 1,
        "run_stride": stride,
        "plane_stride": 0,
        "half": 0,
        "sp_addr": 0,
        "sp_chunk": 1,
        "sp_run": chunks,
        "sp_plane": 0,
        "index": 7,
        **more,
    }


@cocotb.test
async def fast_memory(dut: Any) -> None:
    """No pauses anywhere: everything flows."""
    bench = await bench_for(dut, 1)
    for _ in range(2 * SCALE):
        bench.memory.manners.latency = int(bench.rng.integers(1, 8))
        await bench.traffic(bench.rng, 12)


@cocotb.test
async def awkward_memory(dut: Any) -> None:
    """Latencies, pauses, interleaved reads, every order of AW and W."""
    bench = await bench_for(dut, 2)
    for n in range(4 * SCALE):
        manners = bench.memory.manners
        manners.latency = int(bench.rng.choice([1, 3, 40]))
        manners.pause = float(bench.rng.choice([0.0, 0.2, 0.7]))
        manners.interleave = bool(bench.rng.integers(2))
        manners.order = ("any", "aw", "w")[n % 3]
        bench.port_pause = float(bench.rng.choice([0.0, 0.3, 0.8]))
        bench.command_pause = float(bench.rng.choice([0.0, 0.9]))
        await bench.traffic(bench.rng, 5, longest=1000)


@cocotb.test
async def small_runs(dut: Any) -> None:
    """Many runs of a few bytes at every offset, straight and half."""
    bench = await bench_for(dut, 3)
    bench.memory.manners.latency = 5
    for length in (1, 2, D - 1, D, D + 1, 2 * W, W + 1, 8 * D):
        pad, target = bench.loaded.copy(), bench.memory.target.copy()
        start = dict(bench.done)
        for half in (0, 1):
            stride = length + D + 1
            t = plain(length, runs=min(2 * D + 3, SIZE // stride - 1), stride=stride, half=half)
            t["address"] += 3
            model_load(t, bench.memory.source, pad)
            model_store(t, bench.stored, target)
            bench.submit("load", t)
            bench.submit("store", t)
        await bench.until(
            lambda start=start: all(bench.done[k] == start[k] + 2 for k in start), 100000, "runs"
        )
        assert np.array_equal(bench.loaded, pad), f"length {length}"
        assert np.array_equal(bench.memory.target, target), f"length {length}"


@cocotb.test
async def other_memory(dut: Any) -> None:
    """cocotbext-axi's memory, which knows nothing of this project, with pauses of its own."""
    bench = await bench_for(dut, 4, own_memory=False)
    rng = bench.rng
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=SIZE)
    ram.write(0, bench.memory.source.tobytes())
    for n in range(2 * SCALE):
        # AxiRam has one memory for both directions; stores go to a copy of the model's.
        if n:
            for channel in (
                ram.write_if.aw_channel,
                ram.write_if.w_channel,
                ram.write_if.b_channel,
                ram.read_if.ar_channel,
                ram.read_if.r_channel,
            ):
                channel.set_pause_generator(bool(x) for x in iter(lambda: rng.integers(3) == 0, 2))
        loads = [random_transfer(rng, longest=1000) for _ in range(5)]
        pad = bench.loaded.copy()
        start = dict(bench.done)
        for t in loads:
            model_load(t, bench.memory.source, pad)
            bench.submit("load", t)
        await bench.until(
            lambda start=start: bench.done["load"] == start["load"] + 5, 50000, "loads"
        )
        assert np.array_equal(bench.loaded, pad)
        for _ in range(5):
            t = random_transfer(rng, longest=1000)
            model_store(t, bench.stored, bench.memory.source)
            bench.submit("store", t)
        await bench.until(
            lambda start=start: bench.done["store"] == start["store"] + 5, 50000, "stores"
        )
        assert ram.read(0, SIZE) == bench.memory.source.tobytes()


def expected_fault(name: str, transfers: list[Run], errors: dict[int, int]) -> tuple[int, Run]:
    """The transfer at fault and its record, transfers taken in order."""
    for n, t in enumerate(transfers):
        for address, _, _, _ in runs_of(t):
            if outside(t, address):
                address %= 1 << CONFIG.axi_addr_width
                record = {"valid": 1, "code": int(Fault.WINDOW), "address": address}
                return n, {**record, "index": t["index"]}
            for at, beats in bursts_of(address, t["length"]):
                for beat in range(beats if name == "load" else 1):
                    if resp := errors.get(at + beat * D):
                        base = Fault.READ_SLVERR if name == "load" else Fault.WRITE_SLVERR
                        code = int(base) + resp - 2
                        return n, {"valid": 1, "code": code, "address": at, "index": t["index"]}
    raise AssertionError("no fault expected")


async def check_fault(
    bench: Bench, name: str, transfers: list[Run], errors: dict[int, int]
) -> None:
    """Run transfers of which one faults; then reset, and everything works."""
    memory = bench.memory
    number, record = expected_fault(name, transfers, errors)
    if name == "load":
        memory.read_error = errors.get
    else:
        memory.write_error = errors.get
    start = bench.done[name]
    for t in transfers:
        bench.submit(name, t)
    await bench.until(lambda: bench.fault(name)["valid"], 20000, f"{name}: fault {record}")
    assert bench.fault(name) == record, (bench.fault(name), record)
    await bench.ticks(60 + 20 * memory.manners.latency)
    assert bench.fault(name) == record
    assert bench.done[name] == start + number
    quiet = len(memory.burst_log)
    await bench.ticks(100)
    assert len(memory.burst_log) == quiet, "bursts after a fault"
    await bench.quiesce()
    assert not bench.fault(name)["valid"]
    memory.read_error = memory.write_error = no_error
    await bench.traffic(bench.rng, 2, longest=300)


@cocotb.test
async def bus_errors(dut: Any) -> None:
    """SLVERR and DECERR, on the first beat, in the middle, on the last."""
    bench = await bench_for(dut, 5)
    bench.memory.manners.latency = 6
    for n in range(4 * SCALE):
        name = ("load", "store")[n % 2]
        transfers = [random_transfer(bench.rng, longest=1000) for _ in range(4)]
        beats = [
            at + beat * D
            for t in transfers
            for address, _, _, _ in runs_of(t)
            for at, count in bursts_of(address, t["length"])
            for beat in range(count if name == "load" else 1)
        ]
        if not beats:
            continue
        chosen = {beats[int(bench.rng.integers(len(beats)))]: 2 + n // 2 % 2}
        await check_fault(bench, name, transfers, chosen)


@cocotb.test
async def windows(dut: Any) -> None:
    """Runs outside, by a byte and by far, before the base and behind the limit."""
    bench = await bench_for(dut, 6)
    width = CONFIG.axi_addr_width
    for name in ("load", "store"):
        start = plain(100, runs=4, stride=200)
        end = plain(64, runs=3, stride=64, address=ORIGIN + SIZE - 192)
        wrong = [
            {**start, "base": ORIGIN + 1},
            {**start, "limit": ORIGIN + 3 * 200 + 99},
            {**start, "limit": ORIGIN + 99},
            {**start, "base": ORIGIN + 200, "address": ORIGIN + 400, "run_stride": -100},
            {**end, "address": end["address"] + 1, "limit": 1 << width},
            {**end, "runs": 4, "limit": 1 << width, "base": 0},
            {**end, "address": end["address"] + 64, "limit": (2 << width) - 1, "base": 0},
            {**start, "address": 64, "run_stride": -65, "base": 0, "length": 1},
            {**start, "overflow": 1, "base": 0, "limit": (2 << width) - 1},
            {**start, "limit": ORIGIN},
            {**start, "runs": 1, "length": 0xFFFFFFFF},
        ]
        for t in wrong:
            if t["address"] < ORIGIN:
                # Run 0 at 64 is within the window but not in this memory: begin with the bad one.
                t["address"], t["run_stride"] = (1 << width) - 1, 65
                t["limit"] = (2 << width) - 1
            before = [random_transfer(bench.rng, longest=200) for _ in range(3)]
            if t["overflow"]:
                bench.submit(name, t)
                await bench.until(lambda name=name: bench.fault(name)["valid"], 1000, "overflow")
                assert bench.fault(name)["code"] == Fault.WINDOW
                await bench.quiesce()
                continue
            await check_fault(bench, name, [*before, t], {})


@cocotb.test
async def fetch_faults(dut: Any) -> None:
    """The program outside its window, not aligned, behind an error."""
    bench = await bench_for(dut, 7)
    memory = bench.memory
    for address, count, more, code in (
        (ORIGIN, 4, {"base": ORIGIN + 1}, Fault.WINDOW),
        (ORIGIN + 128, 4, {"limit": ORIGIN + 128 + 255}, Fault.WINDOW),
        (ORIGIN + SIZE - 128, 3, {"limit": 1 << CONFIG.axi_addr_width}, Fault.WINDOW),
        (ORIGIN, 0xFFFFFFFF, {}, Fault.WINDOW),
        (ORIGIN + 4, 2, {}, Fault.ILLEGAL_FIELD),
    ):
        before = len(memory.burst_log)
        bench.submit_fetch(address, count, **more)
        await bench.until(lambda: bench.fault("fetch")["valid"], 1000, f"fault {code}")
        await bench.ticks(50)
        assert bench.fault("fetch") == {"valid": 1, "code": code, "index": 0, "address": address}
        assert len(memory.burst_log) == before
        assert not bench.commands
        await bench.quiesce()
    for resp, bad in ((2, 0), (3, 5), (2, 9)):
        bench.commands.clear()
        at = ORIGIN + 192
        where = (at + 64 * bad) // D * D
        memory.read_error = {where: resp}.get
        bench.submit_fetch(at, 10)
        await bench.until(lambda: bench.fault("fetch")["valid"], 5000, "fault")
        first = max(at, where)
        assert bench.fault("fetch")["address"] == first - first % 64
        assert bench.fault("fetch")["index"] == (first - at) // 64
        assert bench.fault("fetch")["code"] == Fault.READ_SLVERR + resp - 2
        await bench.ticks(100)
        assert bench.commands == bench.expected_commands(at, (first - at) // 64)
        memory.read_error = no_error
        await bench.quiesce()
        await bench.traffic(bench.rng, 1, longest=300)


@cocotb.test
async def soft_reset(dut: Any) -> None:
    """`quiesce` in the midst of traffic, with channels that stand still for long."""
    bench = await bench_for(dut, 8)
    memory = bench.memory
    channels = ("ar", "r", "aw", "w", "b")
    for n in range(6 * SCALE):
        memory.manners.latency = int(bench.rng.choice([1, 30]))
        memory.manners.order = ("any", "aw", "w")[n % 3]
        memory.manners.pause = float(bench.rng.choice([0, 0.4]))
        bench.port_pause = float(bench.rng.choice([0, 0.5]))
        if n:
            memory.manners.frozen = {c for c in channels if bench.rng.random() < 0.4}
        old, new = memory.target.copy(), memory.target.copy()
        for k in range(3):
            part = SIZE // 3 // D * D
            t = plain(part - 300, address=ORIGIN + k * part + 5 * n + k)
            model_store(t, bench.stored, new)
            bench.submit("store", t)
            bench.submit("load", t)
        bench.submit_fetch(ORIGIN + 64, 60)
        bench.command_pause = 0.9
        await bench.ticks(int(bench.rng.integers(1, 600)))
        bench.strict = False
        bench.drive("quiesce", 1)
        if n % 2:
            # Stays until all is quiet, though `quiesce` falls.
            await bench.ticks(3)
            bench.drive("quiesce", 0)
        bursts = len(memory.burst_log)
        await bench.ticks(500 if memory.manners.frozen else 0)
        offered = len(memory.burst_log)
        assert offered - bursts <= CONFIG.axi_outstanding * 2 + 3
        memory.manners.frozen = set()
        await bench.quiesce()
        memory.manners.pause = bench.command_pause = 0
        changed = memory.target != old
        assert np.array_equal(memory.target[changed], new[changed])
        await bench.traffic(bench.rng, 2, longest=500)


@cocotb.test
async def long_stalls(dut: Any) -> None:
    """Each channel stands still for a long time, then goes on; nothing is lost."""
    bench = await bench_for(dut, 9)
    for channel in ("ar", "r", "aw", "w", "b"):
        bench.memory.manners.frozen = {channel}

        async def thaw() -> None:
            for _ in range(2000):
                await RisingEdge(bench.dut.clk)
            bench.memory.manners.frozen = set()

        task = cocotb.start_soon(thaw())
        await bench.traffic(bench.rng, 3, longest=1500)
        await task


@cocotb.test
async def halted(dut: Any) -> None:
    """`halt` stops new bursts, finishes those issued; without it everything goes on."""
    bench = await bench_for(dut, 10)
    memory = bench.memory
    memory.manners.latency = 20
    pad, target = bench.loaded.copy(), memory.target.copy()
    t = plain(24 * 1024 if D * BEATS > 64 else 4096, address=ORIGIN + 9)
    model_load(t, memory.source, pad)
    model_store(t, bench.stored, target)
    bench.submit("load", t)
    bench.submit("store", t)
    await bench.ticks(40)
    bench.drive("halt", 1)
    await bench.until(memory.idle, 20 * 64 * CONFIG.axi_outstanding, "idle")
    bursts = len(memory.burst_log)
    await bench.ticks(200)
    assert len(memory.burst_log) == bursts
    total = len(list(bursts_of(t["address"], t["length"])))
    for name, channel in (("load", "ar"), ("store", "aw")):
        # With long bursts all of them may have been issued.
        issued = sum(entry[0] == channel for entry in memory.burst_log)
        assert bench.done[name] == (issued == total)
    bench.drive("halt", 0)
    await bench.until(lambda: bench.done == {"load": 1, "store": 1}, 50000, "done")
    assert np.array_equal(bench.loaded, pad)
    assert np.array_equal(memory.target, target)


@cocotb.test
async def throughput(dut: Any) -> None:
    """24 KiB in one run, and runs of eight beats, behind 30 cycles of latency."""
    bench = await bench_for(dut, 11)
    memory = bench.memory
    memory.manners.latency = 30
    results = {}
    for label, t in (
        ("contiguous", plain(24 * 1024)),
        ("unaligned", plain(24 * 1024, address=ORIGIN + 1)),
        ("runs of 8 beats", plain(8 * D, runs=min(128, SIZE // (10 * D)), stride=10 * D)),
        (
            "runs of 8 beats, unaligned",
            plain(8 * D, runs=min(128, SIZE // (10 * D)), stride=10 * D, address=ORIGIN + 1),
        ),
    ):
        for name, channel in (("load", "r1"), ("store", "w")):
            cycles = memory.beat_cycles[channel]
            cycles.clear()
            bench.activity[name] = dict.fromkeys(bench.activity[name], 0)
            before = bench.done[name]
            bench.submit(name, t)
            await bench.until(
                lambda name=name, before=before: bench.done[name] > before, 100000, "done"
            )
            await bench.ticks(3)
            span = cycles[-1] - cycles[0] + 1
            total = bench.done_cycle[name] - bench.accept_cycle[name]
            results[label, name] = len(cycles) / span
            flags = bench.activity[name]
            assert flags["busy"] == len(cycles)
            assert abs(sum(flags.values()) - total) <= 1, (flags, total)
            print(
                f"throughput D={D} W={W} {label}, {name}: {len(cycles)} beats in {span} cycles, "
                f"{len(cycles) / span:.3f} a cycle; {total} cycles in all"
            )
    window = CONFIG.axi_outstanding * BEATS / (BEATS + 45)
    best = min(1.0, 2 * W / D, window)
    for (label, name), rate in results.items():
        if "contiguous" in label or label == "unaligned":
            assert rate >= 0.98 * best, (label, name, rate)
