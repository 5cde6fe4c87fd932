"""Testbench of the scratchpad against a NumPy model.

Parameters: `config`; `cycles`, how many.
"""

from typing import Any

import cocotb
import numpy as np

from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.sim.testbenches.units.cell import Bench

READERS = ("feeder", "loader", "vector", "dma")
WRITERS = ("vector", "dma")
"""By priority, see docs/architecture.md."""


@cocotb.test
async def traffic(dut: Any) -> None:
    """All ports at once: priorities, latency, masks, and words just written."""
    bench = Bench(dut)
    config, rng = bench.config, bench.rng
    await bench.start()
    size, lanes = config.word_bytes, config.lanes
    memory = np.zeros((config.sp_words, size), dtype=np.uint8)
    written = np.full(config.sp_words, -10)
    # (cycle its data is due, reader, cycle of the grant, what it may be)
    due: list[tuple[int, str, list[bytes]]] = []
    held: dict[str, dict[str, int]] = {}
    hot = rng.choice(config.sp_words, 6)
    grants = dict.fromkeys([f"{n}_read" for n in READERS] + [f"{n}_write" for n in WRITERS], 0)
    refused = dict.fromkeys(grants, 0)
    for cycle in range(bench.values["cycles"]):
        rate = (0.1, 0.6, 1.0)[cycle // 200 % 3]
        # A refused request stays as it is.
        for name in grants:
            if name in held:
                continue
            address = int(rng.choice(hot) if rng.random() < 0.5 else rng.integers(config.sp_words))
            request = {"valid": int(rng.random() < rate), "address": address}
            if name.endswith("write"):
                request["data"] = int.from_bytes(rng.bytes(size), "little")
                request["mask"] = int(rng.integers(1 << size // lanes))
            held[name] = request
        await bench.tick(
            **{f"{name}_{key}": v for name, request in held.items() for key, v in request.items()}
        )
        before = memory.copy() if any(held[f"{n}_write"]["valid"] for n in WRITERS) else memory
        for kind, names in (("write", WRITERS), ("read", READERS)):
            banks: set[int] = set()
            for name in names:
                port = f"{name}_{kind}"
                request = held[port]
                at = request["address"]
                bank = at // config.sp_depth
                ready = bench.get(f"{port}_ready")
                assert ready == (bank not in banks), f"cycle {cycle}: {port}_ready is {ready}"
                if not request["valid"]:
                    del held[port]
                    continue
                banks.add(bank)
                if not ready:
                    refused[port] += 1
                    continue
                grants[port] += 1
                del held[port]
                if kind == "write":
                    mask = np.repeat(
                        [request["mask"] >> i & 1 for i in range(size // lanes)], lanes
                    )
                    new = np.frombuffer(request["data"].to_bytes(size, "little"), dtype=np.uint8)
                    memory[at] = np.where(mask, new, memory[at])
                    written[at] = cycle
                else:
                    # A word of this cycle's or the last one's write may be the old one still.
                    fresh = written[at] >= cycle - 1
                    legal = [] if fresh else [before[at].tobytes()]
                    due.append((cycle + SP_READ_LATENCY, name, legal))
        for when, name, legal in due:
            if when == cycle and legal:
                got = bench.get(f"{name}_read_data").to_bytes(size, "little")
                assert got in legal, f"cycle {cycle}: {name} got {got.hex()}, not {legal[0].hex()}"
        due = [item for item in due if item[0] > cycle]
    print(f"{config.name}: granted {grants}, refused {refused}")
    assert refused.pop("feeder_read") == 0
    assert refused.pop("vector_write") == 0
    assert all(refused.values())
    # Everything is where the model has it, each reader sees all of it.
    for port in grants:
        bench.set(f"{port}_valid", 0)
    await bench.tick()
    for first, name in enumerate(READERS):
        order = np.arange(first, config.sp_words, len(READERS))
        found = await bench.play(
            {f"{name}_read_address": order, f"{name}_read_valid": [1] * len(order)},
            [f"{name}_read_data"],
            drain=SP_READ_LATENCY,
        )
        bench.set(f"{name}_read_valid", 0)
        words = found[f"{name}_read_data"][SP_READ_LATENCY:]
        for at, word in zip(order.tolist(), words, strict=True):
            assert word == int.from_bytes(memory[at].tobytes(), "little"), f"word {at}"
