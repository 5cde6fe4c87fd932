"""Testbench of the row unit.

Parameters: `config`; `vectors`, file of vectors; `rows`, how many random ones a command has.
"""

from typing import Any

import cocotb
import numpy as np

from tilewright.hw.commands import Opcode, RowOp
from tilewright.sim import golden
from tilewright.sim.testbenches.units.cell import (
    Bench,
    Memory,
    ReadPort,
    pack,
    pack_command,
    unpack,
)

DIVIDE_CYCLES, RSQRT_CYCLES = 23, 80
"""Cycles of a row in one engine at most."""


class _Tables:
    """Row statistics and scale rows behind the unit's addresses, and what it writes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        config = bench.config
        self.f1 = [0] * config.stat_rows
        self.f2 = [0] * config.stat_rows
        self.results: dict[int, tuple[int, int]] = {}
        self.scale = [0] * config.scale_rows
        self.words: dict[int, int] = {}
        self.writes = 0
        self.cycles = 0
        self.next: dict[str, int] = {}
        bench.models.append(self)

    def before(self) -> None:
        for name, value in self.next.items():
            self.bench.set(name, value)

    def after(self) -> None:
        get = self.bench.get
        self.cycles += get("active")
        stat, scale = get("stat_address"), get("scale_address")
        self.next = {"f1": self.f1[stat], "f2": self.f2[stat], "magnitude": self.scale[scale]}
        if get("write_factor"):
            written = get("write_stat_address")
            assert written not in self.results, f"row {written} is written twice"
            self.results[written] = get("factor"), get("exponent")
        if get("write_scale"):
            self.scale[scale] = get("write_magnitude")
            self.writes += 1
        if get("write_valid"):
            self.words[get("write_address")] = get("write_data")


async def _execute(bench: Bench, tables: _Tables, f: dict[str, int]) -> int:
    tables.results.clear()
    tables.words.clear()
    tables.writes = tables.cycles = 0
    await bench.tick(command=pack_command(Opcode.ROW, f), start=1)
    # The command is taken in the cycle of `start`.
    await bench.tick(command=0, start=0)
    assert bench.get("active")
    await bench.until(lambda: not bench.get("active"), 200_000, "active")
    return tables.cycles


async def _statistics(
    bench: Bench, tables: _Tables, f: dict[str, int], f1: np.ndarray, f2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factors and exponents of rows, as many commands as the table needs."""
    rows = bench.config.stat_rows
    factors, exponents = [], []
    for first in range(0, len(f2), rows):
        part = slice(first, first + rows)
        count = len(f2[part])
        offset = int(bench.rng.integers(rows))
        for index in range(count):
            tables.f1[(offset + index) % rows] = int(f1[part][index]) & ((1 << 44) - 1)
            tables.f2[(offset + index) % rows] = int(f2[part][index])
        cycles = await _execute(bench, tables, {**f, "m": count, "stat": offset})
        least = RSQRT_CYCLES if f["op"] == RowOp.RSQRT else DIVIDE_CYCLES
        # Engines work side by side, and rows are handed out every other cycle.
        turns = -(-count // bench.config.row_engines)
        most = turns * least + 2 * bench.config.row_engines + 4
        assert cycles <= most, f"{cycles} cycles for {count} rows"
        assert len(tables.results) == count
        for index in range(count):
            factor, exponent = tables.results[(offset + index) % rows]
            factors.append(factor)
            exponents.append(exponent)
    return np.array(factors), np.array(exponents)


@cocotb.test
async def divide(dut: Any) -> None:
    """Corners, the vectors' denominators, random ones of every length."""
    bench = Bench(dut, timeout=1_000_000)
    await bench.start()
    tables = _Tables(bench)
    corners = [0, 1, 2, 3, 255, 255 * 4096, (1 << 20) - 1, (1 << 20) - 2]
    corners += [(1 << n) + d for n in range(2, 20) for d in (-1, 0, 1)]
    random = bench.rng.integers(1, 1 << 20, bench.values["rows"]) >> bench.rng.integers(
        0, 20, bench.values["rows"]
    )
    with np.load(bench.values["vectors"]) as vectors:
        known = {name: vectors[f"context_{name}"] for name in ("den", "R", "n")}
    den = np.concatenate([corners, random, known["den"]]).astype(np.int64)
    factor, exponent = await _statistics(bench, tables, {"op": RowOp.DIVIDE}, 0 * den, den)
    n, r = golden.reciprocal(den)
    assert np.array_equal(factor, r), den[factor != r]
    assert np.array_equal(exponent, n), den[exponent != n]
    last = slice(len(den) - len(known["den"]), None)
    assert np.array_equal(factor[last], known["R"])
    assert np.array_equal(exponent[last], known["n"])


@cocotb.test
async def rsqrt(dut: Any) -> None:
    """Sums of the norms' vectors give their r and k; corners of V."""
    bench = Bench(dut, timeout=1_000_000)
    await bench.start()
    tables = _Tables(bench)
    rng = bench.rng
    with np.load(bench.values["vectors"]) as vectors:
        for name in bench.values["norms"]:
            v = {part: vectors[f"{name}_{part}"] for part in ("z", "S1", "S2", "V", "r", "k")}
            n, eps = v["z"].shape[1], int(vectors[f"{name}_eps_q"][0])
            rms = int(name.startswith("rms"))
            s1 = v["z"].astype(np.int64).sum(axis=1) if rms else v["S1"].astype(np.int64)
            f = {"op": RowOp.RSQRT, "n": n, "eps": eps, "rms": rms}
            r, k = await _statistics(bench, tables, f, s1, v["S2"])
            assert np.array_equal(r, v["r"]), name
            assert np.array_equal(k, v["k"]), name
    for n, eps in ((1, 0), (1, 1), (4096, (1 << 40) - 1), (3, 0), (384, 12345)):
        # All rows of one sign and size, so that V is eps or 1; the largest ones; any.
        size = rng.integers(0, 32769, 8)
        some = rng.integers(-32768, 32768, (6, n))
        s1 = np.concatenate([n * size, -n * size, [n * 32767, -n * 32768], some.sum(axis=1)])
        s2 = np.concatenate(
            [n * size**2, n * size**2, [n * 32768**2, n * 32768**2], (some**2).sum(axis=1)]
        )
        r, k = await _statistics(
            bench, tables, {"op": RowOp.RSQRT, "n": n, "eps": eps, "rms": 0}, s1, s2
        )
        want_r, want_k = golden.rsqrt_row(s1, s2, n, eps)
        assert np.array_equal(r, want_r), (n, eps, s1, s2, r, want_r)
        assert np.array_equal(k, want_k), (n, eps)
    # A negative V cannot come of sums, but must count as 1.
    r, k = await _statistics(
        bench,
        tables,
        {"op": RowOp.RSQRT, "n": 2, "eps": 0, "rms": 0},
        np.array([1000, -5]),
        np.array([1, 0]),
    )
    assert r.tolist() == [65536, 65536]
    assert k.tolist() == [0, 0]


@cocotb.test
async def get_and_put(dut: Any) -> None:
    """Scale rows from words and back, wrapping at the table's end, behind a refused port."""
    bench = Bench(dut)
    config, rng = bench.config, bench.rng
    await bench.start()
    tables = _Tables(bench)
    panel = config.panel
    values = rng.integers(0, 65536, (config.sp_words, panel))
    memory = Memory(bench, [pack(row, 16) for row in values])
    ReadPort(bench, "read", memory, refuse=0.4)
    for m in (0, 1, panel - 1, panel, panel + 1, 3 * panel, config.scale_rows):
        f = {"m": m, "scale": int(rng.integers(config.scale_rows))}
        f["sp_addr"] = int(rng.integers(config.sp_words - m))
        place = (f["scale"] + np.arange(m)) % config.scale_rows
        old = np.array(tables.scale)
        await _execute(bench, tables, {**f, "op": RowOp.GET})
        want = old.copy()
        want[place] = values[f["sp_addr"] :].ravel()[:m]
        assert np.array_equal(tables.scale, want), f"GET of {m}"
        assert tables.writes == m
        tables.scale[:] = rng.integers(0, 65536, config.scale_rows).tolist()
        await _execute(bench, tables, {**f, "op": RowOp.PUT})
        words = -(-m // panel)
        want = np.zeros(words * panel, dtype=np.int64)
        want[:m] = np.array(tables.scale)[place]
        assert sorted(tables.words) == [f["sp_addr"] + i for i in range(words)], f"PUT of {m}"
        got = [
            unpack(tables.words[f["sp_addr"] + i], 16, panel, signed=False) for i in range(words)
        ]
        assert np.array_equal(np.array(got).ravel(), want), f"PUT of {m}"
