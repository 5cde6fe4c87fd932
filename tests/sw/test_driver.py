"""The driver: one protocol on every backend; what goes wrong is named, the next run is right."""

import numpy as np
import pytest

from tilewright.hw.commands import COMMAND_BYTES, Fault, Opcode, Unit
from tilewright.hw.config import Config, preset_config
from tilewright.hw.encoding import Token, command, encode
from tilewright.hw.registers import REGISTERS, STATUS_DONE
from tilewright.sim.iss_transport import IssTransport
from tilewright.sim.native.simulator import DECERR, SLVERR
from tilewright.sw.driver import (
    Device,
    DeviceError,
    DeviceFault,
    DeviceMismatch,
    DeviceTimeout,
)
from tilewright.sw.driver.backends import open_transport
from tilewright.sw.driver.machine import describe_command
from tilewright.sw.program import Program

CONFIG = preset_config("tiny")
WORD = CONFIG.word_bytes
LENGTH = 16 * WORD


def copy(length=LENGTH, *, source=1, target=2, offset=0, **more):
    """Region `source` to region `target`, through the scratchpad."""
    move = {"length": length, "runs": 1, "planes": 1, "sp_chunk": 1, "offset": offset}
    program = Program(CONFIG)
    program.append(command(Opcode.LOAD, region=source, posts=[(1, 1)], **{**move, **more}))
    program.append(command(Opcode.STORE, region=target, waits=[(1, 1)], **move))
    return program


def data(seed=0, length=LENGTH):
    return np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8)


def check_copies(device, seed=0):
    content = data(seed)
    result = device.run_program(copy().to_bytes(), {1: content, 2: LENGTH})
    np.testing.assert_array_equal(device.read_region(2), content)
    assert result.commands == 4
    return result


def patched(program, index, **bytes_at):
    """The program's bytes with bytes of a command changed: `b3=7` is its byte 3."""
    raw = bytearray(program.to_bytes())
    for name, value in bytes_at.items():
        raw[index * COMMAND_BYTES + int(name[1:])] = value
    return bytes(raw)


def fails(device, program, regions=None, **more):
    """The fault of a run; the next run must be right."""
    if regions is None:
        regions = {1: data(), 2: LENGTH}
    with pytest.raises(DeviceFault) as caught:
        device.run_program(program, regions, **more)
    fault = caught.value
    assert device.read("STATUS") & 4, "the record stays until the reset"
    assert device.read("FAULT_INDEX") == fault.index
    device.soft_reset()
    assert device.read("STATUS") == 0
    assert device.read("FAULT_CODE") == 0
    check_copies(device, seed=7)
    return fault


# ---- runs ----


def test_a_copy(device):
    check_copies(device, seed=1)
    result = check_copies(device, seed=2)
    assert device.read("STATUS") == STATUS_DONE
    for unit, counts in result.counters.items():
        assert sum(counts.values()) == result.cycles, unit


def test_scalars_and_what_regions_keep(device):
    content = data(3, 4 * LENGTH)
    device.set_region(1, content)
    program = copy(scalar_on=1, scalar=5).to_bytes()
    for scalar in (0, 2 * LENGTH, 3):
        device.run_program(program, {2: LENGTH}, scalars={5: scalar})
        np.testing.assert_array_equal(device.read_region(2), content[scalar : scalar + LENGTH])
    np.testing.assert_array_equal(device.read_region(1), content)


def test_region_0_holds_content_and_program(device):
    content = data(4, LENGTH)
    for _ in range(2):
        device.run_program(copy(source=0).to_bytes(), {0: content[:-3], 2: LENGTH})
        np.testing.assert_array_equal(device.read_region(2)[:-3], content[:-3])
        # The next program is longer: the content moves with it.
        longer = copy(source=0)
        for _ in range(100):
            longer.body[1:1] = [command(Opcode.LOAD)]
        device.run_program(longer.to_bytes(), {2: LENGTH})
        np.testing.assert_array_equal(device.read_region(2)[:-3], content[:-3])
        assert device.region(0)[1] == LENGTH - 3


@pytest.mark.parametrize("size", [LENGTH, np.int64(LENGTH), np.uint16(LENGTH)])
def test_a_region_of_zeros(iss, size):
    iss.set_region(1, data())
    iss.set_region(1, size)
    assert iss.region(1)[1] == LENGTH
    assert not iss.read_region(1).any()


