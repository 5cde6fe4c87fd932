"""The instruction-set simulator: LOAD and STORE, what is undefined, every fault, DRAM."""

from typing import Any

import numpy as np
import pytest

from tests.sim.iss_programs import CONFIGS, EACH_CONFIG, fault, program, rng_for, run
from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    Fault,
    Function,
    Mul,
    Opcode,
    Out,
    Post,
    Pre,
    RowOp,
    Stat,
    Unit,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, command, encode
from tilewright.hw.manifest import manifest_hash
from tilewright.sim.iss import Dram, FaultRecord, IssMachine, UndefinedError

# LOAD and STORE.


@EACH_CONFIG
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("length", [1, 5, 37, 64])
def test_load_store(config, half, length):
    rng = rng_for(half, length)
    machine = IssMachine(config, check=True)
    machine.place(0, 4096)
    source = machine.place(1, rng.integers(0, 256, 5000, dtype=np.uint8))
    target = machine.place(2, 5000)
    machine.sp[:] = 0xAA
    width = config.panel if half else config.word_bytes
    chunks = -(-length // width)
    runs, planes = 5, 2
    deep = 3 if half else runs
    item = {"sp_addr": 4, "region": 1, "half": half, "offset": 1200, "length": length}
    item |= {"runs": runs, "planes": planes, "run_stride": -70, "plane_stride": 701}
    item |= {"sp_chunk": deep, "sp_run": 1, "sp_plane": deep * chunks + 1}
    back = item | {"region": 2, "offset": 11, "run_stride": 70, "plane_stride": 400}
    run(machine, Command(Opcode.LOAD, item), Command(Opcode.STORE, back))
    expected = np.zeros_like(target)
    for k in range(planes):
        for j in range(runs):
            data = source[1200 + k * 701 - j * 70 :][:length]
            expected[11 + k * 400 + j * 70 :][:length] = data
            padded = np.zeros(chunks * width, dtype=np.uint8)
            padded[:length] = data
            for c in range(chunks):
                row = 4 + k * (deep * chunks + 1) + c * deep + (j // 2 if half else j)
                side = j % 2 * width if half else 0
                np.testing.assert_array_equal(
                    machine.sp[row, side : side + width], padded[c * width : (c + 1) * width]
                )
        if half:
            last = 4 + k * (deep * chunks + 1) + 2
            assert (machine.sp[last, width:] == 0xAA).all()
    np.testing.assert_array_equal(target, expected)


def test_nothing_moves():
    machine = IssMachine(CONFIGS[2], check=True)
    for name in ("runs", "planes", "length"):
        fields = {"runs": 1, "planes": 1, "length": 8, "region": 7, name: 0}
        run(machine, Command(Opcode.LOAD, dict(fields)), Command(Opcode.STORE, dict(fields)))
    for name in ("m", "kt", "nt"):
        fields = {"m": 1, "kt": 1, "nt": 1, name: 0}
        run(machine, Command(Opcode.MATMUL, fields))
    run(machine, command(Opcode.VECTOR, m=1, magnitude=1, first=1))
    assert machine.completed == 3


def test_offset_scalar_has_32_bits():
    machine = IssMachine(CONFIGS[2], np.arange(256, dtype=np.uint8), check=True)
    machine.dram.attach(1 << 32, np.arange(100, 200, dtype=np.uint8))
    machine.set_region(1, 16, (1 << 32) + 100)
    machine.set_region(0, 4096, 8192)
    machine.dram.attach(4096, np.zeros(4096, dtype=np.uint8))
    machine.scalars[9] = 0xFFFF0000
    run(
        machine,
        command(
            Opcode.LOAD,
            region=1,
            offset=0xFFF5,
            scalar_on=1,
            scalar=9,
            length=3,
            runs=1,
            planes=1,
        ),
    )
    np.testing.assert_array_equal(machine.sp[0, :4], [105, 106, 107, 0])


def test_wrap():
    config = CONFIGS[2]
    last = config.sp_words - 1
    item = command(Opcode.LOAD, sp_addr=last, region=1, length=16, runs=1, planes=1, sp_chunk=1)
    for check in (False, True):
        machine = IssMachine(config, check=check)
        machine.place(0, 4096)
        machine.place(1, np.arange(16, dtype=np.uint8))
        if check:
            with pytest.raises(UndefinedError, match=f"command 1, LOAD: .* {last + 1}"):
                run(machine, item)
        else:
            run(machine, item)
            np.testing.assert_array_equal(machine.sp[last], np.arange(8))
            np.testing.assert_array_equal(machine.sp[0], np.arange(8, 16))


# Undefined results.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mul": Mul.CHANNEL}, "a shift of -8"),
        ({"mul": Mul.CHANNEL, "pre": Pre.ROW_SCALE}, "a shift of -9"),
        ({"mul": Mul.IMMEDIATE, "shift": 62}, "a shift of 62"),
        ({"mul": Mul.ROW, "shift": 60}, "a shift of 63"),
        ({"post": Post.SMOOTH, "shift2": 63}, "a shift of 63"),
        ({"pre": Pre.CENTER, "imm": 5000}, "imm of CENTER"),
        ({"pre": Pre.ROW_SCALE, "scale_in": 1}, "magnitude of 32769"),
        ({"m": 2, "stat": 255, "stat_op": Stat.SUM}, "stat: address 256"),
        ({"m": 2, "scale_out": 1023, "magnitude": 1}, "scale_out: address 1024"),
        ({"m": 2, "acc_addr": 2047}, "acc_addr: address 2048"),
    ],
)
def test_undefined_vector(fields, message):
    config = CONFIGS[2]
    item = Command(Opcode.VECTOR, {"m": 1, "panels": 1, "valid": 4, **fields})
    for check in (True, False):
        machine = IssMachine(config, check=check)
        machine.exponent[:] = 3
        machine.scale[0], machine.scale[1] = 32768, 32769
        if check:
            with pytest.raises(UndefinedError, match=message):
                run(machine, item)
        else:
            run(machine, item)
    # Invalid columns do not count: their parameters may be anything.
    if "shift of -" in message:
        machine = IssMachine(config, check=True)
        run(machine, Command(Opcode.VECTOR, {**item.fields, "valid": 0}))


