"""Real traffic through cocotb, on Verilator and on Icarus: a head on 4×4, a layer on 8×8."""

from dataclasses import replace

import numpy as np
import pytest

from tests.head import head_image
from tests.models import layer_input, minilm
from tilewright.hw.config import preset_config
from tilewright.hw.manifest import manifest_hash
from tilewright.sim.image import Image
from tilewright.sim.testbenches.units.core import run_image
from tilewright.sw.compiler import compile_layer
from tilewright.sw.driver.record import record
from tilewright.sw.quantize.seeded import make_layer

SIMULATORS = ("verilator", "icarus")


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_head_on_4x4(simulator, tmp_path):
    image = head_image(preset_config("tiny"), head=3, sequence=16)
    run_image(image, simulator=simulator, folder=tmp_path, timeout=60_000, latency=20)


def test_head_catches_a_wrong_bit(tmp_path):
    image = head_image(preset_config("tiny"), head=3, sequence=16)
    image.expected[2] = image.expected[2].copy()
    image.expected[2][77] ^= 1
    with pytest.raises(RuntimeError, match="1 of 1 tests failed"):
        run_image(image, simulator="icarus", folder=tmp_path, timeout=60_000)


def layer_image(sequence: int) -> Image:
    """Layer 0 of MiniLM on `small` (8×8), what it must write by the simulator."""
    x, length, _ = layer_input(0, sequence)
    program = compile_layer(minilm()[1].layers[0], preset_config("small"), sequence)
    return record(program, {"x": x}, {"length": length})


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_layer_on_8x8(simulator, tmp_path):
    run_image(layer_image(8), simulator=simulator, folder=tmp_path, timeout=2_000_000)


@pytest.mark.slow
def test_a_program_runs_on_machines_it_cannot_tell_apart(tmp_path):
    """What the manifest's hash does not cover changes no bit."""
    tiny = preset_config("tiny")
    layer = make_layer(1, hidden=16, heads=1, head_dim=16, ffn=32)
    x = np.random.default_rng(1).integers(-9999, 9999, (4, 16)).astype(np.int16)
    image = record(compile_layer(layer, tiny, 4), {"x": x}, {"length": 3})
    settings = ["lanes=4", "row_engines=3", "sp_banks=16", "sp_depth=512", "acc_banks=2"]
    settings += ["acc_depth=1024", "axi_addr_width=40", "axi_data_width=256", "axi_outstanding=2"]
    settings += ["axi_max_burst=4", "queue_depth=1", "register_errors=1"]
    other = tiny.with_settings(settings)
    assert manifest_hash(other) == manifest_hash(tiny)
    run_image(replace(image, config=other), simulator="icarus", folder=tmp_path, timeout=50_000)
