"""Testbench of the accumulators: one column, all of them behind the array's skew, rows' maxima.

Parameters: `config`; `cycles`, how many.
"""

from typing import Any

import cocotb
import numpy as np

from tilewright.sim.testbenches.units.cell import Bench, pack, unpack

DISTANCE = 4
"""Cycles from a word's sum to the next one of the same word at the least."""
READ_LATENCY = 3


def _wrapped(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


class _Traffic:
    """Random sums that keep the distance; often at exactly that distance, and in few words."""

    def __init__(self, bench: Bench, cycles: int) -> None:
        config, rng = bench.config, bench.rng
        self.valid = (rng.random(cycles) < 0.8).astype(int)
        self.accumulate = (rng.random(cycles) < 0.8).astype(int)
        self.address = rng.integers(0, config.acc_words, cycles)
        few = rng.choice(config.acc_words, 6, replace=False)
        crowded = rng.random(cycles) < 0.7
        self.address[crowded] = rng.choice(few, cycles)[crowded]
        last: dict[int, int] = {}
        for n in range(cycles):
            if n >= DISTANCE and rng.random() < 0.5 and self.valid[n - DISTANCE]:
                self.address[n] = self.address[n - DISTANCE]
            at = int(self.address[n])
            # Overwriting reads nothing and may come at once.
            if self.valid[n] and self.accumulate[n] and n - last.get(at, -99) < DISTANCE:
                self.valid[n] = 0
            if self.valid[n]:
                last[at] = n
        half = 1 << config.psum_bits - 1
        self.sums = rng.integers(-half, half, (cycles, config.columns))
        self.sums[rng.random(cycles) < 0.3] = half - 1
        self.sums[rng.random(cycles) < 0.3] = -half


@cocotb.test
async def column(dut: Any) -> None:
    """Sums at the least distance, and reads of banks that take none; s32 wraps."""
    bench = Bench(dut)
    config, rng = bench.config, bench.rng
    await bench.start()
    cycles = bench.values["cycles"]
    traffic = _Traffic(bench, cycles)
    sums = traffic.sums[:, 0]
    reads = rng.integers(0, config.acc_words, cycles)
    found = await bench.play(
        {
            "sum": sums,
            "valid_i": traffic.valid,
            "accumulate_i": traffic.accumulate,
            "address_i": traffic.address,
            "read_address": reads,
        },
        ["read_data", "valid_o", "accumulate_o", "address_o"],
        drain=READ_LATENCY,
    )
    words = [0] * config.acc_words
    pending: list[tuple[int, int]] = []  # (cycle the sum entered, word)
    checked = 0
    for n in range(cycles):
        taken = traffic.valid[n] and traffic.address[n] // config.acc_depth == (
            reads[n] // config.acc_depth
        )
        pending = [(cycle, at) for cycle, at in pending if n - cycle < DISTANCE]
        # A word whose write is under way is not read: tokens see to that.
        if not taken and all(at != reads[n] for _, at in pending):
            got, want = found["read_data"][n + READ_LATENCY], words[reads[n]] & 0xFFFFFFFF
            assert got == want, f"cycle {n}, word {reads[n]}: 0x{got:x}, expected 0x{want:x}"
            checked += 1
        if traffic.valid[n]:
            at = int(traffic.address[n])
            words[at] = _wrapped(int(sums[n]) + (words[at] if traffic.accumulate[n] else 0))
            pending.append((n, at))
        assert found["valid_o"][n + 1] == traffic.valid[n]
        assert found["accumulate_o"][n + 1] == traffic.accumulate[n]
        assert found["address_o"][n + 1] == traffic.address[n]
    assert checked > cycles / 8
    await _wrap(bench)


async def _wrap(bench: Bench) -> None:
    """Sums of one sign until s32 is left."""
    config = bench.config
    top = (1 << config.psum_bits - 1) - 1
    times = (1 << 31) // top + 2
    if times > 20_000:
        return
    every = DISTANCE + 1
    valid = [int(n % every == 0) for n in range(every * times)]
    first = [int(n != 0) for n in range(every * times)]
    zeros = [0] * len(valid)
    found = await bench.play(
        {
            "sum": [top] * len(valid),
            "valid_i": valid,
            "accumulate_i": first,
            "address_i": zeros,
            "read_address": [config.acc_depth * (n % every == 0) for n in range(len(valid))],
        },
        ["read_data"],
        drain=READ_LATENCY,
    )
    # The read one cycle before the next sum sees all but the last.
    got = found["read_data"][every * (times - 1) - 1 + READ_LATENCY]
    assert got == _wrapped(top * (times - 1)) & 0xFFFFFFFF
    assert top * (times - 1) > (1 << 31) - 1


