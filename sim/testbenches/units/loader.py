"""Testbench of the weight loader and its transposer.

Parameters: `config`; `feeder_latency`, the loader's; `commands`, how many; `refuse`.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np

from tilewright.hw.commands import GROUP_ROWS, Opcode, WeightFormat
from tilewright.hw.config import Config
from tilewright.sim.testbenches.units.cell import (
    Bench,
    Memory,
    ReadPort,
    pack,
    pack_command,
    unpack,
)

SHIFT_LATENCY = 3
"""Cycles `swap_soon` is ahead of the swap at the array's edge."""


def tiles_of(f: dict[str, int], config: Config) -> Iterator[tuple[int, int]]:
    """(k, n) of each tile of a command in the order of its passes."""
    if f["m"] == 0:
        return
    if f["k_outer"]:
        yield from ((k, n) for k in range(f["kt"]) for n in range(f["nt"]))
    else:
        yield from ((k, n) for n in range(f["nt"]) for k in range(f["kt"]))


def _packed(f: dict[str, int]) -> bool:
    return f.get("weights") == WeightFormat.S4 and not f["transposed"]


def tile(halves: np.ndarray, f: dict[str, int], config: Config, k: int, n: int) -> np.ndarray:
    """Stationary tile [R, C] as docs/architecture.md places it; `halves` are rows of W bytes."""
    rows, columns, panel = config.rows, config.columns, config.panel
    if _packed(f):
        nibbles = np.stack((halves & 15, halves >> 4 & 15), axis=-1).reshape(-1, panel)
        lanes = slice(n % (panel // columns) * columns, None)

        def quarters(name: str, index: np.ndarray) -> np.ndarray:
            word = f[f"{name}_addr"] + n // (panel // columns) * f[f"{name}_stride"]
            return nibbles[(4 * word + index) % len(nibbles)][:, lanes][:, :columns]

        k_rows = k * rows + np.arange(rows)
        w4 = (quarters("w", k_rows) ^ 8) - 8
        return (w4 * quarters("group", k_rows // GROUP_ROWS)).astype(np.int8)

    def part(index: int, size: int, first: int, count: int) -> np.ndarray:
        per = panel // size
        word = f["w_addr"] + index // per * f["w_stride"]
        at = (2 * word + first + np.arange(count)) % len(halves)
        return halves[at][:, index % per * size :][:, :size]

    if f["transposed"]:
        return part(k, rows, n * columns, columns).T
    return part(n, columns, k * rows, rows)


def _random_command(rng: np.random.Generator, config: Config) -> dict[str, int]:
    f = {
        "m": int(rng.choice([1, 2, config.rows, config.rows + 5])),
        "kt": int(rng.integers(1, 5)),
        "nt": int(rng.integers(1, 5)),
        "w_addr": int(rng.integers(config.sp_words)),
        "w_stride": int(rng.integers(config.sp_words)),
        "transposed": int(rng.integers(2)),
        "k_outer": int(rng.integers(2)),
    }
    if config.weight_bits == 8 and rng.random() < 0.5:
        f["weights"] = int(WeightFormat.S4)
        f["group_addr"], f["group_stride"] = rng.integers(config.sp_words, size=2).tolist()
        f["kt"] = int(rng.integers(1, 2 + 4 * GROUP_ROWS // config.rows))
    if rng.random() < 0.15:
        f[str(rng.choice(["m", "kt", "nt"]))] = 0
    return f


class _Array:
    """The shadow weights at the array's edge, and passes issued as soon as allowed or later."""

    def __init__(self, bench: Bench, wanted: deque[np.ndarray], patience: int) -> None:
        self.bench, self.wanted, self.patience = bench, wanted, patience
        config = bench.config
        self.latency = bench.values["feeder_latency"]
        self.shadow = np.full((config.rows, config.columns), 999)
        self.ready = False
        self.wait = 0
        self.issues: list[int] = []
        self.swaps: deque[tuple[int, np.ndarray]] = deque()
        self.checked = 0
        bench.models.append(self)

    def before(self) -> None:
        now = self.bench.cycle
        if self.ready:
            if self.wait:
                self.wait -= 1
            else:
                self.ready = False
                self.issues.append(now)
                self.swaps.append((now + self.latency, self.wanted.popleft()))
        soon = any(swap - SHIFT_LATENCY == now for swap, _ in self.swaps)
        self.bench.set("swap_soon", int(soon))

    def after(self) -> None:
        bench, config = self.bench, self.bench.config
        now = bench.cycle - 1
        # Row r takes its weights r cycles behind the swap, before this cycle's shift.
        for swap, tile in self.swaps:
            row = now - swap
            if 0 <= row < config.rows:
                assert np.array_equal(self.shadow[row], tile[row]), (
                    f"pass issued at {swap - self.latency}, row {row}: {self.shadow[row]}, "
                    f"expected {tile[row]}"
                )
        while self.swaps and now - self.swaps[0][0] >= config.rows - 1:
            self.swaps.popleft()
            self.checked += 1
        taken = bench.get("load_rows")
        if taken:
            word = unpack(bench.get("w"), config.weight_bits, config.columns)
            above = np.vstack([word, self.shadow[:-1]])
            for index in range(config.rows):
                if taken >> index & 1:
                    self.shadow[index] = above[index]
        if bench.get("tile_ready"):
            assert not self.ready, "tile_ready before the tile ahead was used"
            self.ready = True
            self.wait = int(bench.rng.integers(1 + self.patience)) if self.patience else 0


async def _run(
    bench: Bench, commands: list[dict[str, int]], *, refuse: float, patience: int
) -> Any:
    config, rng = bench.config, bench.rng
    bench.models.clear()
    halves = rng.integers(-128, 128, (2 * config.sp_words, config.panel))
    memory = Memory(
        bench, [pack(pair.ravel(), 8) for pair in halves.reshape(config.sp_words, 2, -1)]
    )
    port = ReadPort(bench, "read", memory, refuse=refuse)
    unused = 8 - config.weight_bits
    narrow = (halves.astype(np.int8) << unused).astype(np.int8) >> unused
    wanted = deque(tile(narrow, f, config, k, n) for f in commands for k, n in tiles_of(f, config))
    array = _Array(bench, wanted, patience)
    total = len(wanted)
    for f in commands:
        if patience and rng.random() < 0.3:
            bench.set("command_valid", 0)
            for _ in range(int(rng.integers(1, 30))):
                await bench.tick()
        bench.set("command", pack_command(Opcode.MATMUL, f))
        bench.set("command_valid", 1)
        await bench.until(lambda: bench.get("command_ready"), 20_000, "command_ready")
    bench.set("command_valid", 0)
    await bench.until(lambda: array.checked == total, 20_000, "tiles")
    for _ in range(20):
        await bench.tick()
    assert not array.ready
    assert not array.swaps
    words = sum(
        1 + config.rows // 4
        if _packed(f)
        else (config.columns if f["transposed"] else config.rows) // 2
        for f in commands
        for _ in tiles_of(f, config)
    )
    assert port.grants == words, f"{port.grants} words read, {words} are needed"
    return array


@cocotb.test
async def tiles(dut: Any) -> None:
    """Commands of both kinds back to back; the right shadow weights under every row of a pass."""
    bench = Bench(dut)
    await bench.start()
    count = bench.values["commands"]
    for refuse, patience in ((0.0, 0), (0.5, 0), (0.0, 40), (0.9, 10)):
        commands = [_random_command(bench.rng, bench.config) for _ in range(count)]
        await _run(bench, commands, refuse=refuse, patience=patience)
    # Single tiles of both kinds: straight ones behind transposed ones in the queue.
    for patience in (0, 30):
        commands = [_random_command(bench.rng, bench.config) for _ in range(2 * count)]
        commands = [{**f, "m": 1, "kt": 1, "nt": 1} for f in commands]
        await _run(bench, commands, refuse=0.0, patience=patience)


@cocotb.test
async def pace(dut: Any) -> None:
    """With a free port a tile takes as long as docs/architecture.md says."""
    bench = Bench(dut)
    config = bench.config
    await bench.start()
    for transposed, weights in ((0, 0), (1, 0), (0, 1)):
        if weights and config.weight_bits < 8:
            continue
        f = {"m": 1, "kt": 6, "nt": 6, "w_addr": 0, "w_stride": 8, "k_outer": 0}
        f |= {"transposed": transposed, "weights": weights, "group_addr": 1, "group_stride": 0}
        array = await _run(bench, [f], refuse=0.0, patience=0)
        period = np.diff(array.issues[4:])
        least = max(config.rows, config.columns) if transposed else config.rows
        # At R = 4 the swap of a tile comes too late for the next but one.
        bound = 9 if config.rows == 4 else least
        kind = "transposed" if transposed else WeightFormat(weights).name
        print(f"{config.name}, {kind}: a tile each {period.max()} cycles")
        assert period.max() <= max(bound, least), (kind, period)


@cocotb.test
async def transposer(dut: Any) -> None:
    """Columns in, rows out, both buffers at the same time."""
    bench = Bench(dut)
    config, rng = bench.config, bench.rng
    await bench.start()
    rows, columns = config.rows, config.columns
    stored = np.zeros((2, rows, columns), dtype=np.int64)
    for buffer in (0, 1):
        for column in range(columns):
            stored[buffer, :, column] = rng.integers(0, 256, rows)
            await bench.tick(
                write=1,
                write_buffer=buffer,
                write_column=column,
                column=pack(stored[buffer, :, column], 8),
            )
    bench.set("write", 0)
    last: np.ndarray | None = None
    for n in range(600):
        # A column into one buffer, a row out of the other; now and then no write.
        buffer, row, write = int(rng.integers(2)), int(rng.integers(rows)), rng.random() < 0.7
        column, values = int(rng.integers(columns)), rng.integers(0, 256, rows)
        await bench.tick(
            write=int(write),
            write_buffer=1 - buffer,
            write_column=column,
            column=pack(values, 8),
            read_buffer=buffer,
            read_row=row,
        )
        if last is not None:
            got = unpack(bench.get("row"), 8, columns, signed=False)
            assert np.array_equal(got, last), f"read {n}: {got}, expected {last}"
        last = stored[buffer, row].copy()
        if write:
            stored[1 - buffer, :, column] = values