def test_undefined_elsewhere():
    config = CONFIGS[2]
    machine = IssMachine(config, check=True)
    machine.f2[0] = 1 << 20
    with pytest.raises(UndefinedError, match="20 bits"):
        run(machine, command(Opcode.ROW, op=RowOp.DIVIDE, m=1))
    with pytest.raises(UndefinedError, match="n = 0"):
        run(machine, command(Opcode.ROW, op=RowOp.RSQRT, m=1))
    with pytest.raises(UndefinedError, match="40 bits"):
        run(machine, command(Opcode.ROW, op=RowOp.RSQRT, m=1, n=1, eps=1 << 40))
    machine.f1[0] = 1 << 28
    with pytest.raises(UndefinedError, match="28 bits"):
        run(machine, command(Opcode.ROW, op=RowOp.RSQRT, m=1, n=1))
    with pytest.raises(UndefinedError, match="semaphores \\[3\\]"):
        run(machine, command(Opcode.ROW, posts=[(3, 1)]))
    machine.place(2, 64)
    fields = {"region": 2, "length": 8, "runs": 2, "planes": 1, "run_stride": 7}
    with pytest.raises(UndefinedError, match="overlap"):
        run(machine, Command(Opcode.STORE, fields))
    # Without check mode the machine goes on.
    machine.check = False
    machine.f2[0] = (1 << 48) - 1
    for fields in ({"n": 0}, {"n": 65535, "eps": (1 << 64) - 1}, {"n": 4096}):
        run(machine, Command(Opcode.ROW, {"op": RowOp.RSQRT, "m": 1, **fields}))