@cocotb.test
async def columns(dut: Any) -> None:
    """All columns with the array's skew; `read_ready` while a bank takes sums in any of them."""
    bench = Bench(dut)
    config, rng = bench.config, bench.rng
    await bench.start()
    width = config.columns
    cycles = bench.values["cycles"]
    traffic = _Traffic(bench, cycles)
    # Passes come in bursts and keep to a bank for a while, so that others are free.
    for first in range(0, cycles, 40):
        bank = int(rng.integers(config.acc_banks)) * config.acc_depth
        part = slice(first, first + 40)
        traffic.address[part] = bank + traffic.address[part] % config.acc_depth
    last: dict[int, int] = {}
    for n in range(cycles):
        at = int(traffic.address[n])
        if n // 40 % 3 == 2 or (traffic.accumulate[n] and n - last.get(at, -99) < DISTANCE):
            traffic.valid[n] = 0
        if traffic.valid[n]:
            last[at] = n
    skewed = np.zeros((cycles + width, width), dtype=np.int64)
    for index in range(width):
        skewed[index : index + cycles, index] = traffic.sums[:, index]
    reads = rng.integers(0, config.acc_words, cycles)
    found = await bench.play(
        {
            "sums": [pack(row, config.psum_bits) for row in skewed[:cycles]],
            "valid": traffic.valid,
            "accumulate": traffic.accumulate,
            "address": traffic.address,
            "read_valid": np.ones(cycles, dtype=int),
            "read_address": reads,
        },
        ["read_ready", "read_data"],
        drain=READ_LATENCY,
    )
    words = np.zeros((config.acc_words, width), dtype=np.int64)
    written = np.full(config.acc_words, -1000)
    busy = np.full(config.acc_banks, -1000)  # cycle of the bank's last sum at column 0
    checked = 0
    for n in range(cycles):
        at, bank = int(traffic.address[n]), int(traffic.address[n]) // config.acc_depth
        if traffic.valid[n]:
            busy[bank] = n
            old = words[at] if traffic.accumulate[n] else 0
            words[at] = [_wrapped(int(v)) for v in old + traffic.sums[n]]
            written[at] = n
        free = n - busy[reads[n] // config.acc_depth] > width
        assert found["read_ready"][n] == free, f"cycle {n}"
        # The last column's word is written DISTANCE cycles behind its sum.
        if free and n - written[reads[n]] >= width - 1 + DISTANCE and written[reads[n]] < cycles:
            got = unpack(found["read_data"][n + READ_LATENCY], 32, width)
            assert np.array_equal(got, words[reads[n]]), (
                f"cycle {n}, word {reads[n]}: {got}, expected {words[reads[n]]}"
            )
            checked += 1
    assert checked > cycles / 10


@cocotb.test
async def maxima(dut: Any) -> None:
    """The largest finished sum of each row's valid columns, over tiles, ties and extremes."""
    bench = Bench(dut)
    config, rng = bench.config, bench.rng
    await bench.start()
    width, rows = config.columns, config.stat_rows
    table = [0] * rows
    pending: dict[int, int] = {}

    class _Table:
        def before(self) -> None:
            bench.set("top_read_data", self.read)

        def after(self) -> None:
            self.read = table[bench.get("top_read")] & 0xFFFFFFFF
            if bench.get("top_write"):
                address = bench.get("top_write_address")
                table[address] = bench.signed("top_write_data")
                pending[address] = bench.cycle

        read = 0

    bench.models.append(_Table())
    half = 1 << config.psum_bits - 1
    want = list(table)
    for passes in range(bench.values["cycles"] // 100):
        count = int(rng.choice([4, 5, 9]))
        tiles = int(rng.integers(1, 4))
        first_row = int(rng.integers(rows))
        lefts = rng.integers(0, width + 1, (tiles, count))
        lefts[rng.random(lefts.shape) < 0.3] = width
        keeps = rng.random(tiles) < 0.8
        keeps[0] = True
        sums = rng.integers(-half, half, (tiles, count, width))
        sums[rng.random(sums.shape) < 0.3] = half - 1
        sums[rng.random(sums.shape) < 0.3] = -half
        if passes % 4 == 0:
            sums[:] = -half
        cycles = tiles * count
        skewed = np.zeros((cycles + width, width), dtype=np.int64)
        for column in range(width):
            skewed[column : column + cycles, column] = sums[:, :, column].ravel()
        idle = [0] * width
        stat = (first_row + np.tile(np.arange(count), tiles)) % rows
        await bench.play(
            {
                "sums": [pack(row, config.psum_bits) for row in skewed],
                "valid": [1] * cycles + idle,
                "accumulate": [0] * (cycles + width),
                "address": [*range(cycles), *idle],
                "top": [*np.repeat(keeps, count).astype(int), *idle],
                "top_first": [*([1] * count), *([0] * (cycles - count)), *idle],
                "top_left": [*lefts.ravel(), *idle],
                "top_stat": [*stat, *idle],
            },
            [],
            drain=8,
        )
        for index in range(count):
            row = (first_row + index) % rows
            want[row] = -(1 << 31)
            for tile in range(tiles):
                if keeps[tile] and lefts[tile, index]:
                    largest = int(sums[tile, index, : lefts[tile, index]].max())
                    want[row] = max(want[row], largest)
        assert table == want, f"pass {passes}: {table}, expected {want}"
    assert pending
