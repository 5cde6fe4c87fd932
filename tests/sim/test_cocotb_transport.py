"""The core behind a socket: what is left when the simulation ends, and awkward memories."""

import signal

import numpy as np
import pytest

from tests.sw.small_programs import copy_executable
from tilewright.hw.config import preset_config
from tilewright.hw.registers import IDENTIFICATION
from tilewright.sim.errors import SimulationError
from tilewright.sim.testbenches.transport import CocotbTransport, build_core
from tilewright.sim.toolchain import ToolchainError
from tilewright.sw.driver import Device

CONFIG = preset_config("tiny")
X = np.arange(-17, 18).reshape(5, 7).astype(np.int16)


def test_an_awkward_memory_and_progress():
    options = {"latency": 40, "pause": 0.2, "interleave": True, "seed": 5}
    device = Device("cocotb", CONFIG, simulator="icarus", memory=(0x1000, 0x8000), **options)
    result = device.run(copy_executable(CONFIG), {"x": X}, start=0)
    np.testing.assert_array_equal(result["y"], X)
    transport = device.transport
    data = np.arange(256, dtype=np.uint8)
    transport.write_memory(0x2001, data)
    np.testing.assert_array_equal(transport.read_memory(0x2000, 257)[1:], data)
    for address, length in ((0xFFF, 1), (0x9000, 1), (0x8FFF, 2)):
        with pytest.raises(ValueError, match=f"{length} bytes at 0x{address:x} are not all"):
            transport.read_memory(address, length)
    seen: list[int] = []
    assert not transport.wait(6000, seen.append)
    assert seen == [5000, 6000]
    assert not transport.wait(0)
    device.close()
    device.close()
    with pytest.raises(SimulationError, match="the simulator is closed"):
        transport.read32(0)


def test_an_interrupt_loses_no_answer():
    """Ctrl-C while the simulator works: later answers belong to what was asked then."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Device("cocotb", CONFIG, simulator="icarus") as device:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                device.transport.wait(10_000_000)
            assert device.read("ID") == IDENTIFICATION
            result = device.run(copy_executable(CONFIG), {"x": X}, start=0)
            np.testing.assert_array_equal(result["y"], X)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_simulation_that_ends():
    """The memory stops at an address it does not have, and says so."""
    with Device("cocotb", CONFIG, simulator="icarus", memory=(0x1000, 0x8000)) as device:
        device.write("BASE0", 0x10_0000)
        device.write("LIMIT0", 0x10_1000)
        device.write("PROGRAM_COUNT", 4)
        device.write("CONTROL", 1)
        with pytest.raises(SimulationError, match=r"has ended\n(.|\n)*0x100000 is outside"):
            device.transport.wait(1000)


def test_no_such_simulator(tmp_path):
    with pytest.raises(ValueError, match="simulator 'questa': must be one of verilator, icarus"):
        Device("cocotb", CONFIG, simulator="questa")
    with pytest.raises(ToolchainError, match="icarus for cocotb: "):
        build_core("module tilewright(; endmodule", tmp_path, "icarus")
    with pytest.raises(SimulationError, match="did not start"):
        CocotbTransport(CONFIG, tmp_path, simulator="icarus")