# Faults.


def test_front_end_faults():
    config = CONFIGS[2]
    machine = IssMachine(config)
    end = command(Opcode.END)
    begin = command(Opcode.BEGIN, hash=manifest_hash(config), commands=3)
    good = program(config, command(Opcode.ROW))
    machine.place(0, 4096)
    machine.run(good)
    assert machine.fault is None
    assert machine.completed == 3

    def expect(data, code, index, **more):
        assert fault(machine, data, **more) == FaultRecord(code, Unit.FETCH, index)
        assert machine.completed == index

    expect(program(config, command(Opcode.ROW), digest=5), Fault.HASH_MISMATCH, 0)
    expect(program(config, command(Opcode.ROW), count=4), Fault.PROGRAM_LENGTH, 0)
    expect(program(config, command(Opcode.ROW), count=4, digest=5), Fault.HASH_MISMATCH, 0)
    expect(good, Fault.PROGRAM_LENGTH, 0, count=2)
    expect(good[64:], Fault.PROGRAM_LENGTH, 0)
    expect(program(config, end), Fault.PROGRAM_LENGTH, 1)
    expect(program(config, begin), Fault.PROGRAM_LENGTH, 1)
    last = program(config, command(Opcode.ROW), command(Opcode.ROW))
    expect(last[:-64] + encode(command(Opcode.ROW)), Fault.PROGRAM_LENGTH, 3)
    expect(good, Fault.PROGRAM_LENGTH, 0, count=0)
    expect(good[:64], Fault.PROGRAM_LENGTH, 0)
    for opcode in (0, 3, 0x12, 0xFF):
        expect(good[:64] + bytes([opcode]) + good[65:], Fault.ILLEGAL_OPCODE, 1)
        expect(bytes([opcode]) + good[1:], Fault.ILLEGAL_OPCODE, 0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_illegal_fields(config):
    machine = IssMachine(config)
    machine.place(0, 4096)
    bounds = {"sp": config.sp_words, "acc": config.acc_words}
    bounds |= {"scale": config.scale_rows, "stat": config.stat_rows}
    for opcode, layout in COMMAND_LAYOUTS.items():
        for spec in layout.values():
            if spec.kind in bounds:
                item = Command(opcode, {spec.name: bounds[spec.kind]})
                bad = bytearray(program(config, item))
            elif spec.values is not None and len(spec.values) < 1 << spec.width:
                bad = bytearray(program(config, Command(opcode)))
                word = int.from_bytes(bad[64:128], "little")
                word |= len(spec.values) << spec.offset
                bad[64:128] = word.to_bytes(COMMAND_BYTES, "little")
            else:
                continue
            record = fault(machine, bytes(bad))
            assert record == FaultRecord(Fault.ILLEGAL_FIELD, Unit.FETCH, 1), spec.name
    for function in (Function.GELU, Function.SILU, Function.TANH):
        data = program(config, command(Opcode.VECTOR, function=function))
        if function.name.lower() in config.functions:
            machine.run(data)
        else:
            assert fault(machine, data).code == Fault.ILLEGAL_FIELD


def test_program_window():
    config = CONFIGS[2]
    machine = IssMachine(config, np.zeros(4096, dtype=np.uint8))
    data = program(config)
    machine.set_region(0, 1000, 1024 + len(data))
    machine.run(data, offset=24)
    record = FaultRecord(Fault.WINDOW, Unit.FETCH, 0, 1025)
    assert fault(machine, None, offset=25, count=2) == record
    record = FaultRecord(Fault.ILLEGAL_FIELD, Unit.FETCH, 0, 1020)
    assert fault(machine, None, offset=20, count=2) == record
    record = FaultRecord(Fault.WINDOW, Unit.FETCH, 0, 960)
    assert fault(machine, None, offset=(1 << 40) - 40, count=2) == record
    machine.set_region(0, 8192, 8192 + len(data))
    assert fault(machine, None, count=2) == FaultRecord(Fault.READ_DECERR, Unit.FETCH, 0, 8192)


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.STORE])
def test_window(opcode):
    config = CONFIGS[2]
    machine = IssMachine(config, np.zeros(1 << 16, dtype=np.uint8))
    machine.set_region(0, 0, 4096)
    machine.set_region(3, 5000, 6000)
    unit = Unit.LOAD if opcode == Opcode.LOAD else Unit.STORE
    base = {"region": 3, "length": 10, "runs": 10, "planes": 2, "run_stride": 10}
    base |= {"plane_stride": 100, "sp_run": 2, "sp_plane": 20}

    def at(**fields):
        data = program(config, command(Opcode.ROW), Command(opcode, base | fields))
        return fault(machine, data).address

    machine.run(program(config, Command(opcode, base | {"offset": 800})))
    assert at(offset=801) == 5991
    assert fault(
        machine, program(config, command(Opcode.ROW), Command(opcode, base | {"offset": 801}))
    ) == FaultRecord(Fault.WINDOW, unit, 2, 5991)
    machine.run(program(config, Command(opcode, base | {"offset": 90, "run_stride": -10})))
    assert at(offset=89, run_stride=-10) == 4999
    # Planes outer, runs inner: the first run outside in that order.
    assert at(offset=950, run_stride=10, plane_stride=-900) == 6000
    assert at(offset=(1 << 64) - 1) == 4999
    assert at(offset=(1 << 64) - 5000) == 0
    # The limit ends with the address space, and addresses do not wrap into the window.
    top = 1 << config.axi_addr_width
    machine.set_region(3, 0, (1 << 64) - 1)
    assert at(offset=top - 9, runs=1, planes=1) == top - 9
    assert at(offset=top + 64, runs=1, planes=1) == 64
    assert at(offset=32, runs=2, run_stride=-40) == top - 8
    machine.set_region(3, 5000, 6000)
    assert at(region=4, offset=0) == 0


