"""Corners of the whole core, on RTL: what registers say, and commands at their limits."""

import numpy as np
import pytest

from tilewright.hw.commands import Fault, Mul, Opcode, Out, RowOp, Stat
from tilewright.hw.config import preset_config
from tilewright.hw.encoding import Scalar, command, encode
from tilewright.hw.manifest import manifest_hash
from tilewright.hw.registers import (
    CONTROL_IRQ_CLEAR,
    CONTROL_SOFT_RESET,
    CONTROL_START,
    REGISTERS,
    STATUS_DONE,
    STATUS_FAULT,
    STATUS_RESETTING,
)
from tilewright.sim.iss.machine import IssMachine
from tilewright.sim.native.simulator import NativeSimulator
from tilewright.sw.driver.simulators import simulator_library

CONFIG = preset_config("tiny")
BASE = 0x4000_0000
SIZE = 1 << 16
INPUT, OUTPUT = 0x1000, 0x2000
LIMIT = 1_500_000
HASH = manifest_hash(CONFIG)


class Core(NativeSimulator):
    """The core with one region, its registers by name."""

    def __init__(self) -> None:
        super().__init__(simulator_library(CONFIG), memory=((BASE, SIZE),))
        for name, value in (("BASE0", BASE), ("LIMIT0", BASE + SIZE)):
            self[f"{name}_LO"], self[f"{name}_HI"] = value, 0
        self["IRQ_ENABLE"] = 1
        self["WATCHDOG"] = 1000

    def __getitem__(self, name):
        return self.read32(REGISTERS[name].address)

    def __setitem__(self, name, value):
        self.write32(REGISTERS[name].address, value)

    def load(self, *body, code=HASH):
        """A program of these commands; its bytes."""
        program = assembled(body, code)
        self.write_memory(BASE, np.frombuffer(program, np.uint8))
        self["PROGRAM_COUNT"] = len(body) + 2
        return program

    def start(self, limit=LIMIT):
        """Run; whether the interrupt came."""
        self["CONTROL"] = CONTROL_START
        return self.wait(limit)

    def soft_reset(self):
        self["CONTROL"] = CONTROL_SOFT_RESET
        while self["STATUS"] & STATUS_RESETTING:
            pass


def assembled(body, code):
    begin = command(Opcode.BEGIN, hash=code, commands=len(body) + 2)
    return b"".join(map(encode, (begin, *body, command(Opcode.END))))


@pytest.fixture
def core():
    with Core() as one:
        yield one


def vector(**fields):
    return command(Opcode.VECTOR, **{"m": 1, "panels": 1, "source": 1, "out": Out.NONE, **fields})


def load(values, **more):
    move = {"region": 0, "offset": INPUT, "length": values.nbytes, "planes": 1, "sp_chunk": 1}
    return command(Opcode.LOAD, **{**move, "runs": 1, "posts": [(0, 1)], **more})


def test_a_program_of_no_commands_interrupts(core):
    core["PROGRAM_COUNT"] = 0
    assert core.start(1000)
    assert core["STATUS"] == STATUS_FAULT
    assert core["FAULT_CODE"] & 0xFF == Fault.PROGRAM_LENGTH


def test_a_refused_program_has_no_command_completed(core):
    core.load(code=HASH ^ 1)
    assert core.start(1000)
    assert core["FAULT_CODE"] & 0xFF == Fault.HASH_MISMATCH
    assert core["COMMANDS"] == 0


@pytest.mark.parametrize("cycles", [40, 300, 301, 302, 303])
def test_nothing_is_counted_behind_a_soft_reset(core, cycles):
    core.load(*(vector(m=100, panels=3) for _ in range(3)))
    core["CONTROL"] = CONTROL_START
    core.run(cycles)
    core.soft_reset()
    assert not core["CYCLES_LO"]
    assert not core["COMMANDS"]
    assert not [name for name in REGISTERS if name.startswith("COUNT_") and core[name]]


@pytest.mark.parametrize("value", [-32767, -32768])
def test_moments_beyond_any_row_end(core, value):
    # V of 4096 such columns of rms, four times, has bits above the 56 of a real one's.
    values = np.full(4, value, np.int16)
    moments = vector(
        panels=4096, valid=16384, stat_op=Stat.MOMENTS, first=1, in_stride=0, waits=[(0, 1)]
    )
    core.load(load(values), moments, command(Opcode.ROW, m=1, op=RowOp.RSQRT, n=4096, rms=1))
    core.write_memory(BASE + INPUT, values.view(np.uint8))
    assert core.start()
    assert core["STATUS"] == STATUS_DONE


@pytest.mark.parametrize("rows", [65532, 65533, 65535])
def test_a_put_of_most_rows_ends(core, rows):
    core.load(command(Opcode.ROW, m=Scalar(0), op=RowOp.PUT))
    core["SCALAR0"] = rows
    assert core.start()
    assert core["STATUS"] == STATUS_DONE


@pytest.mark.parametrize("panels", [32768, 40000])
def test_columns_beyond_all_do_not_count(core, panels):
    # One row of ones in 4-column panels: valid ends it long before the last panel.
    values = np.array([1] * 4 + [16384] * 4, np.int16)
    program = core.load(
        load(values, length=8, runs=2, run_stride=8, sp_chunk=1, sp_run=1),
        vector(panels=Scalar(0), valid=Scalar(1), stat_op=Stat.SUM, first=1, waits=[(0, 1)]),
        command(Opcode.ROW, m=1, op=RowOp.DIVIDE),
        vector(valid=4, in_addr=1, out_addr=8, mul=Mul.ROW, out=Out.S16, posts=[(1, 1)]),
        command(
            Opcode.STORE,
            region=0,
            offset=OUTPUT,
            sp_addr=8,
            length=8,
            runs=1,
            planes=1,
            sp_chunk=1,
            waits=[(1, 1)],
        ),
    )
    core["SCALAR0"], core["SCALAR1"] = panels, 65535
    core.write_memory(BASE + INPUT, values.view(np.uint8))
    assert core.start()
    assert core["STATUS"] == STATUS_DONE

    machine, memory = IssMachine(CONFIG), np.zeros(SIZE, np.uint8)
    memory[INPUT:][: values.nbytes] = values.view(np.uint8)
    machine.dram.attach(BASE, memory)
    machine.set_region(0, BASE, BASE + SIZE)
    machine.scalars[:2] = panels, 65535
    machine.run(program)
    want = memory[OUTPUT:][:8]
    assert want.any()
    np.testing.assert_array_equal(core.read_memory(BASE + OUTPUT, 8), want)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_cycles_of_a_group(core, m, parts):
    taken = []
    for panels in (64, 128):
        core.load(vector(source=0, m=m, panels=panels, parts=parts - 1, acc_stride=m, valid=1))
        assert core.start()
        taken.append(core["CYCLES_LO"])
        core["CONTROL"] = CONTROL_IRQ_CLEAR
    groups = 64 * CONFIG.panel // CONFIG.lanes
    assert taken[1] - taken[0] == groups * (max(m * parts, parts + 3) if m > 1 else max(parts, 3))
