"""The instruction-set simulator: each operation against the golden functions, and each fault."""

import time
from typing import Any

import numpy as np
import pytest

from hw.commands import (
    COMMAND_BYTES,
    LAYOUTS,
    Fault,
    Function,
    Mul,
    Opcode,
    Out,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
    Unit,
    XMode,
)
from hw.config import Config
from hw.encoding import Command, Scalar, command, encode
from hw.manifest import manifest_hash
from sim import golden
from sim.golden import Fmt
from sim.iss import Dram, FaultRecord, Machine, MachineFault, UndefinedError

CONFIGS = [
    Config(name="wide", rows=8, columns=16, lanes=1, sp_depth=128, functions=("gelu", "tanh")),
    Config(name="tall", rows=16, columns=4, lanes=4, sp_depth=256, functions=("silu",)),
    Config(name="square", rows=4, columns=4, lanes=2, sp_depth=256),
]
EACH_CONFIG = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
EACH_M = pytest.mark.parametrize("m", [1, 2, 17])


def program(config, *items, count=None, digest=None):
    body = list(items)
    begin = command(
        Opcode.BEGIN,
        hash=manifest_hash(config) if digest is None else digest,
        commands=len(body) + 2 if count is None else count,
    )
    return b"".join(encode(item) for item in (begin, *body, command(Opcode.END)))


def run(machine, *items):
    machine.run(program(machine.config, *items))


def fault(machine, data, **more):
    with pytest.raises(MachineFault) as caught:
        machine.run(data, **more)
    assert machine.fault == caught.value.record
    return caught.value.record


def rng_for(*key):
    return np.random.default_rng(list(key))


