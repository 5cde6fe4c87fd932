"""The native harness: its memory, its checks of the bus, its cache; on a stub of the core."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.random_runs import check_in_rtl
from tilewright.hw.config import preset_config
from tilewright.hw.registers import (
    CONTROL_IRQ_CLEAR,
    CONTROL_SOFT_RESET,
    CONTROL_START,
    REGISTERS,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_FAULT,
)
from tilewright.sim import toolchain
from tilewright.sim.errors import SimulationError
from tilewright.sim.native.build import build_key
from tilewright.sim.native.simulator import (
    CHANNELS,
    DECERR,
    SLVERR,
    BusOptions,
    NativeSimulator,
    ProtocolError,
)
from tilewright.sim.random_program import KINDS, random_program
from tilewright.sw.driver.simulators import simulator_library

STUB = (Path(__file__).parent / "stub.v").read_text()
BASE = 0x4000_0000
SOURCE = BASE + 0x10000
TARGET = BASE + 0x400000
SIZE = 1 << 16
BEAT = 16
BURSTS = SIZE // BEAT // 16
PROGRAM_WORDS = 1024


@pytest.fixture(scope="module")
def library():
    # The cache of the machine: the stub is built once and not in every run of the tests.
    return simulator_library(STUB)


@pytest.fixture
def simulator(library):
    with NativeSimulator(library) as simulator:
        yield simulator


def write(simulator, name, value):
    simulator.write32(REGISTERS[name].address, value)


def read(simulator, name):
    return simulator.read32(REGISTERS[name].address)


def prepare(simulator, *, watchdog=2000, seed=1, error=0):
    rng = np.random.default_rng(seed)
    program = rng.integers(0, 2**32, PROGRAM_WORDS, dtype=np.uint32)
    source = rng.integers(0, 256, SIZE, dtype=np.uint8)
    simulator.write_memory(BASE, program)
    simulator.write_memory(SOURCE, source)
    for name, value in {
        "IRQ_ENABLE": 1,
        "PROGRAM_OFFSET": 0,
        "PROGRAM_COUNT": PROGRAM_WORDS // 16,
        "WATCHDOG": watchdog,
        "SCALAR0": error,
        "BASE0_LO": BASE,
        "BASE1_LO": SOURCE,
        "LIMIT1_LO": SOURCE + SIZE,
        "BASE2_LO": TARGET,
        **{f"{name}_HI": 0 for name in ("BASE0", "BASE1", "LIMIT1", "BASE2")},
    }.items():
        write(simulator, name, value)
    write(simulator, "CONTROL", CONTROL_IRQ_CLEAR)
    write(simulator, "CONTROL", CONTROL_START)
    return program, source


def copies(simulator, **more):
    """Run the stub's copy and check all of it; the cycles it took."""
    program, source = prepare(simulator, **more)
    assert simulator.wait(100_000)
    assert read(simulator, "STATUS") == STATUS_DONE
    np.testing.assert_array_equal(simulator.read_memory(TARGET, SIZE), source)
    assert read(simulator, "COMMANDS") == np.bitwise_xor.reduce(program[::4])
    assert simulator.idle
    assert not simulator.violations
    write(simulator, "CONTROL", CONTROL_IRQ_CLEAR)
    assert not simulator.interrupt
    return read(simulator, "CYCLES_LO")


def wait_for_all(simulator, error):
    prepare(simulator, error=error)
    simulator.wait(10_000)


# ---- the bus ----


def test_registers(simulator):
    assert read(simulator, "ID") == 0x54575254
    assert read(simulator, "HASH_LO") == 0x89ABCDEF
    for value in (0, 0xFFFF_FFFF, 0x12345678):
        write(simulator, "WATCHDOG", value)
        assert read(simulator, "WATCHDOG") == value


def test_a_beat_each_cycle(simulator):
    cycles = copies(simulator)
    # Every beat of the copy and of the program passes R; besides them latency and the first burst.
    beats = SIZE // BEAT + PROGRAM_WORDS // 4
    assert beats < cycles < beats + 100
    statistics = simulator.statistics
    assert statistics.read_beats == beats
    assert statistics.write_beats == SIZE // BEAT
    assert statistics.write_bytes == SIZE
    assert statistics.write_bursts == BURSTS


