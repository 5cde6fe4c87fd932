"""Executables: arrays to bytes and back, and parts that must fit together."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sw.small_programs import SOURCE, TARGET, copy_executable, placed, state_executable
from tilewright.hw.config import preset_config
from tilewright.sim.golden import row_max
from tilewright.sw.errors import UserError
from tilewright.sw.program import Executable, InputError, Program
from tilewright.sw.program.layouts import BUFFER_LAYOUTS, layout
from tilewright.sw.program.summary import listing, summary

CONFIG = preset_config("tiny")


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(BUFFER_LAYOUTS)),
    rows=st.integers(1, 9),
    columns=st.integers(1, 19),
    width=st.sampled_from([4, 8, 16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_layouts_and_back(name, rows, columns, width, seed):
    form = layout(name)
    shape = (rows,) if form.dimensions == 1 else (rows, columns)
    bounds = np.iinfo(form.dtype)
    low, high = int(bounds.min), int(bounds.max)
    if form.pieces == 3:
        low, high = -(1 << 46), (1 << 46) - 1
    values = np.random.default_rng(seed).integers(low, high, shape, dtype=form.dtype, endpoint=True)
    # Corners of the pieces too.
    values.flat[0] = low
    values.flat[-1] = min(high, 0x7FFF_FFFF)
    data = form.pack(values, width)
    assert len(data) == form.size(shape, width)
    back = form.unpack(np.frombuffer(data, np.uint8), shape, width)
    assert back.dtype == np.dtype(form.dtype)
    np.testing.assert_array_equal(back, values)


def test_panels_byte_by_byte():
    """docs/architecture.md: row i of s16 is a word, two rows of bytes share one."""
    x = np.arange(1, 16).reshape(3, 5)
    words = np.frombuffer(layout("s16 panels").pack(x, 4), "<i2").reshape(-1, 4)
    expected = [[1, 2, 3, 4], [6, 7, 8, 9], [11, 12, 13, 14], [5, 0, 0, 0], [10, 0, 0, 0]]
    np.testing.assert_array_equal(words, [*expected, [15, 0, 0, 0]])
    halves = np.frombuffer(layout("s8 panels").pack(x, 4), "i1").reshape(-1, 4)
    np.testing.assert_array_equal(halves[:4], [*expected[:3], [0, 0, 0, 0]])
    np.testing.assert_array_equal(halves[4:], [[5, 0, 0, 0], [10, 0, 0, 0], [15, 0, 0, 0], [0] * 4])
    assert layout("s8 weights").size((5, 5), 4) == 8 * 8


def test_pieces_are_rounded_shifts():
    """What WRAP16 of RSH(v, 16·i) leaves, piece by piece."""
    value = np.array([[-(1 << 43), -32769, 32767, (1 << 31) - 1, (1 << 43) - 1]])
    for name, count in (("s32 pieces", 2), ("s64 pieces", 3)):
        form = layout(name)
        kept = value if count == 3 else np.clip(value, -(1 << 31), (1 << 31) - 1)
        pieces = np.frombuffer(form.pack(kept, 8), "<i2").reshape(count, 8)[:, :5]
        for i in range(count):
            rounded = kept + (1 << 16 * i >> 1) >> 16 * i
            np.testing.assert_array_equal(pieces[i], rounded[0].astype(np.int16))


def with_magnitudes() -> Executable:
    """Take x with its rows' magnitudes, in one region, and y with its own, which come back."""
    x = placed(CONFIG, SOURCE, "s16 panels", (5, 7), "input")
    rows = placed(CONFIG, SOURCE, "u16 magnitudes", (5,), "input", offset=x.size, of="x")
    y = placed(CONFIG, TARGET, "s16 panels", (5, 7), "output")
    out = placed(CONFIG, TARGET, "u16 magnitudes", (5,), "output", offset=y.size, of="y")
    return Executable(
        config=CONFIG,
        program=Program(CONFIG),
        regions={SOURCE: x.size + 64, TARGET: y.size + 64},
        buffers={"x": x, "x magnitudes": rows, "y": y, "y magnitudes": out},
    )


