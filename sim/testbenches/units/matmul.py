"""Testbench of the MATMUL unit with its accumulators, against the instruction-set simulator.

Parameters: `config`; `scale_latency`, the row table's; `commands`, how many a run has; `signs`, of
a long K; `arrays` commands with the machine's state around them.
"""

import json
from collections import deque
from typing import Any

import cocotb
import numpy as np

from tilewright.hw.commands import COMMAND_LAYOUTS, Opcode, WeightFormat, XMode
from tilewright.sim import golden
from tilewright.sim.iss.matmul import matmul
from tilewright.sim.iss.state import State
from tilewright.sim.testbenches.runner import recorded
from tilewright.sim.testbenches.units.cell import Bench, Memory, ReadPort, pack_command, unpack

Fields = dict[str, int]
MAXIMA_DRAIN = 3
"""Cycles from `done` to the last maximum in the row table: the vector unit reads it later."""
_PLAIN = dict.fromkeys(COMMAND_LAYOUTS[Opcode.MATMUL], 0)


class _Scales:
    """The row table's (m, e) behind an address."""

    def __init__(self, bench: Bench, state: State) -> None:
        self.bench, self.state = bench, state
        self.line: deque[int] = deque([0] * (bench.values["scale_latency"] - 1))
        bench.models.append(self)

    def before(self) -> None:
        if len(self.line) == self.bench.values["scale_latency"]:
            m, e = golden.row_scale(int(self.state.scale[self.line.popleft()]))
            self.bench.set("scale_m", int(m) - 4)
            self.bench.set("scale_e", int(e))

    def after(self) -> None:
        self.line.append(self.bench.get("scale_address"))


class _Maxima:
    """The row table's maxima, behind the accumulators' ports."""

    def __init__(self, bench: Bench, state: State) -> None:
        self.bench = bench
        self.rows = state.top.tolist()
        self.read = 0
        bench.models.append(self)

    def before(self) -> None:
        self.bench.set("top_read_data", self.read & 0xFFFFFFFF)

    def after(self) -> None:
        bench = self.bench
        self.read = self.rows[bench.get("top_read")]
        if bench.get("top_write"):
            self.rows[bench.get("top_write_address")] = bench.signed("top_write_data")


class _Flags:
    """What the unit says it does; each at most alone."""

    NAMES = ("busy", "stall_weights", "stall_hazard")

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.counts = dict.fromkeys((*self.NAMES, "done"), 0)
        bench.models.append(self)

    def before(self) -> None:
        pass

    def after(self) -> None:
        flags = [self.bench.get(name) for name in self.NAMES]
        assert sum(flags) <= 1, flags
        for name, flag in zip(self.NAMES, flags, strict=True):
            self.counts[name] += flag
        self.counts["done"] += self.bench.get("done")


class MatmulBench:
    """The unit among its memories; `state` is the simulator's, executed alongside."""

    def __init__(self, bench: Bench, *, refuse: float) -> None:
        self.bench = bench
        self.state = State(bench.config, False)
        bench.models.clear()
        self.memory = Memory(bench, [0] * bench.config.sp_words)
        ReadPort(bench, "feeder_read", self.memory)
        ReadPort(bench, "loader_read", self.memory, refuse=refuse)
        _Scales(bench, self.state)
        self.maxima = _Maxima(bench, self.state)
        self.flags = _Flags(bench)
        self.expected_done = 0
        self.expected_rows = 0

    def fill(self, sp: np.ndarray, scale: np.ndarray) -> None:
        self.state.sp[:] = sp
        self.state.scale[:] = scale
        self.memory.words[:] = [int.from_bytes(row.tobytes(), "little") for row in sp]

    async def clear(self) -> None:
        """Make all accumulators 0, by a product of zeros."""
        state = self.state
        self.fill(np.zeros_like(state.sp), np.zeros_like(state.scale))
        await self.submit({**_PLAIN, "m": self.bench.config.acc_words, "kt": 1, "nt": 1})
        await self.drain()

    async def submit(self, f: Fields) -> None:
        bench = self.bench
        bench.set("command", pack_command(Opcode.MATMUL, f))
        bench.set("command_valid", 1)
        await bench.until(lambda: bench.get("command_ready"), 100_000, "command_ready")
        bench.set("command_valid", 0)
        matmul(self.state, f)
        self.expected_done += 1
        self.expected_rows += f["m"] * f["kt"] * f["nt"]

    async def drain(self) -> None:
        bench = self.bench
        while self.flags.counts["done"] < self.expected_done:
            await bench.tick()
        assert self.flags.counts["busy"] == self.expected_rows
        for _ in range(MAXIMA_DRAIN):
            await bench.tick()
        assert self.maxima.rows == self.state.top.tolist()

    async def check(self, addresses: Any, what: str) -> None:
        """Read accumulator words from the next cycle on, one a cycle, and compare."""
        bench = self.bench
        addresses = [int(address) for address in addresses]
        record = await bench.play(
            {"acc_read_address": addresses, "acc_read_valid": [1] * len(addresses)},
            ["acc_read_data", "acc_read_ready"],
            drain=3,
        )
        bench.set("acc_read_valid", 0)
        for index, address in enumerate(addresses):
            assert record["acc_read_ready"][index], f"{what}: a bank is taken behind `done`"
            got = unpack(record["acc_read_data"][index + 3], 32, bench.config.columns)
            want = self.state.acc[address]
            assert np.array_equal(got, want), f"{what}, word {address}: {got}, expected {want}"