@pytest.mark.parametrize("latency", [1, 30, 200])
def test_latency(library, latency):
    with NativeSimulator(library, bus=BusOptions(latency=latency, capacity=1)) as simulator:
        cycles = copies(simulator)
        # One burst at a time: each takes its latency and 16 beats.
        bursts = BURSTS + PROGRAM_WORDS // 64
        assert bursts * (latency + 16) <= cycles <= bursts * (latency + 18) + 3 * latency + 50


@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_awkward_memory(library, seed, interleave):
    bus = BusOptions(
        latency=(1, 80), back_pressure=0.3, lite_delay=0.5, interleave=interleave, seed=seed
    )
    with NativeSimulator(library, bus=bus) as simulator:
        first = copies(simulator, seed=seed)
        copies(simulator, seed=seed + 10)
    with NativeSimulator(library, bus=bus) as simulator:
        assert copies(simulator, seed=seed) == first, "the same seed gives the same run"


@pytest.mark.parametrize("channel", CHANNELS)
def test_back_pressure_on_one_channel(library, channel):
    with NativeSimulator(library, bus=BusOptions(back_pressure={channel: 0.9})) as simulator:
        copies(simulator)


def test_high_addresses(library):
    base = 0xFF_0000_0000
    with NativeSimulator(library, memory=((base, 1 << 20), (BASE, 1 << 20))) as simulator:
        prepare_high = {"BASE2_LO": base & 0xFFFF_FFFF, "BASE2_HI": base >> 32}
        data = np.arange(SIZE // 4, dtype=np.uint32)
        simulator.write_memory(SOURCE, data)
        for name, value in {
            "BASE0_LO": BASE,
            "BASE1_LO": SOURCE,
            "LIMIT1_LO": SOURCE + SIZE,
            **{f"{name}_HI": 0 for name in ("BASE0", "BASE1", "LIMIT1")},
            **prepare_high,
            "IRQ_ENABLE": 1,
        }.items():
            write(simulator, name, value)
        write(simulator, "PROGRAM_COUNT", 0)
        write(simulator, "CONTROL", CONTROL_START)
        assert simulator.wait(100_000)
        np.testing.assert_array_equal(simulator.read_memory(base, SIZE).view(np.uint32), data)


# ---- faults to order ----


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize("access", ["read", "write"])
def test_errors_reach_the_master(simulator, access, response):
    place = (SOURCE if access == "read" else TARGET) + 5000
    simulator.fail(access, place, place + 1, response)
    prepare(simulator)
    assert simulator.wait(100_000)
    assert read(simulator, "STATUS") == STATUS_FAULT
    code = {"read": 4, "write": 6}[access] + response
    assert read(simulator, "FAULT_CODE") & 0xFF == code
    simulator.clear_faults()
    write(simulator, "CONTROL", CONTROL_SOFT_RESET)
    simulator.run(1000)
    simulator.reset()
    copies(simulator)


def test_no_memory_is_decerr(simulator):
    prepare(simulator)
    write(simulator, "CONTROL", CONTROL_SOFT_RESET)
    simulator.reset()
    write(simulator, "IRQ_ENABLE", 1)
    write(simulator, "BASE1_LO", 0)
    write(simulator, "LIMIT1_LO", SIZE)
    write(simulator, "CONTROL", CONTROL_START)
    assert simulator.wait(100_000)
    assert read(simulator, "FAULT_CODE") == 4 + DECERR


@pytest.mark.parametrize("channel", CHANNELS)
def test_an_endless_stall(simulator, channel):
    prepare(simulator)
    simulator.stall(channel, simulator.cycle + 200)
    assert simulator.wait(100_000), "the watchdog ends it"
    assert read(simulator, "FAULT_CODE") & 0xFF == 10
    assert not simulator.violations


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_stall_that_ends(simulator, channel):
    prepare(simulator)
    simulator.stall(channel, simulator.cycle + 200, 1000)
    assert not simulator.wait(1000)
    assert read(simulator, "STATUS") == STATUS_BUSY
    assert simulator.wait(100_000)
    assert read(simulator, "STATUS") == STATUS_DONE
    simulator.clear_faults()
    copies(simulator)


def test_time_out_without_a_watchdog(simulator):
    prepare(simulator, watchdog=0)
    simulator.stall("R", simulator.cycle)
    before = simulator.cycle
    assert not simulator.wait(12_345)
    assert simulator.cycle == before + 12_345


# ---- what the master does wrong ----


@pytest.mark.parametrize(
    ("error", "text", "bus"),
    [
        (1, "WSTRB has a gap", {}),
        (2, "WLAST is 1 at beat 8 of 16", {}),
        (3, "ARVALID fell before ARREADY", {"back_pressure": 0.5}),
        (4, "AR changed before ARREADY", {"back_pressure": 0.5}),
        (5, "16 beats cross 4 KiB", {}),
        (6, "is not a multiple of a beat", {}),
        (7, "W changed before WREADY", {"back_pressure": 0.5}),
        (0, "16 beats", {"max_burst": 8}),
        (0, "bursts in flight", {"outstanding": 2}),
    ],
)
def test_violations(library, error, text, bus):
    with NativeSimulator(library, bus=BusOptions(**bus)) as simulator:
        with pytest.raises(ProtocolError, match=text) as caught:
            # The first register write after the breach tells, or else the wait.
            wait_for_all(simulator, error)
        assert caught.value.violations[0].startswith("cycle ")
        assert simulator.cycle < 5000, "it stops where it happens"
        simulator.clear_violations()
        simulator.configure(BusOptions())
        simulator.reset()
        copies(simulator)


# ---- the object ----


def test_bad_arguments(library, simulator, tmp_path):
    for options in ({"latency": 0}, {"latency": (5, 4)}, {"back_pressure": 1.0}, {"capacity": 0}):
        with pytest.raises(ValueError, match="must be"):
            BusOptions(**options)
    with pytest.raises(ValueError, match="channel 'X'"):
        simulator.stall("X")
    with pytest.raises(ValueError, match="overlaps"):
        simulator.add_memory(BASE, 4096)
    with pytest.raises(ValueError, match="multiples of 4096"):
        simulator.add_memory(1, 4096)
    with pytest.raises(ValueError, match="not all in memory"):
        simulator.read_memory(BASE - 1, 2)
    with pytest.raises(SimulationError, match="without waveforms"):
        simulator.trace(tmp_path / "a.fst")
    simulator.close()
    simulator.close()
    with pytest.raises(SimulationError, match="closed"):
        _ = simulator.cycle


def test_registers_that_do_not_answer(simulator):
    simulator.run(10)
    with pytest.raises(SimulationError, match="no answer in 0 cycles"):
        simulator.read32(0, limit=0)
    simulator.reset()
    assert read(simulator, "ID") == 0x54575254


def test_two_at_a_time(library):
    with NativeSimulator(library) as one, NativeSimulator(library) as two:
        prepare(one, seed=1)
        copies(two, seed=2)
        assert one.wait(100_000)
        assert (one.read_memory(TARGET, SIZE) != two.read_memory(TARGET, SIZE)).any()


def test_progress(simulator):
    told: list[int] = []
    assert not simulator.run(45_000, progress=told.append)
    assert told[0] == 10_000
    assert told == sorted(set(told))
    assert told[-1] == 45_000


def test_a_slow_machine_is_left_often(simulator, monkeypatch):
    """Calls into the library become as short as Ctrl-C needs, at any speed."""
    now, calls = 0.0, []

    def run(handle, cycles, until_interrupt):
        nonlocal now
        calls.append(cycles)
        now += cycles / 5_000
        return 0

    monkeypatch.setattr(simulator._library, "tw_run", run)
    monkeypatch.setattr("tilewright.sim.native.simulator.time.perf_counter", lambda: now)
    assert not simulator.run(100_000)
    assert sum(calls) == 100_000
    # Seconds of a call.
    assert max(calls[4:]) / 5_000 < 0.5


# ---- the cache ----


def test_one_edited_line_is_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    told: list[str] = []
    first = simulator_library(STUB, progress=told.append)
    assert any("compiling" in line for line in told)
    told.clear()
    stamp = first.stat().st_mtime_ns

    assert simulator_library(STUB, progress=told.append) == first
    assert not told
    assert first.stat().st_mtime_ns == stamp

    line = "12'h000: s_axi_rdata <= 32'h54575254;"
    assert STUB.count(line) == 1
    second = simulator_library(STUB.replace(line, line.replace("5254;", "5255;")))
    assert second != first
    with NativeSimulator(first) as one, NativeSimulator(second) as two:
        # Both at once in this process: nothing of one is seen by the other.
        assert (read(one, "ID"), read(two, "ID")) == (0x54575254, 0x54575255)
    assert {path.name for path in second.parent.iterdir()} == {second.name, ".sha256", ".stamp"}


def test_two_ask_one_builds(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    built = []

    def build(text, folder, **_):
        built.append(folder)
        (folder / "simulator.so").write_text(text)

    monkeypatch.setattr("tilewright.sw.driver.simulators.build", build)
    threads = [threading.Thread(target=simulator_library, args=(STUB,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    # Loading half a library would end this process.
    library = simulator_library(STUB)
    library.write_text(STUB[:100])
    assert simulator_library(STUB).read_text() == STUB
    assert len(built) == 2


def test_the_key_holds_all_that_matters(monkeypatch, tmp_path):
    keys = {
        build_key(STUB),
        build_key(STUB + " "),
        build_key(STUB, trace=True),
        build_key(STUB, probes="probes"),
    }
    monkeypatch.setattr("tilewright.sim.native.build._COMPILE", ("-std=c++20",))
    keys.add(build_key(STUB))
    monkeypatch.undo()
    monkeypatch.setattr(toolchain, "toolchain_id", lambda: "another")
    keys.add(build_key(STUB))
    monkeypatch.undo()
    monkeypatch.setattr("tilewright.sim.native.build.native_flags", lambda: ((), "another"))
    keys.add(build_key(STUB))
    monkeypatch.undo()
    for name in ("harness.cpp", "axi_memory.h", "axi_lite.h", "memory.h", "ports.h", "spans.h"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr("tilewright.sim.native.build._HERE", tmp_path)
    keys.add(build_key(STUB))
    assert len(keys) == 8


def test_broken_verilog_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    with pytest.raises(toolchain.ToolchainError) as caught:
        simulator_library(STUB.replace("endmodule", ""))
    assert "syntax error" in caught.value.output
    assert not [path for path in (tmp_path / "simulators").iterdir() if path.is_dir()]


# ---- waveforms ----


@pytest.mark.skipif(not toolchain.fst_works(), reason="lz4 and zlib are missing")
def test_trace(tmp_path):
    library = simulator_library(STUB, trace=True)
    sizes = []
    with NativeSimulator(library) as simulator:
        for number, window in enumerate(({}, {"start": 100, "cycles": 50}, {"start": 10**9})):
            path = tmp_path / f"{number}.fst"
            simulator.trace(path, **window)
            copies(simulator)
            simulator.end_trace()
            sizes.append(path.stat().st_size)
        with pytest.raises(FileNotFoundError):
            simulator.trace(tmp_path / "no" / "such.fst")
    assert sizes[0] > sizes[1] >= sizes[2]
    assert (tmp_path / "0.fst").read_bytes()[0] == 0, "an FST header block"


# ---- the core itself ----


@pytest.fixture(scope="module")
def core():
    return simulator_library(preset_config("tiny"))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
def test_random_programs(core, kind, seed):
    config = preset_config("tiny")
    bus = BusOptions(outstanding=config.axi_outstanding, max_burst=config.axi_max_burst)
    if seed % 2:
        bus = replace(
            bus,
            latency=(1, 60),
            back_pressure=0.2,
            lite_delay=0.2,
            interleave=True,
            seed=seed,
        )
    check_in_rtl(core, random_program(config, seed, kind=kind, commands=30), bus)
