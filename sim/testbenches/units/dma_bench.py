"""The DMA among its memories, and a model of what transfers do to them.

Parameters of a testbench that uses it (see `runner.parameters`): `config`, a configuration as a
mapping; `layouts`, for each port's payload its fields as [offset, width]; `scale`, how much to run;
`seed`.
"""

import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from tilewright.hw.commands import COMMAND_BYTES
from tilewright.hw.config import Config
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.sim.testbenches.axi_memory import AxiMemory
from tilewright.sim.testbenches.runner import PARAMETERS, parameters

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
