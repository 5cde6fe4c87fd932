"""Whole encoders in one program: simulator and RTL against the golden composition."""

import numpy as np
import pytest

from tests.mismatch import assert_same
from tests.sw.small_bert import CONFIG, small_bert
from tilewright.hw.config import PRESETS, Config
from tilewright.sw.compiler import CompileError, compile_model
from tilewright.sw.driver.device import Device
from tilewright.sw.errors import InputError
from tilewright.sw.program import Executable, find_problems
from tilewright.sw.quantize.calibrate import calibrate
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.quantize import quantize
from tilewright.sw.quantize.reference import enter, run_layer

MIXED = "w8a8 0.ffn2=w8a16 1.qkv=w16a16 1.attention=16 1.ffn1=w4a8"


def small_model(precision: str = "w8a8") -> QModel:
    bert = small_bert(3)
    rng = np.random.default_rng(4)
    ranges = calibrate(bert, [rng.integers(0, CONFIG.vocab, 24) for _ in range(4)], moments=True)
    return quantize(bert, ranges, precision=precision)


def make_z(model: QModel, sequence: int, seed: int) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(0, CONFIG.vocab, sequence)
    return model.embedding.look_up(ids)


def expected(model: QModel, z: np.ndarray, length: int) -> np.ndarray:
    x = enter(model.embedding, z)
    for layer in model.layers:
        x = run_layer(layer, x, length)
    return x


def static_check(executable: Executable, length: int) -> None:
    regions = {r: (r << 32, (r << 32) + size) for r, size in executable.regions.items()}
    regions[0] = (0, len(executable.commands))
    scalars = dict.fromkeys(executable.scalars.values(), length)
    problems = find_problems(
        executable.program, executable.config, scalars=scalars, regions=regions
    )
    assert not problems, problems[0]


CONFIGS = {
    "tiny": PRESETS["tiny"],
    "default": PRESETS["default"],
    "a8x16": Config(name="a8x16", rows=8, columns=16, lanes=16),
    "smallest": Config(
        name="smallest",
        rows=4,
        columns=8,
        lanes=1,
        sp_banks=4,
        sp_depth=128,
        acc_banks=2,
        acc_depth=32,
        scale_rows=16,
        stat_rows=16,
        queue_depth=1,
        axi_data_width=32,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("sequence", "length"), [(1, 1), (19, 13)])
def test_simulator(name: str, sequence: int, length: int) -> None:
    model = small_model()
    executable = compile_model(model, CONFIGS[name], sequence, effort=1)
    static_check(executable, length)
    z = make_z(model, sequence, 5)
    with Device("iss", CONFIGS[name]) as device:
        got = device.run(executable, {"z": z}, length=length).values["y"]
    np.testing.assert_array_equal(got[:length], expected(model, z, length)[:length])


@pytest.mark.parametrize("precision", ["w16a16", "w4a16", MIXED])
def test_precisions(precision: str) -> None:
    model = small_model(precision)
    executable = compile_model(model, PRESETS["tiny"], 11, effort=1)
    assert executable.metadata["precision"]
    z = make_z(model, 11, 6)
    with Device("iss", PRESETS["tiny"]) as device:
        got = device.run(executable, {"z": z}, length=9).values["y"]
    np.testing.assert_array_equal(got[:9], expected(model, z, 9)[:9])


def test_batch_equals_single_runs_in_rtl() -> None:
    """Eight sequences of eight lengths in one program; every output byte as on the simulator."""
    model = small_model(MIXED)
    config = PRESETS["tiny"]
    lengths = (7, 1, 12, 4, 9, 2, 11, 5)
    zs = [make_z(model, 12, seed) for seed in range(8)]
    batch = compile_model(model, config, 12, batch=8, effort=1)
    names = batch.operations.names
    assert names[:2] == ("sequence 0 / embedding", "sequence 1 / embedding")
    assert "layer 1 / sequence 7 / head 0 / scores" in names
    assert sum(batch.operations.macs) == batch.metadata["macs"]
    static_check(batch, 12)
    inputs = {f"z{i}": z for i, z in enumerate(zs)}
    scalars = {f"length{i}": length for i, length in enumerate(lengths)}
    runs = {}
    for backend in ("iss", "verilator"):
        with Device(backend, config) as device:
            with device.load(batch) as loaded:
                runs[backend] = loaded.run(inputs, scalars)
    assert_same(batch, runs["iss"].regions, runs["verilator"].regions, scalars)
    single = compile_model(model, config, 12, effort=1)
    with Device("iss", config) as device:
        for i, (z, length) in enumerate(zip(zs, lengths, strict=True)):
            one = device.run(single, {"z": z}, length=length).values["y"]
            np.testing.assert_array_equal(runs["verilator"].values[f"y{i}"], one)
            np.testing.assert_array_equal(one[:length], expected(model, z, length)[:length])


def test_refusals() -> None:
    model = small_model()
    with pytest.raises(InputError, match="batch = 17: must be an integer from 1 to 16"):
        compile_model(model, PRESETS["tiny"], 8, batch=17)
    with pytest.raises(CompileError, match="sequence = 41: must be 1 to 40, the model's positions"):
        compile_model(model, PRESETS["tiny"], 41)
    with pytest.raises(CompileError, match=r"layer 0: .*activation gelu"):
        compile_model(model, Config(functions=("tanh",)), 8)


def test_a_mismatch_names_all_of_it() -> None:
    executable = compile_model(small_model(), PRESETS["tiny"], 4, effort=1)
    with Device("iss", PRESETS["tiny"]) as device:
        run = device.run(executable, {"z": make_z(small_model(), 4, 1)}, length=4)
    y = executable.buffers["y"]
    got = {region: content.copy() for region, content in run.regions.items()}
    # Row 2 of the first panel, column 3.
    got[y.region][y.offset + 2 * (2 * 4 + 3)] ^= 4
    with pytest.raises(AssertionError) as caught:
        assert_same(executable, run.regions, got, {"length": 4})
    (line,) = (line for line in str(caught.value).splitlines() if "expected" in line)
    value = run.values["y"][2, 3]
    assert f"y[2, 3]: expected {value}, got {value ^ 4} (command " in line
    assert "unit STORE, of layer 1 / layernorm" in line
    assert "tests/sw/test_compile_model.py::test_a_mismatch_names_all_of_it" in str(caught.value)
