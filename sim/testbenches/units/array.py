"""Testbench of the systolic array and of a processing element.

Parameters: `config`; `tiles`, how many a schedule has.
"""

from typing import Any

import cocotb
import numpy as np

from tilewright.sim.testbenches.units.cell import Bench, pack, unpack

A_LOW, A_HIGH = -128, 255
"""What the feeder gives: s8 and u8."""


def _values(rng: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers, among them whole rows and columns of extremes."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice([low, high], shape)
    if kind == 1:
        return np.full(shape, rng.choice([low, high, 0]))
    return rng.integers(low, high + 1, shape)


class Schedule:
    """Tiles, passes and gaps as inputs of each cycle, and the sums they must give."""

    def __init__(self, bench: Bench, *, tiles: int, gap: int) -> None:
        config, rng = bench.config, bench.rng
        rows, columns, bits = config.rows, config.columns, config.weight_bits
        half = 1 << bits - 1
        loads: dict[int, tuple[int, int]] = {}
        swaps: set[int] = set()
        activations: dict[int, np.ndarray] = {}
        self.sums: dict[tuple[int, int], int] = {}
        load = 3  # cycle of the tile's first word
        free = 0  # first cycle without an activation of an earlier pass
        for _ in range(tiles):
            tile = _values(rng, -half, half - 1, (rows, columns))
            for word in range(rows):
                taken = sum(1 << row for row in range(word + 1))
                loads[load + word] = pack(tile[rows - 1 - word], bits), taken
            swap = max(load + rows, free) + int(rng.integers(gap + 1))
            length = int(rng.choice([1, rows - 1, rows, rows + 3]))
            for index, row in enumerate(_values(rng, A_LOW, A_HIGH, (length, rows))):
                activations[swap + index] = row
                for column, total in enumerate(row @ tile):
                    self.sums[swap + index + rows + 2 + column, column] = int(total)
            swaps.add(swap)
            free = swap + length
            # The next tile may enter with the swap.
            load = swap + int(rng.integers(gap + 1))
        last = max(cycle for cycle, _ in self.sums) + 1
        garbage = rng.integers(A_LOW, A_HIGH + 1, (last, rows))
        junk = rng.integers(-half, half, (last, columns))
        self.inputs = {
            "a": [pack(activations.get(n, garbage[n]), 9) for n in range(last)],
            "swap": [int(n in swaps) for n in range(last)],
            "w": [loads[n][0] if n in loads else pack(junk[n], bits) for n in range(last)],
            "load_rows": [loads.get(n, (0, 0))[1] for n in range(last)],
        }


@cocotb.test
async def sums(dut: Any) -> None:
    """Every sum in its cycle: tile after tile at the least spacing, and with gaps."""
    bench = Bench(dut)
    config = bench.config
    await bench.start()
    for gap in (0, 0, config.rows + 3):
        schedule = Schedule(bench, tiles=bench.values["tiles"], gap=gap)
        found = (await bench.play(schedule.inputs, ["p"]))["p"]
        rows = [unpack(word, config.psum_bits, config.columns).tolist() for word in found]
        for (cycle, column), total in schedule.sums.items():
            got = rows[cycle][column]
            assert got == total, f"cycle {cycle}, column {column}: {got}, expected {total}"


@cocotb.test
async def element(dut: Any) -> None:
    """A processing element: swap, load and products in any order."""
    bench = Bench(dut)
    rng = bench.rng
    await bench.start()
    half = 1 << bench.config.weight_bits - 1
    count, wide = 3000, 1 << bench.config.psum_bits - 1
    a = _values(rng, A_LOW, A_HIGH, (count,))
    a[: count // 2] = rng.integers(A_LOW, A_HIGH + 1, count // 2)
    w = rng.integers(-half, half, count)
    p = rng.integers(-wide // 2, wide // 2, count)
    swap, load = rng.integers(0, 2, count), rng.integers(0, 2, count)
    inputs = {"a_i": a, "w_i": w, "p_i": p, "swap_i": swap, "load_i": load}
    found = await bench.play(inputs, ["a_o", "swap_o", "load_o", "w_o", "p_o"])
    shadow = weight = 0
    products = [0, 0]
    for n in range(count - 1):
        # In cycle n the multiplier's register takes a of cycle n - 1 by the weight of that cycle.
        weight = shadow if swap[n] else weight
        shadow = int(w[n]) if load[n] else shadow
        products.append(int(a[n]) * weight)
        assert found["a_o"][n + 1] == int(a[n]) & 511
        assert (found["swap_o"][n + 1], found["load_o"][n + 1]) == (swap[n], load[n])
        assert found["w_o"][n + 1] == shadow & (2 * half - 1)
        expected = int(p[n]) + products[n]
        assert found["p_o"][n + 1] == expected & (2 * wide - 1), f"cycle {n + 1}"
