"""Testbench of the VECTOR unit with its memories modelled, against the instruction-set simulator.

Parameters: `config`; `scale_latency`, the row table's; `commands`, how many; `arrays`
commands with the machine's state around them.
"""

import json
from collections import deque
from typing import Any

import cocotb
import numpy as np

from tilewright.hw.commands import (
    BYTE_OUTS,
    COMMAND_LAYOUTS,
    PARAMETER_ROWS,
    Function,
    Mul,
    Opcode,
    Out,
    Parts,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
)
from tilewright.sim import golden
from tilewright.sim.iss.state import State, UndefinedError
from tilewright.sim.iss.vector import row, vector
from tilewright.sim.testbenches.runner import recorded
from tilewright.sim.testbenches.units.cell import Bench, Memory, ReadPort, pack, pack_command

Fields = dict[str, int]
NAMES = ("sp", "acc", "scale", "f1", "f2", "factor", "exponent", "top")
ACTIONS = {Opcode.VECTOR: vector, Opcode.ROW: row}
_MANTISSA, _EXPONENT = (part.tolist() for part in golden.row_scale(np.arange(32769)))


class RowTable:
    """The row table: reads by their latencies; a row read while it is written is old or new."""

    WIDTHS = {"scale": 16, "f1": 44, "f2": 48, "factor": 17, "exponent": 5, "top": 32}

    def __init__(self, bench: Bench, state: State) -> None:
        self.bench = bench
        self.memories = {
            name: Memory(bench, getattr(state, name).tolist(), unsure=0) for name in self.WIDTHS
        }
        self.scales: deque[int] = deque()
        self.next: Fields = {}
        self.last_write = -10
        bench.models.append(self)

    def before(self) -> None:
        for name, value in self.next.items():
            self.bench.set(name, value)
        if len(self.scales) == self.bench.values["scale_latency"]:
            a = min(self.scales.popleft(), 32768)
            self.bench.set("scale_m", _MANTISSA[a] - 4)
            self.bench.set("scale_e", _EXPONENT[a])

    def after(self) -> None:
        bench, memories = self.bench, self.memories
        get = bench.get
        early, update = get("early_stat"), get("update_stat")
        self.scales.append(memories["scale"].read(get("scale_address")))
        self.next = {
            "early_f1": memories["f1"].read(early),
            "early_factor": memories["factor"].read(early),
            "early_exponent": memories["exponent"].read(early),
            "early_top": memories["top"].read(early),
            "f1": memories["f1"].read(update),
            "f2": memories["f2"].read(update),
            "magnitude": memories["scale"].read(get("update_scale")),
        }
        if get("write_scale"):
            self._write("scale", get("write_scale_address"), get("write_magnitude"))
        if get("write_f1"):
            self._write("f1", get("write_stat_address"), bench.signed("write_f1_data"))
        if get("write_f2"):
            self._write("f2", get("write_stat_address"), get("write_f2_data"))
        if get("write_factor"):
            self._write("factor", get("write_stat_address"), get("write_factor_data"))
            self._write("exponent", get("write_stat_address"), get("write_exponent_data"))

    def _write(self, name: str, address: int, value: int) -> None:
        self.memories[name].write(address, value)
        self.last_write = self.bench.cycle - 1


