"""The cocotb testbench of the whole core, on a stub of it that copies region 1 to region 2."""

from pathlib import Path

import numpy as np
import pytest

from tilewright.hw.config import preset_config
from tilewright.sim.compare import Matrix
from tilewright.sim.image import Image
from tilewright.sim.testbenches.runner import SIMULATORS
from tilewright.sim.testbenches.units.core import run_image

STUB = (Path(__file__).parent / "stub.v").read_text()
SIZE = 2048


def image():
    content = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)
    return Image(
        config=preset_config("default"),
        program=bytes(4 * 64),
        regions={1: content, 2: np.zeros(SIZE, dtype=np.uint8)},
        expected={1: content, 2: content.copy()},
        buffers={"copied": Matrix(region=2, offset=0, shape=(32, 32), dtype="int16")},
    )


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_the_stub(simulator, tmp_path):
    good = image()
    run_image(
        good, simulator=simulator, folder=tmp_path / "good", text=STUB, pause=0.2, timeout=2000
    )


def test_what_is_wrong_is_named(tmp_path):
    bad = image()
    bad.expected[2][2 * (5 * 32 + 7)] ^= 1
    with pytest.raises(RuntimeError, match=r"copied\[5, 7\]: expected") as caught:
        run_image(
            bad, simulator="icarus", folder=tmp_path / "bad", text=STUB, rerun="tilewright again"
        )
    assert "tilewright again" in str(caught.value)
    with pytest.raises(RuntimeError, match="STATUS 0x1 after"):
        run_image(image(), simulator="icarus", folder=tmp_path / "slow", text=STUB, timeout=50)
    fault = image()
    # The stub reads with the wrong address, which the memory must refuse.
    fault.scalars = {0: 6}
    with pytest.raises(RuntimeError, match="AssertionError"):
        run_image(fault, simulator="icarus", folder=tmp_path / "rule", text=STUB)
