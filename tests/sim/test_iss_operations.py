"""The instruction-set simulator: MATMUL, VECTOR and ROW against the golden functions."""

import numpy as np
import pytest

from tests.sim.iss_programs import (
    CONFIGS,
    EACH_CONFIG,
    EACH_M,
    fetch8,
    fetch16,
    place8,
    place16,
    place_acc,
    place_parameters,
    rng_for,
    run,
    tiles,
)
from tilewright.hw.commands import (
    Function,
    Mul,
    Opcode,
    Out,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
    XMode,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, Scalar, command
from tilewright.sim import golden
from tilewright.sim.golden import Fmt
from tilewright.sim.iss import IssMachine, UndefinedError

# MATMUL.


@EACH_CONFIG
@EACH_M
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("mode", list(XMode))
def test_matmul(config, m, transposed, mode):
    rng = rng_for(m, transposed, mode)
    kt, nt = 3, 5
    k, n = kt * config.rows, nt * config.columns
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
    machine.sp_halves[0] = 255  # u8 row
    machine.sp[8:16] = 128  # every weight -128
    item = {"m": 1, "kt": 8192, "nt": 1, "w_addr": 8, "mode": XMode.U8, "transposed": 1}
    run(machine, *[Command(Opcode.MATMUL, item | {"accumulate": int(i > 0)}) for i in range(3)])
    total = -255 * 128 * 8192 * 4 * 3
    assert total < -(1 << 31)
    np.testing.assert_array_equal(machine.acc[0], [(total + (1 << 31)) % (1 << 32) - (1 << 31)] * 4)


def test_high_byte_of_the_top():
    config = CONFIGS[2]
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
    machine = IssMachine(config, check=True)
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
