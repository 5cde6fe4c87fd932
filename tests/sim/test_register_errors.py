"""What answers an access of no register, or a write of one that cannot be written."""

import pytest

from tilewright.hw.config import preset_config
from tilewright.hw.registers import IDENTIFICATION, REGISTERS
from tilewright.sim.errors import SimulationError
from tilewright.sw.driver.backends import open_transport

TINY = preset_config("tiny")
NOTHING, READ_ONLY, SCALAR = 0x014, REGISTERS["ID"].address, REGISTERS["SCALAR3"].address
OPTIONS = {"cocotb": {"simulator": "icarus"}}
BACKENDS = ["iss", "model", "cocotb", pytest.param("verilator", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_okay(backend):
    transport = open_transport(backend, TINY, **OPTIONS.get(backend, {}))
    for address in (NOTHING, READ_ONLY):
        transport.write32(address, 0xFFFF_FFFF)
    assert transport.read32(NOTHING) == 0
    assert transport.read32(READ_ONLY) == IDENTIFICATION
    transport.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_slverr(backend):
    config = TINY.with_settings(["register_errors=1"])
    transport = open_transport(backend, config, **OPTIONS.get(backend, {}))
    with pytest.raises(SimulationError, match="reading register 0x014: answered with an"):
        transport.read32(NOTHING)
    for address in (NOTHING, READ_ONLY):
        text = f"writing register 0x{address:03x}: answered with an error"
        with pytest.raises(SimulationError, match=text):
            transport.write32(address, 0xFFFF_FFFF)
    # What is right after it is.
    transport.write32(SCALAR, 7)
    assert transport.read32(SCALAR) == 7
    assert transport.read32(READ_ONLY) == IDENTIFICATION
    transport.close()