def test_regions_do_not_overlap(iss):
    rng = np.random.default_rng(5)
    contents = {}
    for _ in range(60):
        index = int(rng.integers(8))
        contents[index] = rng.integers(0, 256, int(rng.integers(1, 20000)), dtype=np.uint8)
        iss.set_region(index, contents[index])
    for index, content in contents.items():
        np.testing.assert_array_equal(iss.read_region(index), content)
    iss.run_program(copy(8, source=3, target=4).to_bytes())
    for index, content in contents.items():
        assert iss.region(index)[1] == len(content)
        # The window of region 0 includes the program.
        if index:
            base, limit = iss.read(f"BASE{index}"), iss.read(f"LIMIT{index}")
            assert (base, limit - base) == iss.region(index)
    np.testing.assert_array_equal(iss.read_region(4, 0, 8), contents[3][:8])


# ---- faults ----


def test_hash_mismatch(device):
    fault = fails(device, patched(copy(), 0, b13=0x55))
    assert (fault.code, fault.unit, fault.index) == (Fault.HASH_MISMATCH, Unit.FETCH, 0)
    assert "BEGIN hash=" in str(fault)


def test_illegal_opcode(device):
    fault = fails(device, patched(copy(), 1, b0=0x77))
    assert (fault.code, fault.unit, fault.index) == (Fault.ILLEGAL_OPCODE, Unit.FETCH, 1)
    assert "opcode 0x77" in str(fault)


def test_illegal_field(device):
    program = copy()
    program.body[0]["sp_addr"] = CONFIG.sp_words
    fault = fails(device, program.to_bytes())
    assert (fault.code, fault.unit, fault.index) == (Fault.ILLEGAL_FIELD, Unit.FETCH, 1)
    assert f"sp_addr={CONFIG.sp_words}" in str(fault)


@pytest.mark.parametrize(
    ("side", "offset", "length"),
    [("load", 1, LENGTH), ("load", LENGTH, 1), ("store", 1, LENGTH), ("load", 1 << 31, WORD)],
)
def test_outside_the_window(device, side, offset, length):
    program = copy(length)
    program.body[0 if side == "load" else 1]["offset"] = offset
    fault = fails(device, program.to_bytes())
    unit = {"load": Unit.LOAD, "store": Unit.STORE}[side]
    assert (fault.code, fault.unit) == (Fault.WINDOW, unit)
    assert fault.index == {"load": 1, "store": 2}[side]
    index = {"load": 1, "store": 2}[side]
    # Regions 1 and 2 stayed where they were.
    assert fault.address == device.region(index)[0] + offset
    assert f"0x{fault.address:x}" in str(fault)
    assert side.upper() in str(fault)


def test_a_region_not_set(device):
    fault = fails(device, copy(source=6).to_bytes())
    assert (fault.code, fault.unit, fault.index) == (Fault.WINDOW, Unit.LOAD, 1)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_wrong_length(device, count):
    fault = fails(device, copy().to_bytes(), count=count)
    assert fault.unit == Unit.FETCH
    # Five commands do not fit into region 0, which ends behind the fourth.
    assert fault.code == (Fault.WINDOW if count == 5 else Fault.PROGRAM_LENGTH)


def test_no_end(device):
    program = copy().to_bytes()[:-COMMAND_BYTES] + encode(command(Opcode.LOAD))
    fault = fails(device, program)
    assert (fault.code, fault.index) == (Fault.PROGRAM_LENGTH, 3)


def test_a_token_that_never_comes(device):
    program = copy()
    program.body[1].waits = (Token(2, 1),)
    fault = fails(device, program.to_bytes(), watchdog=500)
    assert (fault.code, fault.unit, fault.index) == (Fault.WATCHDOG, Unit.STORE, 2)


def test_time_out_and_recovery(device):
    program = copy()
    program.body[1].waits = (Token(2, 1),)
    with pytest.raises(DeviceTimeout, match="not done after 5000 cycles: 2 of 4 commands"):
        device.run_program(program.to_bytes(), {1: data(), 2: LENGTH}, watchdog=0, timeout=5000)
    # No reset by hand: the driver sees that the machine is busy.
    check_copies(device)


