"""Testbench of the DMA: transfers against a model of both memories, faults, and the soft reset.

Parameters: those of `dma_bench`.
"""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from tilewright.hw.commands import Fault
from tilewright.sim.testbenches.axi_memory import no_error
from tilewright.sim.testbenches.units.dma_bench import (
    BEATS,
    CONFIG,
    ORIGIN,
    SCALE,
    SIZE,
    Bench,
    D,
    Run,
    W,
    bench_for,
    bursts_of,
    model_load,
    model_store,
    outside,
    plain,
    random_transfer,
    runs_of,
)


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
