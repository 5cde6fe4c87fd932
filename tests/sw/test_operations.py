"""Operations on arrays of any shape: equal to the golden functions, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sw.arrays import AWKWARD, TINY, draw
from tilewright.hw.config import Config, preset_config
from tilewright.sim import golden
from tilewright.sim.iss_transport import IssTransport
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.operations.activation import compile_activation
from tilewright.sw.compiler.operations.builder import blocks
from tilewright.sw.compiler.operations.layernorm import compile_layernorm, fraction_bits
from tilewright.sw.compiler.operations.matmul import compile_matmul
from tilewright.sw.compiler.operations.softmax import compile_softmax, factor
from tilewright.sw.driver import Device, OutOfDeviceMemory, arrays
from tilewright.sw.errors import UserError
from tilewright.sw.program import InputError, check_program
from tilewright.sw.quantize.encode import layer_norm

# ---- softmax ----


def check_softmax(device, x, scale, valid=None):
    """By the contract: golden maximum, exponentials, sum and reciprocal, then their product."""
    p = device.softmax(x, scale, valid=valid)
    mult, shift = factor(scale)
    rows = x.reshape(-1, x.shape[-1]).astype(np.int64)
    columns = rows.shape[1]
    length = columns if valid is None else valid
    mask = golden.valid_columns(len(rows), columns, length=length)
    e8 = golden.softmax_exp(rows, golden.softmax_max(rows, mask), mask, mult, shift)
    n, reciprocal = golden.reciprocal(golden.softmax_den(e8))
    expected = golden.rsh(e8 * reciprocal[:, None], n[:, None])
    assert p.dtype == np.uint16
    np.testing.assert_array_equal(p, expected.reshape(x.shape))
    return p


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 70),
    kind=st.sampled_from(("int8", "int16")),
    exponent=st.floats(-14, 2),
    share=st.floats(0, 1),
    which=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_softmax_of_any_shape(machines, rows, columns, kind, exponent, share, which, seed):
    x = draw(np.random.default_rng(seed), kind, rows, columns)
    check_softmax(machines[which], x, 2.0**exponent, valid=round(share * columns))


def test_softmax_is_a_softmax(checked):
    x = np.random.default_rng(21).normal(0, 2, (6, 50))
    p = checked.softmax(np.round(x * 1024).astype(np.int16), 2.0**-10) / 32768
    expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    # The exponentials have 8 bits.
    assert np.abs(p - expected).max() < 0.003
    assert checked.softmax(np.array([5], np.int16)) == 32768, "certainty is 1 exactly"


def test_softmax_corners(machines):
    rng = np.random.default_rng(22)
    for device in (machines[0], machines[-1]):
        check_softmax(device, draw(rng, "int16", 3, 4096), 1e-4)
        check_softmax(device, draw(rng, "int16", 2, 3, 5), 0.1, valid=0)
        assert device.softmax(np.zeros((0, 5), np.int8)).shape == (0, 5)
        assert device.softmax(np.zeros((2, 0), np.int8)).shape == (2, 0)


@pytest.mark.parametrize(
    ("x", "more", "text"),
    [
        (np.zeros((2, 4097), np.int8), {}, "expected a last axis of at most 4096"),
        (np.zeros((2, 5), np.uint8), {}, "softmax: expected an array of int8, int16, got uint8"),
        (
            np.zeros((2, 5), np.int8),
            {"valid": 6},
            "valid = 6: must be an integer from 0 to 5",
        ),
        (np.zeros((2, 5), np.int8), {"scale": 0}, "softmax: scale = 0: must be a number from"),
        (
            np.zeros((2, 5), np.int8),
            {"scale": 1e9},
            r"scale = 1000000000\.0: must .* to 44",
        ),
        (np.int16(1), {}, r"last axis of at most 4096, got shape \(\)"),
    ],
)
def test_softmax_refused(checked, x, more, text):
    with pytest.raises(UserError, match=text):
        checked.softmax(x, **more)


# ---- layernorm ----


def check_layernorm(device, x, gamma=None, beta=None, **more):
    y = device.layernorm(x, gamma, beta, **more)
    n = x.shape[-1]
    constants = layer_norm(
        np.ones(n) if gamma is None else gamma,
        np.zeros(n) if beta is None else beta,
        np.full(n, more.get("out_scale", 2.0**-10)),
        eps=more.get("eps", 1e-5),
        z_scale=more.get("scale", 1.0),
        fraction=golden.xhat_fraction_bits(n),
        name="test",
    )
    assert fraction_bits(n) == golden.xhat_fraction_bits(n)
    expected = golden.layernorm(
        x.reshape(-1, n), constants.gamma, constants.beta, constants.shift, constants.eps
    )
    assert y.dtype == np.int16
    np.testing.assert_array_equal(y, expected.reshape(x.shape))
    return y


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 70),
    kind=st.sampled_from(("int8", "int16")),
    exponent=st.integers(-14, 0),
    which=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_layernorm_of_any_shape(machines, rows, columns, kind, exponent, which, seed):
    rng = np.random.default_rng(seed)
    x = draw(rng, kind, rows, columns)
    gamma, beta = rng.normal(1, 0.5, columns), rng.normal(0, 1, columns)
    check_layernorm(machines[which], x, gamma, beta, scale=2.0**exponent)


def test_layernorm_is_a_layernorm(checked):
    x = np.random.default_rng(31).normal(1, 3, (4, 64))
    y = checked.layernorm(np.round(x * 1024).astype(np.int16), scale=2.0**-10) / 1024
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    assert np.abs(y - expected).max() < 0.005


def test_layernorm_corners(machines):
    rng = np.random.default_rng(32)
    for device in (machines[0], machines[-1]):
        for columns in (1024, 1025, 4096):
            check_layernorm(device, draw(rng, "int16", 3, columns), scale=2.0**-8, eps=0)
        # A row that is one value has no variance.
        check_layernorm(device, np.full((2, 2, 9), 77, np.int16), eps=0, out_scale=2.0**-12)
        assert device.layernorm(np.zeros((0, 5), np.int8)).shape == (0, 5)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"gamma": np.ones(4)}, r"gamma: expected 5 real numbers .* got float64 of shape \(4,\)"),
        ({"beta": np.full(5, np.nan)}, "layernorm: beta: must be finite"),
        ({"scale": -1}, "scale = -1"),
        ({"out_scale": float("inf")}, "out_scale = inf"),
        ({"eps": -1}, "eps = -1"),
        ({"eps": 1e12}, "eps = 1000000000000.0: must be a number from 0 to 4.3"),
        (
            {"gamma": np.full(5, 1e9)},
            "gamma of magnitude 1e.09: with out_scale",
        ),
    ],
)
def test_layernorm_refused(checked, more, text):
    with pytest.raises(UserError, match=text):
        checked.layernorm(np.zeros((2, 5), np.int16), **more)


# ---- elements ----


def test_every_gelu(checked):
    x = np.arange(-32768, 32768).astype(np.int16)
    np.testing.assert_array_equal(checked.gelu(x), golden.activation(x, "gelu"))
    bytes_ = np.arange(-128, 128).astype(np.int8)
    wide = golden.activation(bytes_.astype(np.int64) << 6, "gelu")
    np.testing.assert_array_equal(checked.gelu(bytes_), wide)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 5, 7), (2, 0, 3), (1, 1, 129)])
def test_gelu_keeps_the_shape(machines, shape):
    for device in machines:
        x = draw(np.random.default_rng(41), "int16", *shape)
        y = device.gelu(x)
        assert y.shape == shape
        np.testing.assert_array_equal(y, golden.activation(x, "gelu"))


def test_functions_the_lanes_do_not_hold(checked):
    with pytest.raises(CompileError, match="silu: the lanes of tiny hold gelu"):
        checked.operations.activation("silu", np.zeros(3, np.int16))
    with pytest.raises(InputError, match="gelu: expected an array of int8, int16, got float64"):
        checked.gelu(np.zeros(3))
    config = Config.from_dict({**TINY.to_dict(), "name": "other", "functions": ["silu", "tanh"]})
    x = draw(np.random.default_rng(42), "int16", 100)
    with Device("iss", config, check=True) as device:
        for name in config.functions:
            found = device.operations.activation(name, x)
            np.testing.assert_array_equal(found, golden.activation(x, name))


def test_pieces(checked, monkeypatch):
    """What is too large for one program is put together from several."""
    monkeypatch.setattr(arrays, "PIECE_ROWS", 7)
    monkeypatch.setattr(arrays, "PIECE_ELEMENTS", 16)
    rng = np.random.default_rng(43)
    check_softmax(checked, draw(rng, "int16", 15, 9), 0.01)
    check_layernorm(checked, draw(rng, "int16", 15, 9))
    x = draw(rng, "int16", 50)
    np.testing.assert_array_equal(checked.gelu(x), golden.activation(x, "gelu"))


# ---- programs ----


def test_programs_are_kept():
    with Device("iss", TINY) as device:
        x = np.zeros((3, 4), np.int16)
        device.gelu(x)
        free = device.memory.free_bytes
        for _ in range(3):
            device.gelu(x)
        assert device.memory.free_bytes == free
        device.operations.programs.clear()
        assert device.memory.free_bytes == device.memory.total


def test_programs_give_way():
    """A full memory frees the operation not used for longest, and refuses only what never fits."""
    device = Device(IssTransport(TINY, memory=(0, 8 * 4096)), TINY)
    programs = device.operations.programs
    x = [draw(np.random.default_rng(n), "int16", 1, n) for n in (3, 4, 5)]
    # Three pages each: program, input, output.
    for values in (x[0], x[1], x[0], x[2]):
        check_softmax(device, values, 0.01)
    mult, shift = factor(0.01)
    assert programs.keys == [("softmax", 1, columns, mult, shift) for columns in (3, 5)]
    with pytest.raises(OutOfDeviceMemory, match="out of device memory: "):
        device.matmul(np.zeros((200, 200), np.int8), np.zeros((200, 200), np.int8))
    check_softmax(device, x[1], 0.01)


CONFIGS = [*map(preset_config, ("tiny", "small", "default", "large", "huge")), *AWKWARD[:2]]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_programs_are_sound(config):
    """No race, no wrap, no overlap, and all tokens used."""
    programs = [
        compile_matmul(config, 1, 1, 1, a="s8", b="s8"),
        compile_matmul(config, 45, 130, 70, a="u8", b="s8"),
        compile_matmul(config, 33, 200, 65, a="s16", b="s8"),
        compile_matmul(config, 7, 130, 300, a="s8", b="s16"),
        compile_matmul(config, 66, 130, 37, a="s16", b="s16"),
        compile_softmax(config, 37, 100, mult=40000, shift=20),
        compile_layernorm(config, 37, 100, eps=100, shift=20),
        compile_activation(config, "gelu", 1000),
    ]
    for executable in programs:
        regions = {
            region: (region << 32, (region << 32) + size)
            for region, size in executable.regions.items()
        }
        check_program(
            executable.program,
            config,
            scalars=dict.fromkeys(executable.scalars.values(), 50),
            regions={0: (0, 1 << 20), **regions},
        )
        assert executable.metadata["estimate"]["cycles"] > 0


@pytest.mark.parametrize(
    ("compile_it", "text"),
    [
        (
            lambda: compile_matmul(TINY, 0, 1, 1, a="s8", b="s8"),
            "matmul: m = 0: must be an integer",
        ),
        (lambda: compile_matmul(TINY, 1, 32769, 1, a="s8", b="s8"), "k = 32769: .* at most 32768"),
        (lambda: compile_matmul(TINY, 1, 4097, 1, a="s16", b="s16"), "at most 4096 of s16 and s16"),
        (
            lambda: compile_softmax(TINY, 1, 4097, mult=1, shift=1),
            "columns = 4097: must be an integer",
        ),
        (lambda: compile_layernorm(TINY, 0, 5, eps=1, shift=1), "layernorm: rows = 0: must be"),
        (
            lambda: compile_softmax(AWKWARD[2], 1, 4096, mult=1, shift=1),
            "a row of 4096 takes 1024 words, least has 256 of scratchpad",
        ),
        (
            lambda: compile_layernorm(AWKWARD[2], 1, 700, eps=1, shift=1),
            "a row of 700 takes 175 words, least has 128 of scratchpad",
        ),
    ],
)
def test_programs_that_are_refused(compile_it, text):
    with pytest.raises(InputError if "must be" in text else CompileError, match=text):
        compile_it()


@pytest.mark.parametrize("most", [1, 2, 3, 8, 9, 100])
def test_blocks(most):
    for total in range(1, 40):
        found = blocks(total, most)
        assert [first for first, _ in found] == [0, *(last for _, last in found[:-1])]
        assert found[-1][1] == total
        assert all(0 < last - first <= most for first, last in found)
        if 1 < most < total:
            assert all(first % 2 == 0 for first, _ in found)


# ---- on hardware ----


def test_rows_in_rtl(rtl):
    rng = np.random.default_rng(52)
    for rows, columns in ((1, 1), (5, 6), (19, 33), (3, 300)):
        x = draw(rng, "int16", rows, columns)
        check_softmax(rtl, x, 2.0**-9, valid=columns - columns // 3)
        check_layernorm(rtl, x, rng.normal(1, 0.5, columns), rng.normal(0, 1, columns))


def test_gelu_in_rtl(rtl):
    x = draw(np.random.default_rng(53), "int16", 7, 11, 13)
    np.testing.assert_array_equal(rtl.gelu(x), golden.activation(x, "gelu"))


def test_operations_on_every_backend(device):
    rng = np.random.default_rng(54)
    a, b = draw(rng, "int16", 5, 6), draw(rng, "int8", 6, 7)
    np.testing.assert_array_equal(device.matmul(a, b), a.astype(np.int64) @ b)
    check_softmax(device, draw(rng, "int8", 3, 5), 0.05)
    device.operations.programs.clear()
