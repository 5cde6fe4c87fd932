"""Machines of the `tiny` preset, one behind each backend."""

import pytest

from tests.sw.arrays import AWKWARD
from tilewright.hw.config import preset_config
from tilewright.sw.driver import Device

CONFIG = preset_config("tiny")


@pytest.fixture(scope="session")
def icarus():
    """A core under cocotb on Icarus; started once, since it takes a second."""
    with Device("cocotb", CONFIG, simulator="icarus") as device:
        yield device


@pytest.fixture(scope="session")
def cocotb_verilator():
    """The same on Verilator, whose build takes most of a minute."""
    with Device("cocotb", CONFIG, simulator="verilator") as device:
        yield device


@pytest.fixture(
    params=[
        "iss",
        "verilator",
        pytest.param("icarus", id="cocotb"),
        pytest.param("cocotb_verilator", marks=pytest.mark.slow, id="cocotb-verilator"),
    ]
)
def device(request):
    """The same test runs on each backend."""
    if request.param in ("iss", "verilator"):
        with Device(request.param, CONFIG) as device:
            yield device
    else:
        device = request.getfixturevalue(request.param)
        yield device
        device.hard_reset()


@pytest.fixture
def iss():
    with Device("iss", CONFIG) as device:
        yield device


@pytest.fixture
def rtl():
    with Device("verilator", CONFIG) as device:
        yield device


@pytest.fixture(scope="session")
def checked():
    """The simulator, in the mode that refuses what hardware leaves undefined."""
    with Device("iss", CONFIG, check=True) as device:
        yield device


@pytest.fixture(scope="session")
def machines(checked):
    """Machines of five shapes, with the simulator behind them."""
    others = [Device("iss", config, check=True) for config in (*AWKWARD, preset_config("default"))]
    return [checked, *others]
