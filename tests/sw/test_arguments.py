"""Arguments of the Python interface: right, or one line of `InputError` that names them."""

import dataclasses
import decimal
from typing import Any

import numpy as np
import pytest

from tests.sw.arrays import TINY
from tests.sw.small_programs import copy_executable
from tests.sw.test_compile_model import small_model
from tilewright.hw.config import preset_config
from tilewright.sw import arguments
from tilewright.sw.compiler import CompileError, compile_layer, compile_model
from tilewright.sw.compiler.operations.matmul import compile_matmul
from tilewright.sw.compiler.operations.softmax import factor
from tilewright.sw.driver import Device, DeviceClosed
from tilewright.sw.errors import InputError
from tilewright.sw.pipeline.device import DeviceEngine
from tilewright.sw.pipeline.pipeline import Pipeline
from tilewright.sw.sweep.run import sweep
from tilewright.sw.sweep.search import batches
from tilewright.sw.sweep.space import Space

NO_ARRAYS = ([[1, 2], [3]], object, "text", None, [10**30], [1.5], [1j], [True], [np.nan])
"""No array of the machine's integers."""
NO_INTEGERS = (1.5, "1", None, True, np.nan, [1], np.float32(2))
NO_NUMBERS = ("1", None, True, np.nan, -np.inf, 1j, [1.0], decimal.Decimal(1), 10**400)

S8 = np.zeros((2, 3), np.int8)
S16 = np.zeros((2, 5), np.int16)


def refused(name, call):
    with pytest.raises(InputError, match=name) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", NO_ARRAYS, ids=repr)
def test_arrays(checked, value):
    refused("^a: expected an array", lambda: checked.matmul(value, S8))
    refused("^b: expected an array", lambda: checked.matmul(S8, value))
    refused("^softmax: expected an array", lambda: checked.softmax(value))
    refused("^layernorm: expected an array", lambda: checked.layernorm(value))
    refused("^gelu: expected an array", lambda: checked.gelu(value))


@pytest.mark.parametrize("dtype", ["i4", "u2", "f2", "c8", "M8[s]", "O", "U3", "i1,i1"])
def test_types(checked, dtype):
    x = np.zeros((2, 2), dtype)
    for name in ("softmax", "layernorm", "gelu"):
        refused(f"^{name}: expected an array of int8", lambda name=name: getattr(checked, name)(x))
    refused("^a: expected", lambda: checked.matmul(x, S8))


def test_arrays_of_any_memory(checked):
    """Strides, byte order, read-only: only the values count."""
    x = np.random.default_rng(1).integers(-32768, 32768, (6, 10)).astype(np.int16)
    same = [x[::-1][::-1], np.asfortranarray(x), x.astype(">i2"), np.repeat(x, 2, 1)[:, ::2]]
    fixed = x.copy()
    fixed.flags.writeable = False
    product = x.astype(np.int64) @ x.T.astype(np.int64)
    for y in (*same, fixed):
        np.testing.assert_array_equal(checked.matmul(y, y.T), product)
        for name in ("softmax", "layernorm", "gelu"):
            wanted = getattr(checked, name)(x)
            np.testing.assert_array_equal(getattr(checked, name)(y), wanted)


@pytest.mark.parametrize("value", [*NO_INTEGERS, -1, 6, 2**70], ids=repr)
def test_valid(checked, value):
    if value is not None:
        refused(
            "^softmax: valid = .* integer from 0 to 5", lambda: checked.softmax(S16, valid=value)
        )


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1.0, 1e30, 1e-30, np.inf, 5e-324], ids=repr)
def test_softmax_scale(checked, value):
    refused("^softmax: scale = .*: must be a number from", lambda: checked.softmax(S16, value))


def test_softmax_scales_at_their_bounds():
    """As far as factor and shift reach, and not further."""
    assert factor(44.36) == (65534, 0)
    assert factor(1e-17)[1] == 61
    refused("scale = 44.37", lambda: factor(44.37))
    refused("scale = 9e-18", lambda: factor(9e-18))


@pytest.mark.parametrize("name", ["scale", "out_scale", "eps"])
@pytest.mark.parametrize("value", [*NO_NUMBERS, -1.0, 1e200, np.inf], ids=repr)
def test_layernorm_numbers(checked, name, value):
    refused(f"^layernorm: {name} = .*must be", lambda: checked.layernorm(S16, **{name: value}))