def test_magnitudes_are_derived():
    executable = with_magnitudes()
    assert list(executable.inputs) == ["x"]
    assert list(executable.outputs) == ["y", "y magnitudes"]
    x = np.random.default_rng(1).integers(-32768, 32768, (5, 7)).astype(np.int16)
    x[2, 3] = -32768
    images = executable.pack({"x": x})
    assert list(images) == [SOURCE]
    assert len(images[SOURCE]) == executable.regions[SOURCE]
    # The output's region has the same places.
    values = executable.unpack({TARGET: images[SOURCE].tobytes()})
    np.testing.assert_array_equal(values["y"], x)
    np.testing.assert_array_equal(values["y magnitudes"], row_max(x))
    assert values["y magnitudes"][2] == 32768


def test_regions_by_direction():
    executable = state_executable(CONFIG, bytes(32))
    assert executable.regions_of("input") == {1}
    assert executable.regions_of("output") == {3}
    assert executable.regions_of("internal") == {4}


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "input 'x' is missing; expected x"),
        ({"x": np.zeros((5, 7), int), "z": 1}, "there is no input 'z'; expected x"),
        ({"x": np.zeros((5, 8), int)}, r"x: expected an array of shape \(5, 7\), got \(5, 8\)"),
        ({"x": np.zeros((5, 7))}, "x: expected an array of integers, got float64"),
        ({"x": np.full((5, 7), 32768)}, "values of 32768 to 32768, s16 holds -32768 to 32767"),
    ],
)
def test_inputs_that_do_not_fit(inputs, text):
    with pytest.raises(InputError, match=text) as caught:
        copy_executable(CONFIG).pack(inputs)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


def test_scalars_by_meaning():
    executable = copy_executable(CONFIG)
    assert executable.registers({"start": 8}) == {3: 8}
    with pytest.raises(InputError, match="scalar 'start' is missing"):
        executable.registers({})
    with pytest.raises(InputError, match="no scalar 'length'; expected start"):
        executable.registers({"start": 1, "length": 2})
    with pytest.raises(InputError, match="scalar start = -1"):
        executable.registers({"start": -1})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"config": preset_config("small")}, "program for 'tiny', executable for 'small'"),
        ({"regions": {0: 64}}, "region 0: must be 1 to 7"),
        ({"regions": {8: 64}}, "region 8: must be 1 to 7"),
        ({"regions": {1: 0, 3: 80}}, "buffer 'x': bytes 0 to 80 of region 1, which has 0"),
        ({"regions": {3: 80}}, "region 1, which has 0"),
        ({"constants": {2: b"1"}}, "region 2: 1 bytes of constants, None of region"),
        ({"constants": {1: bytes(80)}}, "buffer 'x': an input among constants"),
        ({"scalars": {"n": 16}}, "scalar 'n' = s16: must be 0 to 15"),
    ],
)
def test_parts_that_do_not_fit(changes, text):
    with pytest.raises(ValueError, match=text):
        replace(copy_executable(CONFIG), **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"size": 72}, "72 bytes, 's16 panels' of shape"),
        ({"layout": "s4"}, "layout 's4' is unknown; one of s8"),
        ({"shape": (5,)}, "has 2 dimensions"),
        ({"direction": "both"}, "direction 'both'"),
    ],
)
def test_buffers_that_do_not_fit(changes, text):
    executable = copy_executable(CONFIG)
    buffers = {**executable.buffers, "x": replace(executable.buffers["x"], **changes)}
    with pytest.raises(ValueError, match=text):
        replace(executable, buffers=buffers)


def test_summary_and_utilization():
    executable = copy_executable(CONFIG, macs=1600, estimate={"cycles": 200, "busy": {}})
    figures = summary(executable)
    assert figures["commands"] == {"all": 4, "load": 1, "matmul": 0, "vector": 0, "store": 1}
    assert figures["bytes"] == {"program": 256, "constants": 0, "regions": {1: 80, 3: 80}}
    assert figures["buffers"]["x"]["shape"] == (5, 7)
    assert executable.utilization() == 0.5
    assert executable.utilization(400) == 0.25
    assert copy_executable(CONFIG).utilization() == 0
    assert len(listing(executable).splitlines()) == 4


def test_a_changed_preset_is_not_called_as_the_preset():
    changed = preset_config("tiny").with_settings(["lanes=4"])
    assert summary(copy_executable(preset_config("tiny")))["config"] == "tiny"
    assert re.fullmatch("tiny-[0-9a-f]{8}", summary(copy_executable(changed))["config"])