def test_decode_errors_of_the_bus():
    config = CONFIGS[2]
    machine = IssMachine(config)
    machine.place(0, 4096)
    machine.set_region(1, 1 << 20, 1 << 21)
    for opcode, code, unit in (
        (Opcode.LOAD, Fault.READ_DECERR, Unit.LOAD),
        (Opcode.STORE, Fault.WRITE_DECERR, Unit.STORE),
    ):
        data = program(config, command(opcode, region=1, offset=5, length=1, runs=1, planes=1))
        assert fault(machine, data) == FaultRecord(code, unit, 1, (1 << 20) + 5)


def test_token_faults():
    config = CONFIGS[2]
    machine = IssMachine(config)
    machine.place(0, 4096)
    wait = command(Opcode.MATMUL, waits=[(2, 3)])
    post = command(Opcode.LOAD, posts=[(2, 2)])
    record = fault(machine, program(config, post, wait))
    assert record == FaultRecord(Fault.WATCHDOG, Unit.MATMUL, 2)
    machine.run(program(config, post, post, wait))
    assert machine.tokens[2] == 1
    # Semaphores start from 0, and hold 63.
    full = [command(Opcode.LOAD, posts=[(2, 15)])] * 4
    machine.run(program(config, *full, command(Opcode.LOAD, posts=[(2, 3)])))
    assert machine.tokens[2] == 63
    record = fault(machine, program(config, *full, command(Opcode.LOAD, posts=[(2, 4)])))
    assert record == FaultRecord(Fault.TOKEN_OVERFLOW, Unit.LOAD, 5)


