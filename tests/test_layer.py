"""A real encoder layer in RTL: equal to the simulator and the reference in every bit."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.mismatch import assert_same
from tests.models import ARRAYS, array_config, layer_input, minilm, run_whole
from tilewright.hw.config import Config, preset_config
from tilewright.sim.native.simulator import BusOptions
from tilewright.sw.compiler import compile_layer
from tilewright.sw.driver.device import Device
from tilewright.sw.quantize import reference
from tilewright.sw.quantize.formats import QLayer
from tilewright.sw.quantize.seeded import PRECISIONS, make_input, make_layer

LANES = {"1": lambda c: 1, "C/2": lambda c: c // 2, "C": lambda c: c}


def check_layer(
    config: Config,
    layer: int,
    sequence: int,
    *,
    bus: BusOptions | None = None,
    effort: int = 1,
) -> dict:
    """Run a layer of MiniLM on simulator and RTL, compare all they wrote, return the figures."""
    x, length, _ = layer_input(layer, sequence)
    quantized = minilm()[1].layers[layer]
    return {"layer": layer} | compare(quantized, config, x, length, bus=bus, effort=effort)


def compare(
    quantized: QLayer,
    config: Config,
    x: np.ndarray,
    length: int,
    *,
    bus: BusOptions | None = None,
    effort: int = 1,
) -> dict:
    """The same of any quantized layer and input."""
    sequence = len(x)
    program = compile_layer(quantized, config, sequence, effort=effort)
    with Device("iss", config) as iss:
        expected, wanted = run_whole(iss, program, {"x": x}, {"length": length})
    reference_y = reference.run_layer(quantized, x, length)
    np.testing.assert_array_equal(expected["y"][:length], reference_y[:length])
    options = {} if bus is None else {"bus": bus}
    with Device("verilator", config, **options) as rtl:
        got, found = run_whole(rtl, program, {"x": x}, {"length": length})
    assert_same(program, wanted, found, {"length": length})
    for unit, reasons in got.result.counters.items():
        assert sum(reasons.values()) == got.result.cycles, unit
    return {
        "config": config.name,
        "array": f"{config.rows}×{config.columns}",
        "lanes": config.lanes,
        "sequence": sequence,
        "tokens": length,
        "cycles": got.result.cycles,
        "utilization": round(program.utilization(got.result.cycles), 4),
        "onchip_bytes": config.onchip_bytes,
    }


def record(row: dict) -> None:
    """Append a result to the file TILEWRIGHT_MATRIX names, for `docs/`."""
    target = os.environ.get("TILEWRIGHT_MATRIX")
    if target:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@pytest.mark.parametrize("sequence", [1, 17, 32])
def test_tiny(sequence):
    check_layer(preset_config("tiny"), 0, sequence)


def test_lanes_and_rectangle():
    check_layer(array_config(8, 16, 16), 0, 17)


def test_small_with_an_awkward_memory():
    bus = BusOptions(latency=(3, 60), back_pressure=0.2, interleave=True, seed=7)
    check_layer(preset_config("small"), 0, 32, bus=bus)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(precision):
    layer = make_layer(5, 48, 3, 16, 72, PRECISIONS[precision])
    compare(layer, preset_config("tiny"), make_input(6, 19, 48), 13)


@pytest.mark.slow
@pytest.mark.parametrize("layer", range(6))
def test_every_layer_on_default(layer):
    row = check_layer(preset_config("default"), layer, 128, effort=5)
    assert row["utilization"] >= 0.8
    record(row)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(("rows", "columns"), ARRAYS)
def test_matrix(rows, columns, lanes):
    config = array_config(rows, columns, LANES[lanes](columns))
    for sequence in (1, 17, 32, 128, 512):
        record(check_layer(config, 0, sequence))