def touched(f: Fields, words: int) -> np.ndarray:
    """Accumulator words of a command."""
    tiles = f["acc_addr"] + np.arange(f["nt"])[:, None] * f["acc_stride"] + np.arange(f["m"])
    return np.unique(tiles % words)


def _random_command(bench: Bench, most: int) -> Fields:
    config, rng = bench.config, bench.rng
    m = int(rng.choice([1, 2, 3, 4, 5, config.rows, config.rows + 3, 1 + int(rng.integers(most))]))
    f = {
        **_PLAIN,
        "m": m,
        "kt": int(rng.integers(1, 5)),
        "nt": int(rng.integers(1, 5)),
        "x_addr": int(rng.integers(config.sp_words)),
        "x_stride": int(rng.integers(config.sp_words)),
        "w_addr": int(rng.integers(config.sp_words)),
        "w_stride": int(rng.integers(config.sp_words)),
        "acc_addr": int(rng.integers(config.acc_words)),
        # Tiles lie beside, on or across each other.
        "acc_stride": int(rng.choice([0, 1, 2, m, m + 1, config.acc_depth, config.rows])),
        "scale": int(rng.integers(config.scale_rows)),
        "mode": int(rng.integers(5)),
        "transposed": int(rng.integers(2)),
        "k_outer": int(rng.integers(2)),
        "accumulate": int(rng.integers(2)),
        "valid": int(rng.integers(4 * config.columns + 2)),
        "row0": int(rng.integers(4 * config.columns)),
        "stat": int(rng.integers(config.stat_rows)),
        "row_max": int(m <= config.stat_rows and rng.random() < 0.5),
        "causal": int(rng.random() < 0.3),
    }
    if config.weight_bits == 8 and rng.random() < 0.3:
        f["weights"] = int(WeightFormat.S4)
        f["group_addr"], f["group_stride"] = rng.integers(config.sp_words, size=2).tolist()
    if rng.random() < 0.05:
        f[str(rng.choice(["m", "kt", "nt"]))] = 0
    return f


def _ordered(f: Fields, words: int) -> bool:
    """Whether a command's result does not depend on the order of its tiles.

    Where tiles overlap and overwrite, the last one wins in hardware; the simulator adds per tile.
    """
    tiles = f["acc_addr"] + np.arange(f["nt"])[:, None] * f["acc_stride"] + np.arange(f["m"])
    return len(np.unique(tiles % words)) == tiles.size


async def start(dut: Any) -> Bench:
    bench = Bench(dut, timeout=1_000_000)
    await bench.start()
    return bench


@cocotb.test
async def random_commands(dut: Any) -> None:
    """Random commands back to back and one by one, accumulators read right behind `done`."""
    bench = await start(dut)
    config, rng = bench.config, bench.rng
    count = bench.values["commands"]
    acc: np.ndarray | None = None
    for refuse, alone in ((0.0, False), (0.6, False), (0.0, True)):
        unit = MatmulBench(bench, refuse=refuse)
        if acc is None:
            await unit.clear()
        else:
            unit.state.acc[:] = acc
        sp = rng.integers(0, 256, (config.sp_words, config.word_bytes), dtype=np.uint8)
        if config.weight_bits < 8 or refuse:
            # Extremes, whole and mixed.
            sp[rng.random(len(sp)) < 0.3] = rng.choice([0x80, 0x7F, 0xFF, 0])
        scale = np.minimum(rng.integers(0, 65536, config.scale_rows) >> rng.integers(0, 16), 32768)
        unit.fill(sp, scale)
        for _ in range(count):
            f = _random_command(bench, 3 * config.rows)
            while not _ordered(f, config.acc_words):
                f = _random_command(bench, 3 * config.rows)
            await unit.submit(f)
            if alone:
                await unit.drain()
                where = touched(f, config.acc_words)
                await unit.check(rng.permutation(where)[:10], f"{f}")
        await unit.drain()
        await unit.check(range(config.acc_words), f"refuse {refuse}")
        acc = unit.state.acc.copy()
        print(f"{config.name}, refuse {refuse}: {unit.flags.counts}")


