"""Testbench of the activation feeder, its lanes, and the row scale's (m, e).

Parameters: `config`; `step`, which share of s16 is fed by each scale; `vectors`, file of vectors.
"""

from typing import Any

import cocotb
import numpy as np

from tilewright.hw.commands import XMode
from tilewright.sim import golden
from tilewright.sim.testbenches.units.cell import Bench, pack, unpack

LANE_LATENCY = 4
ROW_SCALE_LATENCY = 3


def expected(mode: int, x: np.ndarray, byte: np.ndarray, m: np.ndarray, e: np.ndarray) -> Any:
    """What a lane makes of its element."""
    if mode == XMode.SCALED:
        return golden.feed8(x[:, None], m, e)[:, 0].astype(np.int64)
    return {
        XMode.S8: byte.astype(np.int8).astype(np.int64),
        XMode.U8: byte.astype(np.int64),
        XMode.HIGH: (x.astype(np.int64) + 128) >> 8,
        XMode.LOW: x.astype(np.uint8).astype(np.int8).astype(np.int64),
    }[XMode(mode)]


def _late(values: np.ndarray, cycles: int, rng: np.random.Generator, bound: int) -> np.ndarray:
    """The values `cycles` later, behind others that mean nothing."""
    return np.concatenate([rng.integers(0, bound, cycles), values])


async def _lane(
    bench: Bench, mode: np.ndarray, x: np.ndarray, byte: np.ndarray, m: np.ndarray, e: np.ndarray
) -> np.ndarray:
    """Elements through a lane, one a cycle."""
    zeros = np.zeros(2, dtype=np.int64)
    found = await bench.play(
        {
            "mode": np.concatenate([mode, zeros]),
            "x": np.concatenate([x, zeros]),
            "byte": np.concatenate([byte, zeros]),
            "m": np.concatenate([_late(m - 4, 1, bench.rng, 4), zeros[:1]]),
            "e": _late(e, 2, bench.rng, 10),
        },
        ["a"],
        drain=2,
    )
    values = np.array(found["a"][LANE_LATENCY:])
    return np.where(values >= 256, values - 512, values)


def _same(found: np.ndarray, want: np.ndarray, what: str) -> None:
    wrong = np.flatnonzero(found != want)
    assert not len(wrong), (
        f"{what}: {len(wrong)} of {want.size} differ, the first at {wrong[0]}: "
        f"{found.flat[wrong[0]]}, expected {want.flat[wrong[0]]}"
    )


@cocotb.test
async def lane(dut: Any) -> None:
    """All modes in any order, corners, and the vectors of feed8."""
    bench = Bench(dut)
    rng = bench.rng
    await bench.start()
    corners = [-32768, -32767, -129, -128, -1, 0, 1, 127, 128, 32639, 32640, 32767]
    count = 4000
    mode = rng.integers(0, 5, count)
    x = np.where(rng.random(count) < 0.3, rng.choice(corners, count), 0)
    x = np.where(x, x, rng.integers(-32768, 32768, count))
    byte, m, e = rng.integers(0, 256, count), rng.integers(4, 8, count), rng.integers(0, 10, count)
    found = await _lane(bench, mode, x, byte, m, e)
    for which in XMode:
        rows = mode == which
        want = expected(which, x[rows], byte[rows], m[rows], e[rows])
        _same(found[rows], want, which.name)
    with np.load(bench.values["vectors"]) as vectors:
        for name in ("feed8", "feed8f"):
            x = vectors[f"{name}_x"].astype(np.int64)
            m, e = (
                np.repeat(vectors[f"{name}_{part}"].astype(np.int64), x.shape[1]) for part in "me"
            )
            x = x.ravel()
            found = await _lane(bench, 0 * x, x, 0 * x, m, e)
            _same(found, vectors[f"{name}_x8"].astype(np.int64).ravel(), name)


@cocotb.test
async def feeder(dut: Any) -> None:
    """Words through the feeder: each part of the panel, both halves, every scale."""
    bench = Bench(dut)
    config, rng = bench.config, bench.rng
    await bench.start()
    panel, rows = config.panel, config.rows
    subs = panel // rows
    step = bench.values["step"]
    words, modes, select, halves, ms, es, wants = [], [], [], [], [], [], []
    scales = [(m, e) for e in range(10) for m in range(7, 3, -1)]
    count = -(-65536 // (rows * step))
    for index in range(len(scales) * count):
        m, e = scales[index // count]
        # Three rows of five are scaled; of those all parts of s16 in turn.
        mode = int(rng.choice([0, 0, 0, 1, 2, 3, 4])) if step > 1 else 0
        values = np.arange(rows) * step + int(rng.integers(step))
        values = (values + (index % count) * rows * step) % 65536 - 32768
        word = rng.integers(-32768, 32768, panel)
        sub, half = int(rng.integers(subs)), int(rng.integers(2))
        word[sub * rows :][:rows] = values
        packed = pack(word, 16)
        raw = np.frombuffer(packed.to_bytes(2 * panel, "little"), dtype=np.uint8)
        byte = raw[half * panel + sub * rows :][:rows].astype(np.int64)
        words.append(packed)
        modes.append(mode)
        select.append(sub)
        halves.append(half)
        ms.append(m)
        es.append(e)
        wants.append(expected(mode, values, byte, np.full(rows, m), np.full(rows, e)))
    found = await bench.play(
        {
            "word": [*words, 0],
            "mode": [*modes, 0],
            "sub": [*select, 0],
            "half": [*halves, 0],
            "m": [0, *(m - 4 for m in ms)],
            "e": [9, *es],
        },
        ["a"],
        drain=LANE_LATENCY,
    )
    for index, want in enumerate(wants):
        got = unpack(found["a"][index + LANE_LATENCY], 9, rows)
        _same(got, want, f"word {index}, mode {modes[index]}, m {ms[index]}, e {es[index]}")


@cocotb.test
async def row_scale(dut: Any) -> None:
    """(m, e) of every largest magnitude, in a shuffled order."""
    bench = Bench(dut)
    await bench.start()
    a = bench.rng.permutation(32769)
    found = await bench.play({"a": a}, ["m", "e"], drain=ROW_SCALE_LATENCY)
    m, e = golden.row_scale(a)
    for name, want in (("m", m.astype(np.int64) - 4), ("e", e.astype(np.int64))):
        _same(np.array(found[name][ROW_SCALE_LATENCY:]), want, name)