@pytest.mark.parametrize("name", ["gamma", "beta"])
@pytest.mark.parametrize(
    "value",
    [
        *([one] * 5 for one in ("1", None, np.nan, np.inf, 1j, 10**400, 1e30, -1e15, 3e307)),
        [1.0] * 4,
        1.0,
        [[1, 2], [3]],
    ],
    ids=repr,
)
def test_layernorm_vectors(checked, name, value):
    refused(f"^layernorm: {name}", lambda: checked.layernorm(S16, **{name: value}))


def test_layernorm_is_refused_or_right(checked):
    """What wrapped in 64 bits."""
    x = np.random.default_rng(2).integers(-3000, 3000, (4, 5)).astype(np.int16)
    one = np.ones(5)
    refused("^layernorm: gamma of magnitude 1e", lambda: checked.layernorm(x, one * 1e15))
    refused("^layernorm: beta of magnitude 1e", lambda: checked.layernorm(x, one, one * 1e30))
    refused("^layernorm: gamma of magnitude 1:", lambda: checked.layernorm(x, out_scale=1e-15))
    refused("^layernorm: eps", lambda: checked.layernorm(x, scale=1e-50))
    refused("^layernorm: scale", lambda: checked.layernorm(x, scale=0))
    real = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    for gamma, beta, out in (
        (1e15, 0, 1e15 / 8192),
        (1, 1e6, 1e6 / 8192),
        (1e-300, 0, 1),
        (30000, 0, 1),
        (1, 3.0, 1e-3),
        (0, 0, 1e90),
    ):
        found = checked.layernorm(x, one * gamma, one * beta, eps=0, out_scale=out)
        exact = np.clip((real * gamma + beta) / out, -32768, 32767)
        assert np.abs(found - exact).max() <= 1 + gamma / out * 2.0**-9, (gamma, beta, out)


@pytest.mark.parametrize("name", ["relu", "", None, ["gelu"], 1, b"gelu"])
def test_functions(checked, name):
    refused("^function .*gelu, silu, tanh", lambda: checked.operations.activation(name, S16))


@pytest.mark.parametrize("backend", ["fpga", "", None, ["iss"], 1])
def test_backends(backend):
    refused("^backend .*iss, model, verilator, cocotb", lambda: Device(backend, TINY))


@pytest.mark.parametrize(
    ("backend", "options", "text"),
    [
        ("iss", {"spam": 1}, "'spam'"),
        ("iss", {"memory": 5}, "backend"),
        ("iss", {"memory": (0, -1)}, "backend"),
        ("model", {"latency": "x"}, "backend"),
        ("model", {"bandwidth": 0}, "bandwidth"),
        ("model", {"bandwidth": float("nan")}, "bandwidth"),
    ],
)
def test_options_of_a_backend(backend, options, text):
    refused(text, lambda: Device(backend, TINY, **options))


@pytest.mark.parametrize("config", ["tiny", None, {}, 5])
def test_configurations(config):
    refused("^config: expected a Config", lambda: Device("iss", config))
    refused("^config: expected a Config", lambda: compile_model(small_model(), config, 8))


@pytest.mark.parametrize("value", [*NO_INTEGERS, 0, -3, 2**70], ids=repr)
def test_sizes_of_programs(value):
    model, tiny = small_model(), preset_config("tiny")
    large = value == 2**70
    with pytest.raises(CompileError if large else InputError, match=r"^sequence = "):
        compile_model(model, tiny, value)
    with pytest.raises(CompileError if large else InputError, match=r"^sequence = "):
        compile_layer(model.layers[0], tiny, value)
    refused("^batch = ", lambda: compile_model(model, tiny, 8, batch=value))
    if not large:
        refused("^effort = ", lambda: compile_model(model, tiny, 8, effort=value))
        refused("^effort = ", lambda: compile_layer(model.layers[0], tiny, 8, effort=value))
        refused("^matmul: m = ", lambda: compile_matmul(tiny, value, 1, 1, a="s8", b="s8"))
    with Device("iss", tiny) as device:
        if value is not None:
            with pytest.raises(CompileError if large else InputError, match=r"^sequence = "):
                DeviceEngine(model, device, sequence=value)