@cocotb.test
async def hazards(dut: Any) -> None:
    """Short passes over K meet the words just written; so do commands upon each other."""
    bench = await start(dut)
    config, rng = bench.config, bench.rng
    unit = MatmulBench(bench, refuse=0.0)
    await unit.clear()
    sp = rng.integers(0, 256, (config.sp_words, config.word_bytes), dtype=np.uint8)
    unit.fill(sp, np.full(config.scale_rows, 32768))
    for accumulate in (0, 1):
        for m in (1, 2, 3, 4, 5):
            for kt, nt, k_outer in ((6, 1, 0), (3, 2, 1), (2, 3, 0), (1, 4, 0)):
                f = {
                    **_random_command(bench, 1),
                    "m": m,
                    "kt": kt,
                    "nt": nt,
                    "k_outer": k_outer,
                    "accumulate": accumulate,
                    "acc_addr": int(rng.integers(3)),
                    "acc_stride": m,
                }
                await unit.submit(f)
    # Tiles across each other: all add, so that the order does not matter.
    await unit.drain()
    await unit.check(range(config.acc_words), "short passes")
    m = max(7, config.rows + 1)
    for stride in (0, 1, m - 3, m - 2, m - 1):
        f = {**f, "m": m, "kt": 2, "nt": 4, "acc_addr": 5, "acc_stride": stride, "accumulate": 1}
        f["transposed"] = 0  # a tile in R cycles, so that pass follows pass
        f["row_max"] = 0  # of which sums, depends on the order
        before = unit.state.acc.copy()
        whole = {**f, "acc_addr": 0, "acc_stride": f["m"], "accumulate": 0}
        await unit.submit(f)
        matmul(unit.state, whole)
        tiles = unit.state.acc[: f["m"] * f["nt"]].reshape(f["nt"], f["m"], -1).copy()
        unit.state.acc[:] = before
        for n in range(f["nt"]):
            place = f["acc_addr"] + n * stride + np.arange(f["m"])
            unit.state.acc[place] += tiles[n]
    await unit.drain()
    await unit.check(range(config.acc_words), "overlapping tiles")
    assert unit.flags.counts["stall_hazard"], "no hazard was met"
    print(f"{config.name}: {unit.flags.counts}")


@cocotb.test
async def long_k(dut: Any) -> None:
    """K = 4096 of extremes: u8 by s8 sums of 28 bits; tile follows tile without a gap."""
    bench = await start(dut)
    config = bench.config
    kt = 4096 // config.rows
    m = config.rows
    for high, low in ((0xFF, 0x80), (0xFF, 0x7F))[: bench.values["signs"]]:
        unit = MatmulBench(bench, refuse=0.0)
        sp = np.full((config.sp_words, config.word_bytes), low, dtype=np.uint8)
        sp[: -(-m // 2)] = high
        unit.fill(sp, np.zeros(config.scale_rows))
        f = _random_command(bench, 1)
        f |= {"m": m, "kt": kt, "nt": 1, "mode": int(XMode.U8), "transposed": 1, "k_outer": 0}
        f |= {"x_addr": 0, "x_stride": 0, "w_addr": config.sp_words // 2, "w_stride": 0}
        f |= {"accumulate": 0, "acc_addr": 0, "acc_stride": 0}
        # Transposed, K goes from panel to panel, so that stride 0 reads one place again and again.
        first = bench.cycle
        await unit.submit(f)
        await unit.drain()
        cycles = bench.cycle - first
        await unit.check(range(m), "K = 4096")
        # An array of fewer bits takes the low ones of a byte.
        sign = 1 << (config.weight_bits - 1)
        weight = ((low & (2 * sign - 1)) ^ sign) - sign
        assert unit.state.acc[0, 0] == 4096 * 255 * weight
        period = max(config.rows, config.columns, 9 if config.rows == 4 else 0)
        print(f"{config.name}: {kt} passes of {m} rows in {cycles} cycles")
        assert cycles < kt * period + 12 * config.rows + config.columns + 60


@cocotb.test
async def replay(dut: Any) -> None:
    """Commands of a real layer with the scratchpad they found."""
    bench = await start(dut)
    arrays = recorded()
    number = 0
    while f"{number}/command" in arrays:
        f = json.loads(str(arrays[f"{number}/command"]))["fields"]
        before, after = (
            {name: arrays[f"{number}/{when}/{name}"] for name in ("sp", "scale", "acc", "top")}
            for when in ("before", "after")
        )
        unit = MatmulBench(bench, refuse=0.3 * (number % 2))
        unit.fill(before["sp"], before["scale"])
        if f["accumulate"]:
            # Accumulators cannot be filled from outside: the product is added to itself.
            await unit.submit({**f, "accumulate": 0})
            await unit.submit(f)
            want = 2 * (after["acc"] - before["acc"])
        else:
            await unit.submit(f)
            want = after["acc"]
        await unit.drain()
        if f["row_max"]:
            rows = slice(f["stat"], f["stat"] + f["m"])
            assert unit.maxima.rows[rows] == after["top"][rows].tolist()
        where = touched(f, bench.config.acc_words)
        assert np.array_equal(unit.state.acc[where], want[where])
        await unit.check(where, f"command {number}, {f}")
        number += 1
    assert number
    print(f"{number} commands, {bench.cycle} cycles")
