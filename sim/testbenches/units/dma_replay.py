"""Testbench of the DMA: LOADs and STOREs of a real layer.

Parameters: those of `dma_bench`; `arrays`, recorded commands with the scratchpad and the bytes of
DRAM around each.
"""

import json
from typing import Any

import cocotb
import numpy as np

from tilewright.sim.testbenches.runner import recorded
from tilewright.sim.testbenches.units.dma_bench import ORIGIN, SIZE, bench_for, plain

PAGE = 4096
"""No burst goes across a multiple of it."""


@cocotb.test
async def replay(dut: Any) -> None:
    """Each alone, in a window that fits, as far from the borders of pages as it was."""
    bench = await bench_for(dut, 12)
    memory = bench.memory
    arrays = recorded()
    number = 0
    while f"{number}/command" in arrays:
        item = json.loads(str(arrays[f"{number}/command"]))
        before, after = (
            {name: arrays[f"{number}/{when}/{name}"] for name in ("sp", "dram")}
            for when in ("before", "after")
        )
        first = item["lowest"] % PAGE
        behind = first + len(before["dram"])
        assert behind <= SIZE
        fields = plain(item["fields"]["length"], index=item["index"])
        t = {
            **fields,
            **{name: item["fields"][name] for name in fields if name in item["fields"]},
            "address": ORIGIN + first + item["start"] - item["lowest"],
            "base": ORIGIN + first,
            "limit": ORIGIN + behind,
        }
        load = item["opcode"] == "LOAD"
        pad, dram = (bench.loaded, memory.source) if load else (bench.stored, memory.target)
        pad[:] = before["sp"].reshape(-1)
        dram[first:behind] = before["dram"]
        expected = memory.target.copy()
        if not load:
            expected[first:behind] = after["dram"]
        memory.manners.latency = 20 if number % 2 else 1
        memory.manners.pause = bench.port_pause = 0.3 if number % 2 else 0.0
        name = item["opcode"].lower()
        count = bench.done[name] + 1
        bench.submit(name, t)
        await bench.until(
            lambda name=name, count=count: bench.done[name] == count,
            100_000,
            f"command {number}, {t}; fault {bench.fault(name)}",
        )
        assert np.array_equal(pad, after["sp"].reshape(-1)), f"command {number}, {t}"
        assert np.array_equal(memory.target, expected), f"command {number}, {t}"
        number += 1
    assert number
    print(f"{number} commands, {bench.cycle} cycles")
