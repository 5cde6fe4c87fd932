"""Real traffic through cocotb, on Verilator and on Icarus: a head on 4×4, a layer on 8×8."""

import numpy as np
import pytest

from tests.head import head_image
from tests.models import layer_input, minilm, run_whole
from tilewright.hw.config import preset_config
from tilewright.sim.image import Image
from tilewright.sim.testbenches.units.core import run_image
from tilewright.sw.compiler import compile_layer
from tilewright.sw.driver.device import Device

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
    config = preset_config("small")
    x, length, _ = layer_input(0, sequence)
    program = compile_layer(minilm()[1].layers[0], config, sequence)
    with Device("iss", config) as iss:
        _, expected = run_whole(iss, program, {"x": x}, {"length": length})
    contents = {region: np.frombuffer(data, np.uint8) for region, data in program.constants.items()}
    return Image(
        config=config,
        program=program.commands,
        regions={
            **contents,
            **program.pack({"x": x}),
            **{region: np.zeros(data.size, np.uint8) for region, data in expected.items()},
        },
        expected=expected,
        scalars={program.scalars["length"]: length},
    )


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_layer_on_8x8(simulator, tmp_path):
    run_image(layer_image(8), simulator=simulator, folder=tmp_path, timeout=2_000_000)