def test_programs_of_what_is_no_model():
    text: Any = "minilm"
    model: Any = small_model()
    refused("^model: expected a QModel", lambda: compile_model(text, TINY, 8))
    refused("^layer: expected a QLayer", lambda: compile_layer(model, TINY, 8))
    refused("^format of a", lambda: compile_matmul(TINY, 1, 1, 1, a="s32", b="s8"))
    refused("^precision: expected a str", lambda: Pipeline.load(text, precision=model))


@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
def test_runs(iss, value):
    executable = copy_executable(TINY)
    x = {"x": np.zeros((5, 7), np.int16)}
    refused("^scalar start", lambda: iss.run(executable, x, start=value))
    refused("^watchdog", lambda: iss.run(executable, x, watchdog=value, start=0))
    refused("^timeout", lambda: iss.run(executable, x, timeout=value, start=0))
    refused("^inputs: expected", lambda: iss.run(executable, value, start=0))
    refused("^region = ", lambda: iss.set_region(value, 1))
    refused("^BASE0 = ", lambda: iss.write("BASE0", value))
    refused("^timeout", lambda: iss.run_program(bytes(64), timeout=value))
    refused("^executable: expected", lambda: iss.load(value))


@pytest.mark.parametrize("value", [-1, True, object, "text", [[1], [1, 2]]], ids=repr)
def test_regions(iss, value):
    refused("region 1", lambda: iss.set_region(1, value))


def test_a_closed_device():
    device = Device("iss", TINY)
    loaded = device.load(copy_executable(TINY))
    device.close()
    device.close()
    for call in (
        lambda: device.matmul(S8, S8.T),
        lambda: device.softmax(S16),
        lambda: device.gelu(S16),
        lambda: device.read("STATUS"),
        lambda: device.run(copy_executable(TINY), {"x": np.zeros((5, 7), np.int16)}, start=0),
        lambda: loaded.run({"x": np.zeros((5, 7), np.int16)}, {"start": 0}),
        device.hard_reset,
    ):
        with pytest.raises(DeviceClosed, match=r"^the device is closed$"):
            call()
    assert issubclass(DeviceClosed, InputError)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"texts": 1.5}, "texts = 1.5"),
        ({"texts": -1}, "texts = -1"),
        ({"effort": 0}, "effort = 0"),
        ({"effort": "5"}, "effort = '5'"),
        ({"clock": "x"}, "clock = 'x'"),
        ({"clock": float("nan")}, "clock = nan"),
        ({"layer": 0}, "layer: expected a str"),
        ({"model": None}, "model: expected a str"),
        ({"jobs": 0}, "jobs = 0"),
        ({"jobs": 1.5}, "jobs = 1.5"),
        ({"rtl": "1"}, "rtl = '1'"),
        ({"seed": -1}, "seed = -1"),
        ({"search": "best"}, "search 'best' is unknown"),
        ({"search": "random", "count": 0}, "points = 0"),
        ({"count": 5}, "points = 5: search grid"),
    ],
)
def test_sweeps(tmp_path, changes, text):
    refused(text, lambda: sweep(Space({"array": [4]}), folder=tmp_path / "s", **changes))
    assert not (tmp_path / "s").exists()


def test_spaces():
    axes: Any = [("array", [4])]
    base: Any = "tiny"
    space: Any = {"array": [4]}
    refused("^axes: expected a Mapping", lambda: Space(axes))
    refused("^base: expected a Config", lambda: Space(space, base))
    refused("^axes: expected a Mapping", lambda: sweep(axes))
    refused("^a space has no 'spam'", lambda: Space({"spam": [4]}))
    refused("^rows", lambda: Space({"rows": [4, None]}))
    objectives = batches(Space({"array": [4]}), "optuna", None, 0, ["speed"])
    refused("^objective 'speed'", lambda: next(objectives))


def test_values_are_shown_in_one_line():
    assert arguments.shown("a\nb") == r"'a\nb'"
    assert len(arguments.shown(np.zeros((100, 100)))) <= 60
    assert len(arguments.shown(10**1000)) <= 60
    assert arguments.shown(np.float64(1.5)) == "1.5"
    assert arguments.integer("n", np.uint8(7), 0) == 7
    assert arguments.real("x", np.float32(0.5), 0, 1) == 0.5
    assert dataclasses.is_dataclass(arguments.instance("config", TINY, type(TINY)))