def place16(machine, address, x):
    """Put an s16 matrix as panels; return the stride."""
    width = machine.config.panel
    rows, columns = x.shape
    for p in range(-(-columns // width)):
        part = x[:, p * width : (p + 1) * width]
        machine.sp16[address + p * rows : address + (p + 1) * rows, : part.shape[1]] = part
    return rows


def place8(machine, address, x):
    width = machine.config.panel
    rows, columns = x.shape
    depth = -(-rows // 2)
    for p in range(-(-columns // width)):
        for i in range(rows):
            part = x[i, p * width : (p + 1) * width].astype(np.uint8)
            word = machine.sp[address + p * depth + i // 2]
            word[i % 2 * width : i % 2 * width + len(part)] = part
    return depth


def fetch16(machine, address, stride, rows, panels):
    return np.concatenate(
        [machine.sp16[address + p * stride : address + p * stride + rows] for p in range(panels)],
        axis=1,
    )


def fetch8(machine, address, stride, rows, panels, dtype):
    width = machine.config.panel
    out = np.zeros((rows, panels * width), dtype=np.uint8)
    for p in range(panels):
        for i in range(rows):
            word = machine.sp[address + p * stride + i // 2]
            out[i, p * width : (p + 1) * width] = word[i % 2 * width : i % 2 * width + width]
    return out.view(dtype)


def place_parameters(machine, address, *, mult=0, sh=0, bias=0, factor=0, columns=0):
    width = machine.config.panel
    rows = np.zeros((5, columns), dtype=np.int64)
    rows[0], rows[1], rows[4] = mult, sh, factor
    rows[2], rows[3] = np.asarray(bias) & 0xFFFF, np.asarray(bias) >> 16
    return place16(machine, address, (rows & 0xFFFF).astype(np.uint16).view(np.int16)), width


def tiles(machine, address, stride, m, count):
    return np.concatenate(
        [machine.acc[address + t * stride : address + t * stride + m] for t in range(count)], axis=1
    )


def place_acc(machine, address, x):
    columns = machine.config.columns
    for t in range(x.shape[1] // columns):
        part = x[:, t * columns : (t + 1) * columns]
        machine.acc[address + t * len(x) : address + (t + 1) * len(x)] = part
    return len(x)


# MATMUL.


@EACH_CONFIG
@EACH_M
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("mode", list(XMode))
def test_matmul(config, m, transposed, mode):
    rng = rng_for(m, transposed, mode)
    kt, nt = 3, 5
    k, n = kt * config.rows, nt * config.columns
    machine = Machine(config, check=True)
    w = rng.integers(-128, 128, (k, n), dtype=np.int8)
    w_stride = place8(machine, 300, w.T if transposed else w)
    if mode in (XMode.S8, XMode.U8):
        low, dtype = (-128, np.int8) if mode == XMode.S8 else (0, np.uint8)
        x = rng.integers(low, low + 256, (m, k)).astype(dtype)
        x_stride = place8(machine, 7, x)
        x8 = x.astype(np.int64)
    else:
        x = rng.integers(-32639, 32640, (m, k)).astype(np.int16)
        x[0, 0] = -32639
        x_stride = place16(machine, 7, x)
        a = rng.integers(0, 32769, m)
        machine.scale[5 : 5 + m] = a
        if mode == XMode.SCALED:
            x8 = golden.feed8(x, *golden.row_scale(a)).astype(np.int64)
        else:
            x8 = golden.balanced_bytes(x)[mode == XMode.LOW].astype(np.int64)
    item = {"m": m, "kt": kt, "nt": nt, "x_addr": 7, "x_stride": x_stride, "w_addr": 300}
    item |= {"w_stride": w_stride, "acc_addr": 11, "acc_stride": m + 2, "scale": 5, "mode": mode}
    item |= {"transposed": transposed}
    run(machine, Command(Opcode.MATMUL, dict(item)))
    expected = x8 @ w.astype(np.int64)
    np.testing.assert_array_equal(tiles(machine, 11, m + 2, m, nt), expected)
    assert not machine.acc[:11].any()
    run(machine, Command(Opcode.MATMUL, item | {"accumulate": 1, "k_outer": 1}))
    np.testing.assert_array_equal(tiles(machine, 11, m + 2, m, nt), 2 * expected)


def test_matmul_long_k_and_wrap():
    """K beyond one golden product, strides of 0, and sums modulo 2^32."""
    config = CONFIGS[2]
    machine = Machine(config, check=True)
    machine.sp_halves[0] = 255  # u8 row
    machine.sp[8:16] = 128  # every weight -128
    item = {"m": 1, "kt": 8192, "nt": 1, "w_addr": 8, "mode": XMode.U8, "transposed": 1}
    run(machine, *[Command(Opcode.MATMUL, item | {"accumulate": int(i > 0)}) for i in range(3)])
    total = -255 * 128 * 8192 * 4 * 3
    assert total < -(1 << 31)
    np.testing.assert_array_equal(machine.acc[0], [(total + (1 << 31)) % (1 << 32) - (1 << 31)] * 4)


def test_high_byte_of_the_top():
    config = CONFIGS[2]
    machine = Machine(config, check=True)
    machine.sp16[0] = [32767, 32640, 32639, -32768]
    machine.sp_halves[16:20] = np.eye(4)
    item = {"m": 1, "kt": 1, "nt": 1, "w_addr": 8}
    run(machine, Command(Opcode.MATMUL, {**item, "mode": XMode.HIGH}))
    np.testing.assert_array_equal(machine.acc[0], [128, 128, 127, -128])
    run(machine, Command(Opcode.MATMUL, {**item, "mode": XMode.LOW}))
    np.testing.assert_array_equal(machine.acc[0], [-1, -128, 127, 0])


def test_narrow_weights():
    config = Config(rows=4, columns=4, lanes=2, sp_depth=256, weight_bits=4)
    items = [command(Opcode.MATMUL, m=1, kt=1, nt=1, w_addr=8, mode=XMode.S8)]
    machine = Machine(config, check=True)
    machine.sp_halves[0] = 1
    machine.sp_halves[16:20] = 0xF8
    run(machine, *items)
    np.testing.assert_array_equal(machine.acc[0], [-32] * 4)
    machine.sp_halves[16:20] = 0x18
    with pytest.raises(UndefinedError, match="4 bits"):
        run(machine, *items)


# VECTOR, as the compiler uses it.


@EACH_CONFIG
@EACH_M
@pytest.mark.parametrize("out", [Out.S16, Out.S8, Out.U8])
@pytest.mark.parametrize("scaled", [False, True])
def test_requantize(config, m, out, scaled):
    rng = rng_for(m, out, scaled)
    columns = 2 * config.panel
    machine = Machine(config, check=True)
    acc = rng.integers(-(1 << 20), 1 << 20, (m, columns)).astype(np.int32)
    acc[0, :2] = (1 << 27) - 1, -(1 << 27)
    mult = rng.integers(32768, 65536, columns)
    sh = rng.integers(22, 30, columns)
    sh[0] = 9 if scaled else 8
    sh[1] = 40
    bias = rng.integers(-(1 << 20), 1 << 20, columns)
    bias[1] = 0
    stride = place_acc(machine, 3, acc)
    place_parameters(machine, 400, mult=mult, sh=sh, bias=bias, columns=columns)
    a = rng.integers(0, 32769, m)
    machine.scale[9 : 9 + m] = a
    t = (
        golden.requant_row(acc, *golden.row_scale(a), mult, sh)
        if scaled
        else golden.requant_static(acc, mult, sh)
    )
    if out == Out.U8:
        expected = np.clip(golden.finish(t, bias, Fmt.S16), 0, 255)
    else:
        expected = golden.finish(t, bias, Fmt.S16 if out == Out.S16 else Fmt.S8)
    before = machine.sp.copy()
    run(
        machine,
        command(
            Opcode.VECTOR,
            m=m,
            panels=2,
            valid=columns,
            acc_addr=3,
            acc_stride=stride,
            out_addr=50,
            out_stride=m + 3,
            par_addr=400,
            par_stride=5,
            scale_in=9,
            scale_out=100,
            pre=Pre.ROW_SCALE if scaled else Pre.NONE,
            mul=Mul.CHANNEL,
            bias=1,
            out=out,
            magnitude=1,
            first=1,
        ),
    )
    if out == Out.S16:
        got = fetch16(machine, 50, m + 3, m, 2)
    else:
        got = fetch8(machine, 50, m + 3, m, 2, np.int8 if out == Out.S8 else np.uint8)
    np.testing.assert_array_equal(got, expected)
    largest = np.abs(expected.astype(np.int64)).max(axis=1)
    np.testing.assert_array_equal(machine.scale[100 : 100 + m], largest)
    # Nothing else is touched: words behind the rows, and with odd m the other half.
    depth = m if out == Out.S16 else -(-m // 2)
    for p in range(2):
        before[50 + p * (m + 3) : 50 + p * (m + 3) + depth] = 0
        if out != Out.S16 and m % 2:
            last = 50 + p * (m + 3) + depth - 1
            assert not machine.sp[last, config.panel :].any()
        machine.sp[50 + p * (m + 3) : 50 + p * (m + 3) + depth] = 0
    np.testing.assert_array_equal(machine.sp, before)


@EACH_CONFIG
def test_residual_in_place(config):
    rng = rng_for(1)
    m, columns = 5, 2 * config.panel
    machine = Machine(config, check=True)
    acc = rng.integers(-(1 << 20), 1 << 20, (m, columns)).astype(np.int32)
    z = rng.integers(-32768, 32768, (m, columns)).astype(np.int16)
    mult, sh = rng.integers(32768, 65536, columns), rng.integers(22, 26, columns)
    bias, factor = rng.integers(-(1 << 28), 1 << 28, columns), rng.integers(0, 65536, columns)
    place_acc(machine, 3, acc)
    place16(machine, 20, z)
    place_parameters(machine, 400, mult=mult, sh=sh, bias=bias, factor=factor, columns=columns)
    t = golden.requant_static(acc, mult, sh)
    expected = golden.finish(t, bias, Fmt.S16, golden.residual_term(z, factor, 7))
    run(
        machine,
        command(
            Opcode.VECTOR,
            m=m,
            panels=2,
            valid=columns,
            acc_addr=3,
            acc_stride=m,
            in_addr=20,
            in_stride=m,
            out_addr=20,
            out_stride=m,
            par_addr=400,
            par_stride=5,
            mul=Mul.CHANNEL,
            bias=1,
            post=Post.RESIDUAL,
            shift1=7,
            shift2=8,
            out=Out.S16,
        ),
    )
    np.testing.assert_array_equal(fetch16(machine, 20, m, m, 2), expected)


@pytest.mark.parametrize("name", ["gelu", "silu", "tanh"])
def test_activation_and_smoothing(name):
    config = next(c for c in CONFIGS if name in c.functions)
    machine = Machine(config, check=True)
    width = config.panel
    m = 96
    x = np.linspace(-32768, 32767, m * width).astype(np.int16).reshape(m, width)
    place16(machine, 10, x)
    factor = np.arange(width) * 4000
    place_parameters(machine, 400, factor=factor, columns=width)
    item = {"m": m, "panels": 1, "valid": width, "in_addr": 10, "out_addr": 200, "par_addr": 400}
    item |= {"source": Source.SP, "out": Out.S16, "function": Function[name.upper()]}
    run(machine, Command(Opcode.VECTOR, dict(item)))
    y = golden.activation(x, name)
    np.testing.assert_array_equal(fetch16(machine, 200, m, m, 1), y)
    run(machine, Command(Opcode.VECTOR, item | {"post": Post.SMOOTH, "shift2": 13}))
    np.testing.assert_array_equal(fetch16(machine, 200, m, m, 1), golden.smooth(y, factor, 13))


@EACH_CONFIG
@EACH_M
@pytest.mark.parametrize("length", [0, 1, 13])
@pytest.mark.parametrize("causal", [0, 1])
def test_softmax(config, m, length, causal):
    """Maximum, exponentials, division, context; the masks' values come from registers."""
    rng = rng_for(m, length, causal)
    columns = 4 * config.panel
    machine = Machine(config, check=True)
    machine.scalars[3], machine.scalars[4] = 0xABCD0000 | length, 2
    acc = rng.integers(-(1 << 18), 1 << 18, (m, columns)).astype(np.int32)
    acc[:, length:] = (1 << 31) - 1
    place_acc(machine, 0, acc)
    base = {"m": m, "panels": 4, "valid": Scalar(3), "row0": Scalar(4), "causal": causal}
    base |= {"acc_stride": m, "stat": 6, "first": 1, "source": Source.ACC}
    run(
        machine,
        Command(Opcode.VECTOR, base | {"stat_op": Stat.MAX}),
        Command(
            Opcode.VECTOR,
            base
            | {
                "pre": Pre.MAX_MINUS,
                "mul": Mul.IMMEDIATE,
                "imm": 41000,
                "shift": 20,
                "function": Function.EXP2,
                "stat_op": Stat.SUM,
                "out": Out.U8,
                "out_addr": 30,
                "out_stride": m,
            },
        ),
        command(Opcode.ROW, op=RowOp.DIVIDE, m=m, stat=6),
        Command(
            Opcode.VECTOR,
            {
                "m": m,
                "panels": 1,
                "valid": config.panel,
                "acc_addr": 500,
                "acc_stride": m,
                "stat": 6,
                "mul": Mul.ROW,
                "shift": 8,
                "out": Out.S16,
                "out_addr": 200,
            },
        ),
    )
    valid = golden.valid_columns(m, columns, length=length, causal=bool(causal), row0=2)
    top = golden.softmax_max(acc, valid)
    e8 = golden.softmax_exp(acc, top, valid, 41000, 20)
    den = golden.softmax_den(e8)
    np.testing.assert_array_equal(fetch8(machine, 30, m, m, 4, np.uint8), e8)
    np.testing.assert_array_equal(machine.f1[6 : 6 + m], np.maximum(top, -(1 << 43)))
    np.testing.assert_array_equal(machine.f2[6 : 6 + m], den)
    n, recip = golden.reciprocal(den)
    np.testing.assert_array_equal(machine.factor[6 : 6 + m], recip)
    np.testing.assert_array_equal(machine.exponent[6 : 6 + m], n)
    o = tiles(machine, 500, m, m, config.panel // config.columns)
    np.testing.assert_array_equal(fetch16(machine, 200, m, m, 1), golden.context(o, n, recip))
    if length == 0:
        assert not machine.factor[6 : 6 + m].any()


@EACH_CONFIG
@EACH_M
@pytest.mark.parametrize("rms", [0, 1])
def test_layernorm(config, m, rms):
    rng = rng_for(m, rms)
    panels = 2
    n = panels * config.panel
    machine = Machine(config, check=True)
    z = rng.integers(-32768, 32768, (m, n)).astype(np.int16)
    z[0] = 0
    g16 = rng.integers(-32768, 32768, n)
    b32 = rng.integers(-(1 << 30), 1 << 30, n)
    place16(machine, 20, z)
    place_parameters(machine, 400, bias=b32, factor=g16, columns=n)
    machine.f1[:] = 77  # RMS takes S1 as 0 in RSQRT; CENTER's f1 is whatever stands there
    base = {"m": m, "panels": panels, "valid": n, "in_addr": 20, "in_stride": m, "stat": 3}
    base |= {"source": Source.SP}
    run(
        machine,
        Command(Opcode.VECTOR, base | {"stat_op": Stat.MOMENTS, "first": 1}),
        command(Opcode.ROW, op=RowOp.RSQRT, m=m, stat=3, n=n, eps=12345, rms=rms),
    )
    s1, s2 = golden.row_sums(z)
    np.testing.assert_array_equal(machine.f1[3 : 3 + m], s1)
    np.testing.assert_array_equal(machine.f2[3 : 3 + m], s2)
    if rms:
        machine.f1[3 : 3 + m] = 0
    run(
        machine,
        Command(
            Opcode.VECTOR,
            base
            | {
                "pre": Pre.CENTER,
                "imm": n,
                "mul": Mul.ROW,
                "shift": 6,
                "post": Post.AFFINE,
                "shift2": 15,
                "par_addr": 400,
                "par_stride": 5,
                "out": Out.S16,
                "out_addr": 20,
                "out_stride": m,
                "magnitude": 1,
                "first": 1,
            },
        ),
    )
    expected = golden.layernorm(z, g16, b32, 15, 12345, rms=bool(rms))
    np.testing.assert_array_equal(fetch16(machine, 20, m, m, panels), expected)
    np.testing.assert_array_equal(machine.scale[:m], golden.row_max(expected))


def test_statistics_go_on_without_first():
    config = CONFIGS[2]
    machine = Machine(config, check=True)
    place16(machine, 0, np.array([[3, -4, 5, -6]], dtype=np.int16))
    base = {"m": 1, "panels": 1, "valid": 4, "source": Source.SP, "magnitude": 1}
    machine.scale[0], machine.f1[0], machine.f2[0] = 9, -100, (1 << 48) - 1
    run(machine, Command(Opcode.VECTOR, base | {"stat_op": Stat.MAX}))
    assert (machine.scale[0], machine.f1[0], machine.f2[0]) == (9, 5, (1 << 48) - 1)
    run(machine, Command(Opcode.VECTOR, base | {"stat_op": Stat.SUM}))
    assert (machine.f1[0], machine.f2[0]) == (5, (1 << 48) - 3)
    run(machine, Command(Opcode.VECTOR, base | {"stat_op": Stat.MOMENTS}))
    assert (machine.f1[0], machine.f2[0]) == (3, 83)
    run(machine, Command(Opcode.VECTOR, base | {"first": 1, "stat_op": Stat.MAX, "valid": 0}))
    assert (machine.scale[0], machine.f1[0], machine.f2[0]) == (0, -(1 << 43), 83)
    run(machine, Command(Opcode.VECTOR, base | {"first": 1, "stat_op": Stat.SUM, "valid": 1}))
    assert (machine.scale[0], machine.f1[0], machine.f2[0]) == (3, -(1 << 43), 3)


def test_exp2_outside():
    """A negative u gives 0, as do octaves above 31."""
    config = CONFIGS[2]
    machine = Machine(config, check=True)
    machine.acc[0] = [0, -1, 32767, 32768]
    item = {"m": 1, "panels": 1, "valid": 4, "function": Function.EXP2, "out": Out.U8}
    run(machine, Command(Opcode.VECTOR, item))
    np.testing.assert_array_equal(machine.sp[0, :4], [255, 0, 0, 0])
    machine.acc[0] = [1024, 2048, 8 * 1024, 9 * 1024]
    run(machine, Command(Opcode.VECTOR, item))
    np.testing.assert_array_equal(machine.sp[0, :4], [128, 64, 1, 0])


def test_maximum_and_exp2_take_base():
    """With a bias both read t + B, before it is rounded to w: 33 bits."""
    config = CONFIGS[2]
    machine = Machine(config, check=True)
    place_parameters(machine, 100, bias=np.array([1, -5, (1 << 31) - 1, 0]), columns=4)
    machine.acc[0] = [2047, 4, (1 << 31) - 1, -7]
    item = {"m": 1, "panels": 1, "valid": 4, "bias": 1, "par_addr": 100, "first": 1}
    item |= {"function": Function.EXP2, "out": Out.U8, "stat_op": Stat.MAX}
    run(machine, Command(Opcode.VECTOR, item))
    np.testing.assert_array_equal(machine.sp[0, :4], [64, 0, 0, 0])
    assert machine.f1[0] == (1 << 32) - 2


@EACH_CONFIG
@EACH_M
def test_scale_rows_in_and_out(config, m):
    rng = rng_for(m)
    machine = Machine(config, check=True)
    width = config.panel
    words = -(-m // width)
    a = rng.integers(0, 65536, m).astype(np.uint16)
    machine.sp16[40 : 40 + words].reshape(-1)[:m] = a.view(np.int16)
    machine.sp[60 : 61 + words] = 0xEE
    run(
        machine,
        command(Opcode.ROW, op=RowOp.GET, m=m, scale=8, sp_addr=40),
        command(Opcode.ROW, op=RowOp.PUT, m=m, scale=8, sp_addr=60),
    )
    np.testing.assert_array_equal(machine.scale[8 : 8 + m], a)
    put = machine.sp16[60 : 60 + words].reshape(-1)
    np.testing.assert_array_equal(put[:m].view(np.uint16), a)
    assert not put[m:].any()
    assert (machine.sp[60 + words] == 0xEE).all()


# LOAD and STORE.


@EACH_CONFIG
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("length", [1, 5, 37, 64])
def test_load_store(config, half, length):
    rng = rng_for(half, length)
    machine = Machine(config, check=True)
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
    machine = Machine(CONFIGS[2], check=True)
    for name in ("runs", "planes", "length"):
        fields = {"runs": 1, "planes": 1, "length": 8, "region": 7, name: 0}
        run(machine, Command(Opcode.LOAD, dict(fields)), Command(Opcode.STORE, dict(fields)))
    for name in ("m", "kt", "nt"):
        fields = {"m": 1, "kt": 1, "nt": 1, name: 0}
        run(machine, Command(Opcode.MATMUL, fields))
    run(machine, command(Opcode.VECTOR, m=1, magnitude=1, first=1))
    assert machine.completed == 3


def test_offset_scalar_has_32_bits():
    machine = Machine(CONFIGS[2], np.arange(256, dtype=np.uint8), check=True)
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
        machine = Machine(config, check=check)
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
        machine = Machine(config, check=check)
        machine.exponent[:] = 3
        machine.scale[0], machine.scale[1] = 32768, 32769
        if check:
            with pytest.raises(UndefinedError, match=message):
                run(machine, item)
        else:
            run(machine, item)
    # Invalid columns do not count: their parameters may be anything.
    if "shift of -" in message:
        machine = Machine(config, check=True)
        run(machine, Command(Opcode.VECTOR, {**item.fields, "valid": 0}))


def test_undefined_elsewhere():
    config = CONFIGS[2]
    machine = Machine(config, check=True)
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
    machine = Machine(config)
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
    machine = Machine(config)
    machine.place(0, 4096)
    bounds = {"sp": config.sp_words, "acc": config.acc_words}
    bounds |= {"scale": config.scale_rows, "stat": config.stat_rows}
    for opcode, layout in LAYOUTS.items():
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
    machine = Machine(config, np.zeros(4096, dtype=np.uint8))
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
    machine = Machine(config, np.zeros(1 << 16, dtype=np.uint8))
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
    machine = Machine(config)
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
    machine = Machine(config)
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
    machine = Machine(config)
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
    with pytest.raises(ValueError, match="lies over"):
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
    with pytest.raises(ValueError, match="laid out"):
        dram.difference(Dram())


def test_observer_and_arguments():
    config = CONFIGS[0]
    machine = Machine(config)
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
    machine = Machine(config, check=True)
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
    start = time.process_time()
    machine.run(data)
    assert time.process_time() - start < 4
