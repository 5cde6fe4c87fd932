"""Rows as a sweep gives them, made up: the report must show them, not believe them."""

import itertools

import numpy as np

KEYS = (
    "point", "name", "rows", "columns", "lanes", "row_engines", "sp_banks", "sp_depth", "acc_banks",
    "acc_depth", "axi_data_width", "precision", "sequence", "mem_latency", "mem_bandwidth",
    "status", "reason", "cycles", "utilization", "rtl_cycles", "rtl_error", "accuracy_mean",
    "accuracy_worst", "onchip_bytes", "dram_bytes", "lut", "ff", "dsp", "bram", "units", "fmax_mhz",
    "latency_ms", "inferences_per_s", "seconds", "seed", "versions", "manifest_hash", "command",
)  # fmt: skip
ACCURACY = {"w4a8": 0.9931, "w8a8": 0.9987, "w8a16": 0.9998}
COST = {"w4a8": 1.0, "w8a8": 1.02, "w8a16": 1.9}


def sweep_rows(count=60, *, synth=True, seed=1):
    """`count` points over array, lanes, precision and scratchpad; some fail, some cannot be."""
    rng = np.random.default_rng(seed)
    space = itertools.cycle(
        itertools.product((4, 8, 16, 32), (4, 8, 16), ACCURACY, (2048, 4096, 8192))
    )
    # A stride that visits all of every dimension early.
    points = list(itertools.islice(space, 108))
    found = []
    for number in range(count):
        size, lanes, precision, depth = points[(number * 7) % 108]
        row = dict.fromkeys(KEYS)
        row.update(
            point=f"p{number:04}",
            name=f"{size}×{size} lanes {lanes} {precision} sp {depth}",
            rows=size, columns=size, lanes=lanes, row_engines=1, sp_banks=4, sp_depth=depth,
            acc_banks=2, acc_depth=1024, axi_data_width=128, precision=precision, sequence=128,
            mem_latency=30, mem_bandwidth=16.0, status="done", seed=7,
            seconds=float(rng.uniform(2, 30)),
            versions={"tilewright": "0.1.0", "verilator": "5.048", "yosys": "0.58"},
            manifest_hash=f"{rng.integers(1 << 62):016x}",
            command=f"tilewright sweep --point p{number:04} -o build/sweep",
        )  # fmt: skip
        found.append(row)
        if size == 32 and depth == 2048:
            row.update(status="infeasible", reason="sp_depth 2048: a row block needs 2,816 words")
            continue
        if number % 29 == 17:
            row.update(status="failed", reason='CompileError: <b>no plan</b> fits & "so on"')
            continue
        work = 5.4e6 * (16 / size) ** 2 * COST[precision]
        vector = 2.6e6 * 8 / lanes
        cycles = int(max(work, vector) + 0.18 * min(work, vector) + 3e4 * 8192 / depth)
        row.update(
            cycles=cycles,
            utilization=work / cycles,
            accuracy_mean=ACCURACY[precision],
            accuracy_worst=ACCURACY[precision] - 0.004,
            onchip_bytes=4 * depth * 2 * size + 8192 * size,
            dram_bytes=int(11e6 * (0.5 if precision == "w4a8" else 1) * (1 + 2048 / depth)),
        )
        if number % 8 == 0:
            row.update(rtl_cycles=cycles + 311, rtl_error=311 / cycles)
        if synth:
            lut = int(9000 + 95 * size * size + 1800 * lanes + 0.02 * depth * size)
            fmax = 78 - 0.5 * size - 0.4 * lanes
            row.update(
                lut=lut, ff=int(0.7 * lut), dsp=size * size // 2 + 2 * lanes,
                bram=depth * size // 1024, fmax_mhz=fmax, latency_ms=cycles / fmax / 1e3,
                inferences_per_s=fmax * 1e6 / cycles,
                units={"array": {"lut": 95 * size * size}, "vector": {"lut": 1800 * lanes}},
            )  # fmt: skip
    return found