class _Writer:
    """The scratchpad's write port."""

    def __init__(self, bench: Bench, memory: Memory) -> None:
        self.bench, self.memory = bench, memory
        self.last_write = -10
        lanes = bench.config.lanes
        self.chunks = [
            ((1 << 8 * lanes) - 1) << 8 * lanes * i for i in range(bench.config.word_bytes // lanes)
        ]
        bench.models.append(self)

    def before(self) -> None:
        pass

    def after(self) -> None:
        bench = self.bench
        if bench.get("sp_write_valid"):
            address, mask = bench.get("sp_write_address"), bench.get("sp_write_mask")
            bits = sum(chunk for i, chunk in enumerate(self.chunks) if mask >> i & 1)
            old = self.memory.words[address]
            self.memory.write(address, old & ~bits | bench.get("sp_write_data") & bits)
            self.last_write = bench.cycle - 1


class VectorBench:
    """The unit among its memories; `state` is the simulator's, executed alongside."""

    def __init__(self, bench: Bench, state: State, *, refuse: float) -> None:
        self.bench, self.state = bench, state
        bench.models.clear()
        self.sp = Memory(bench, [int.from_bytes(r.tobytes(), "little") for r in state.sp])
        acc = Memory(bench, [pack(r, 32) for r in state.acc])
        ReadPort(bench, "acc_read", acc, refuse=refuse)
        ReadPort(bench, "sp_read", self.sp, refuse=refuse)
        self.table = RowTable(bench, state)
        self.writer = _Writer(bench, self.sp)

    async def run(self, opcode: Opcode, f: Fields) -> None:
        """Run a command; all memories are as the simulator's in the cycle of `done`."""
        bench = self.bench
        port = "row_command" if opcode == Opcode.ROW else "command"
        bench.set(port, pack_command(opcode, f))
        bench.set("is_row", int(opcode == Opcode.ROW))
        bench.set("command_valid", 1)
        await bench.until(lambda: bench.get("command_ready"), 100, "command_ready")
        # What stands there while it runs must not matter.
        bench.set(port, int.from_bytes(bench.rng.bytes(len(bench.ports[port]) // 8), "little"))
        bench.set("command_valid", 0)
        flags = dict.fromkeys(("busy", "stall_operand", "stall_row", "draining"), 0)
        for _ in range(200_000):
            if bench.get("done"):
                break
            await bench.tick()
            for name in flags:
                flags[name] += bench.get(name)
        else:
            raise AssertionError(f"no end of {opcode.name} {f}")
        done = bench.cycle - 1
        for what, last in (("word", self.writer.last_write), ("row", self.table.last_write)):
            assert last + 2 <= done + 1, f"{what} written in {last}, done in {done}"
        if opcode == Opcode.VECTOR:
            columns = f["panels"] * bench.config.panel
            parts = 1 if f["source"] == Source.SP else f["parts"] + 1
            assert flags["busy"] == parts * f["m"] * columns // bench.config.lanes, flags
        ACTIONS[opcode](self.state, f)
        self.compare(f"{opcode.name} { ({k: v for k, v in f.items() if v}) }")

    def compare(self, what: str) -> None:
        words = [int.from_bytes(r.tobytes(), "little") for r in self.state.sp]
        if words != self.sp.words:
            at = next(
                i for i, (a, b) in enumerate(zip(words, self.sp.words, strict=True)) if a != b
            )
            raise AssertionError(
                f"{what}: scratchpad word {at} is {self.sp.words[at]:x}, expected {words[at]:x}"
            )
        for name, memory in self.table.memories.items():
            want = getattr(self.state, name).tolist()
            for at, (got, value) in enumerate(zip(memory.words, want, strict=True)):
                assert got == value, f"{what}: {name}[{at}] is {got}, expected {value}"


def random_state(bench: Bench, parameters: int) -> State:
    """A state full of numbers; parameter blocks from word `parameters` on have legal shifts."""
    config, rng = bench.config, bench.rng
    state = State(config, True)
    state.sp[:] = rng.integers(0, 256, state.sp.shape)
    extreme = rng.random(state.sp16.shape) < 0.1
    state.sp16[extreme] = rng.choice([-32768, 32767, 0, -1], state.sp16.shape)[extreme]
    blocks = state.sp16[parameters:]
    blocks = blocks[: len(blocks) // PARAMETER_ROWS * PARAMETER_ROWS].reshape(
        -1, PARAMETER_ROWS, config.panel
    )
    blocks[:, 1] = rng.integers(9, 40, blocks[:, 1].shape)
    blocks[:, 3] >>= 2  # |B| < 2^29
    low, high = -(1 << 31), (1 << 31) - 1
    state.acc[:] = rng.integers(low, high + 1, state.acc.shape) >> rng.integers(
        0, 31, state.acc.shape
    )
    state.acc[rng.random(state.acc.shape) < 0.03] = low
    rows = config.stat_rows
    state.scale[:] = np.minimum(
        rng.integers(0, 65536, config.scale_rows) >> rng.integers(0, 16, config.scale_rows), 32768
    )
    state.f1[:] = rng.integers(-(1 << 31), 1 << 31, rows) >> rng.integers(0, 31, rows)
    state.f2[:] = rng.integers(0, 1 << 20, rows)
    state.top[:] = rng.integers(-(1 << 31), 1 << 31, rows) >> rng.integers(0, 31, rows)
    state.factor[:] = rng.integers(0, 65537, rows)
    state.exponent[:] = rng.integers(0, 20, rows)
    return state


def random_vector(bench: Bench, parameters: int) -> Fields:
    """A VECTOR command whose output lies below the parameters."""
    config, rng = bench.config, bench.rng
    functions = [Function.NONE, Function.EXP2]
    functions += [Function[name.upper()] for name in config.functions]
    m = int(rng.choice([0, 1, 2, 3, 5, 8, 13], p=[0.03, 0.2, 0.15, 0.15, 0.15, 0.16, 0.16]))
    panels = int(rng.choice([0, 1, 2, 3], p=[0.02, 0.5, 0.28, 0.2]))
    columns = panels * config.panel
    most = parameters - 3 * 16
    f = dict.fromkeys(COMMAND_LAYOUTS[Opcode.VECTOR], 0)
    f |= {
        "m": m,
        "panels": panels,
        "valid": int(rng.choice([columns, columns, 0, int(rng.integers(columns + 2))])),
        "row0": int(rng.integers(columns + 2)),
        "acc_addr": int(rng.integers(config.acc_words)),
        "acc_stride": int(rng.integers(config.acc_words)),
        "in_addr": int(rng.integers(most)),
        "in_stride": 16,
        "out_addr": int(rng.integers(most)),
        "out_stride": int(rng.choice([13, 16])),
        "par_addr": parameters,
        "par_stride": PARAMETER_ROWS,
        "scale_in": int(rng.integers(config.scale_rows // 2 - 13)),
        "scale_out": config.scale_rows // 2 + int(rng.integers(config.scale_rows // 2 - 13)),
        "stat": int(rng.integers(config.stat_rows)),
        "imm": int(rng.integers(1, 4097)),
        "shift": int(rng.integers(0, 40)),
        "shift1": int(rng.integers(0, 24)),
        "shift2": int(rng.integers(0, 24)),
        "source": int(rng.integers(2)),
        "pre": int(rng.choice(list(Pre))),
        "mul": int(rng.choice(list(Mul))),
        "bias": int(rng.integers(2)),
        "function": int(rng.choice(functions)) if rng.random() < 0.5 else 0,
        "post": int(rng.choice(list(Post))),
        "out": int(rng.choice(list(Out))),
        "stat_op": int(rng.choice(list(Stat))),
        "magnitude": int(rng.integers(2)),
        "first": int(rng.integers(2)),
        "causal": int(rng.random() < 0.3),
        "parts": int(rng.choice([Parts.ONE, Parts.ONE, Parts.TWO, Parts.THREE])),
        "acc_part": int(rng.integers(config.acc_words)),
    }
    if f["post"] == Post.AFFINE:
        f["bias"] = 0
    if f["pre"] in (Pre.MAX_MINUS, Pre.CENTER) and f["stat_op"] in (Stat.MAX, Stat.MOMENTS):
        f["stat_op"] = int(Stat.SUM)
    if rng.random() < 0.3 and (f["source"] or f["post"] == Post.RESIDUAL):
        # In place: an element is read before it is written.
        if f["out"] in BYTE_OUTS:
            f["out"] = int(Out.S16)
        f |= {"out_addr": f["in_addr"], "out_stride": f["in_stride"]}
    else:
        f["in_addr"] = int(rng.integers(parameters // 2, most)) if most > parameters // 2 else 0
        f["out_addr"] = int(rng.integers(max(1, parameters // 2 - 3 * 16)))
    return f


async def start(dut: Any) -> Bench:
    bench = Bench(dut, timeout=1_000_000)
    await bench.start()
    return bench


@cocotb.test
async def random_commands(dut: Any) -> None:
    """Random VECTOR and ROW commands; reads refused at random."""
    bench = await start(dut)
    config, rng = bench.config, bench.rng
    parameters = config.sp_words - 3 * PARAMETER_ROWS
    ran = 0
    for refuse in (0.0, 0.4):
        unit = VectorBench(bench, random_state(bench, parameters), refuse=refuse)
        unit.state.check = False
        for _ in range(bench.values["commands"]):
            if rng.random() < 0.15:
                await unit.run(Opcode.ROW, _random_row(bench, unit.state))
                continue
            for _ in range(50):
                f = random_vector(bench, parameters)
                trial = State(config, True)
                for name in NAMES:
                    getattr(trial, name)[:] = getattr(unit.state, name)
                try:
                    vector(trial, f)
                except UndefinedError as error:
                    if "shift" in str(error):
                        continue
                break
            else:
                raise AssertionError("no command without an undefined shift")
            await unit.run(Opcode.VECTOR, f)
            ran += 1
    print(f"{config.name}: {ran} VECTOR commands, {bench.cycle} cycles")


@cocotb.test
async def short_groups(dut: Any) -> None:
    """Groups of a row or a few without parameters: statistics meet the row just written."""
    bench = await start(dut)
    parameters = bench.config.sp_words - 3 * PARAMETER_ROWS
    unit = VectorBench(bench, random_state(bench, parameters), refuse=0.0)
    unit.state.check = False
    for m in (1, 2, 3):
        for stat in (Stat.MAX, Stat.SUM, Stat.MOMENTS):
            for first in (0, 1):
                f = random_vector(bench, parameters)
                f |= {"m": m, "panels": 2, "valid": 2 * bench.config.panel, "causal": 0}
                f |= {"pre": 0, "mul": 0, "bias": 0, "function": 0, "post": 0, "parts": 0}
                f |= {"stat_op": stat, "first": first, "magnitude": 1}
                f |= {"source": int(stat == Stat.MOMENTS), "out": int(Out.S16), "out_addr": 0}
                f["in_addr"] = 64
                await unit.run(Opcode.VECTOR, f)


def _random_row(bench: Bench, state: State) -> Fields:
    config, rng = bench.config, bench.rng
    m = int(rng.integers(0, 7))
    f = dict.fromkeys(COMMAND_LAYOUTS[Opcode.ROW], 0)
    f |= {
        "m": m,
        "op": int(rng.choice(list(RowOp))),
        "stat": int(rng.integers(config.stat_rows)),
        "scale": int(rng.integers(config.scale_rows)),
        "sp_addr": int(rng.integers(config.sp_words // 2)),
        "n": 4096,
        "eps": int(rng.integers(1 << 40)),
    }
    # Sums as they come: den of 20 bits, S1 of 28.
    place = (f["stat"] + np.arange(m)) % config.stat_rows
    if (state.f2[place] >> 20).any() or (np.abs(state.f1[place]) >> 28).any():
        f["op"] = int(rng.choice([RowOp.GET, RowOp.PUT]))
    return f


@cocotb.test
async def replay(dut: Any) -> None:
    """Commands of a real layer with the memories they found; every bit they left."""
    bench = await start(dut)
    arrays = recorded()
    number = 0
    while f"{number}/command" in arrays:
        command = json.loads(str(arrays[f"{number}/command"]))
        state, after = State(bench.config, False), {}
        for name in NAMES:
            getattr(state, name)[:] = arrays[f"{number}/before/{name}"]
            after[name] = arrays[f"{number}/after/{name}"]
        unit = VectorBench(bench, state, refuse=0.3 * (number % 2))
        first = bench.cycle
        await unit.run(Opcode[command["opcode"]], command["fields"])
        for name in NAMES:
            assert np.array_equal(getattr(state, name), after[name]), f"{command}: {name}"
        print(f"{command['opcode']} {number}: {bench.cycle - first} cycles")
        number += 1
    assert number