def test_time_out_of_a_long_program(iss):
    program = Program(CONFIG)
    program.extend([command(Opcode.LOAD)] * 100)
    with pytest.raises(DeviceTimeout, match="after 50 cycles"):
        iss.run_program(program.to_bytes(), timeout=50)
    check_copies(iss)


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize("access", ["read", "write", "fetch"])
def test_bus_errors(rtl, access, response):
    check_copies(rtl)
    region = {"fetch": 0, "read": 1, "write": 2}[access]
    place = rtl.region(region)[0] + (2 * COMMAND_BYTES if access == "fetch" else WORD)
    rtl.transport.fail("write" if access == "write" else "read", place, place + 1, response)
    with pytest.raises(DeviceFault) as caught:
        rtl.run_program(copy().to_bytes(), {1: data(), 2: LENGTH})
    name = f"{'WRITE' if access == 'write' else 'READ'}_{'SLVERR' if response == 2 else 'DECERR'}"
    unit = {"fetch": Unit.FETCH, "read": Unit.LOAD, "write": Unit.STORE}[access]
    assert (caught.value.code, caught.value.unit) == (Fault[name], unit)
    assert caught.value.index == {"fetch": 2, "read": 1, "write": 2}[access]
    rtl.transport.clear_faults()
    check_copies(rtl)


@pytest.mark.parametrize("channel", ["AR", "R", "AW", "W", "B"])
def test_an_endless_stall(rtl, channel):
    check_copies(rtl)
    rtl.transport.stall(channel)
    with pytest.raises(DeviceFault) as caught:
        rtl.run_program(copy().to_bytes(), {1: data(), 2: LENGTH}, watchdog=1000)
    assert caught.value.code == Fault.WATCHDOG
    rtl.transport.clear_faults()
    check_copies(rtl)


def test_a_bus_that_is_gone(rtl):
    check_copies(rtl)
    rtl.transport.stall("R")
    with pytest.raises(DeviceFault):
        rtl.run_program(copy().to_bytes(), {1: data(), 2: LENGTH}, watchdog=1000)
    with pytest.raises(DeviceTimeout, match="soft reset not done"):
        rtl.soft_reset()
    rtl.transport.clear_faults()
    rtl.hard_reset()
    check_copies(rtl)


# ---- identity ----


class Other(IssTransport):
    """A machine one register of which differs."""

    def __init__(self, name, value):
        super().__init__(CONFIG)
        self.changed = {REGISTERS[name].address: value}

    def read32(self, address):
        return self.changed.get(address, super().read32(address))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ID", 0xFFFF_FFFF, "no Tilewright machine answers: ID is 0xffffffff"),
        ("VERSION", 0x00630102, "generated by version 99.1.2"),
        ("HASH_LO", 1, "generated from another"),
    ],
)
def test_not_our_machine(name, value, text):
    with pytest.raises(DeviceMismatch, match=text):
        Device(Other(name, value), CONFIG)


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_cannot_be_used_is_closed(monkeypatch, interrupted):
    closed = []

    class Closes(Other):
        def read32(self, address):
            if interrupted:
                raise KeyboardInterrupt
            return super().read32(address)

        def close(self):
            closed.append(True)

    monkeypatch.setattr("tilewright.sw.driver.device.open_transport", lambda *_: Closes("ID", 0))
    with pytest.raises(KeyboardInterrupt if interrupted else DeviceMismatch):
        Device("iss", CONFIG)
    assert closed


def test_another_configuration():
    changed = Config.from_dict({**CONFIG.to_dict(), "name": "tiny-2"})
    with pytest.raises(DeviceMismatch, match="'tiny-2'"):
        Device(open_transport("iss", CONFIG), changed)


# ---- usage ----


def test_bad_arguments(iss):
    with pytest.raises(ValueError, match="'fpga' is unknown; one of iss, model, verilator, cocotb"):
        Device("fpga", CONFIG)
    with pytest.raises(ValueError, match="no register 'NAME'"):
        iss.read("NAME")
    with pytest.raises(ValueError, match="BASE0 = -1"):
        iss.write("BASE0", -1)
    with pytest.raises(ValueError, match="region 8: 0 to 7"):
        iss.set_region(8, 1)
    with pytest.raises(ValueError, match="region 1 is not placed"):
        iss.read_region(1)
    with pytest.raises(ValueError, match="63 bytes"):
        iss.run_program(bytes(63))
    with pytest.raises(DeviceError, match="out of device memory: 2147483648 bytes wanted"):
        iss.set_region(1, 1 << 31)


def test_described():
    program = copy().to_bytes()
    assert describe_command(program, 3) == "END"
    assert describe_command(program, 4) is None
    assert "opcode 0x77" in str(describe_command(b"\x77" + bytes(63), 0))