def test_state_after_a_fault():
    """What ran before the fault stands, and the machine runs again."""
    config = CONFIGS[2]
    machine = IssMachine(config)
    machine.place(0, 4096)
    machine.place(1, np.full(8, 7, dtype=np.uint8))
    good = command(Opcode.LOAD, region=1, length=8, runs=1, planes=1)
    bad = command(Opcode.LOAD, sp_addr=1, region=1, offset=1, length=8, runs=1, planes=1)
    fault(machine, program(config, good, bad))
    assert (machine.sp[0] == 7).all()
    assert not machine.sp[1].any()
    assert machine.completed == 2
    machine.run(program(config, good))
    assert machine.fault is None


# DRAM and the rest.


def test_dram():
    dram = Dram()
    dram.attach(100, np.zeros(10, dtype=np.uint8))
    dram.attach(110, np.ones(10, dtype=np.uint8))
    with pytest.raises(ValueError, match="overlaps"):
        dram.attach(119, np.zeros(1, dtype=np.uint8))
    with pytest.raises(ValueError, match="contiguous"):
        dram.attach(0, np.zeros(10, dtype=np.uint8)[::2])
    with pytest.raises(ValueError, match="below 2"):
        dram.attach((1 << 64) - 1, np.zeros(2, dtype=np.uint8))
    dram.write(103, b"\x05\x06")
    assert dram.read(102, 4) == b"\x00\x05\x06\x00"
    with pytest.raises(ValueError, match="no buffer"):
        dram.read(105, 6)
    before = dram.snapshot()
    assert dram.difference(before) is None
    dram.write(112, b"\x09\x08")
    assert dram.difference(before) == (
        "2 bytes differ: 0x70: 0x09 here, 0x01 there; 0x71: 0x08 here, 0x01 there"
    )
    assert dram.difference(before, limit=1) == "2 bytes differ: 0x70: 0x09 here, 0x01 there"
    with pytest.raises(ValueError, match="the same layout"):
        dram.difference(Dram())


def test_observer_and_arguments():
    config = CONFIGS[0]
    machine = IssMachine(config)
    seen = []
    data = program(config, command(Opcode.ROW), command(Opcode.LOAD))
    machine.run(data, observe=lambda index, item: seen.append((index, item.opcode)))
    assert seen == [(0, Opcode.BEGIN), (1, Opcode.ROW), (2, Opcode.LOAD), (3, Opcode.END)]
    with pytest.raises(ValueError, match="count"):
        machine.run()
    with pytest.raises(ValueError, match="region 8"):
        machine.set_region(8, 0, 0)
    with pytest.raises(ValueError, match="64 bits"):
        machine.set_region(0, 0, 1 << 64)


def test_speed():
    """200 commands, half of them whole products or vector passes, in 4 seconds in check mode."""
    config = Config()
    machine = IssMachine(config, check=True)
    machine.place(0, 1 << 17)
    machine.place(1, 1 << 20)
    items = []
    for i in range(50):
        fields: dict[str, Any] = {
            "region": 1,
            "offset": 64 * i,
            "runs": 16,
            "planes": 1,
            "run_stride": 768,
        }
        items += [
            command(Opcode.LOAD, length=768, sp_chunk=16, sp_run=1, **fields),
            command(
                Opcode.MATMUL,
                m=16,
                kt=24,
                nt=24,
                x_stride=16,
                w_addr=1024,
                w_stride=192,
                acc_stride=16,
            ),
            command(
                Opcode.VECTOR,
                m=16,
                panels=24,
                valid=384,
                acc_stride=16,
                out_addr=8192,
                out_stride=16,
                mul=Mul.IMMEDIATE,
                imm=40000,
                shift=20,
                bias=1,
                function=Function.GELU,
                post=Post.SMOOTH,
                shift2=12,
                out=Out.S16,
                magnitude=1,
                first=1,
            ),
            command(Opcode.STORE, length=768, sp_addr=8192, sp_chunk=16, sp_run=1, **fields),
        ]
    data = program(config, *items)
    machine.run(data)
    assert machine.completed == len(items) + 2
