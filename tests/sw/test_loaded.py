"""Programs in a device's memory: several at once, several runs queued, errors and what is left."""

import contextlib

import numpy as np
import pytest

from tests.sw.small_programs import TARGET, copy_executable, move, state_executable
from tilewright.hw.commands import Fault, Opcode
from tilewright.hw.config import Config, preset_config
from tilewright.hw.encoding import Token, command
from tilewright.sim.iss_transport import IssTransport
from tilewright.sw.driver import (
    Device,
    DeviceError,
    DeviceFault,
    DeviceMismatch,
    DeviceTimeout,
    OutOfDeviceMemory,
)
from tilewright.sw.program import InputError

CONFIG = preset_config("tiny")


def matrix(seed, rows=5, columns=7):
    return np.random.default_rng(seed).integers(-32768, 32768, (rows, columns)).astype(np.int16)


def check_copy(loaded, seed):
    outputs = loaded.run({"x": matrix(seed)}, {"start": 0})
    np.testing.assert_array_equal(outputs["y"], matrix(seed))
    return outputs


def hanging():
    """A copy whose STORE waits for a token nobody posts."""
    executable = copy_executable(CONFIG)
    executable.program.body[1].waits = (Token(2, 1),)
    return executable


# ---- runs ----


def test_one_run(device):
    before = device.memory.free_bytes
    outputs = device.run(copy_executable(CONFIG), {"x": matrix(1)}, start=0)
    np.testing.assert_array_equal(outputs["y"], matrix(1))
    assert outputs.result.commands == 4
    for unit, counts in outputs.result.counters.items():
        assert sum(counts.values()) == outputs.result.cycles, unit
    assert (outputs.result.cycles > 0) == (device.transport.name != "iss")
    assert device.memory.free_bytes == before


def test_several_programs_stay(device):
    rng = np.random.default_rng(2)
    before = device.memory.free_bytes
    constants = [rng.integers(0, 256, 40, dtype=np.uint8) for _ in range(3)]
    states = [device.load(state_executable(CONFIG, c.tobytes())) for c in constants]
    plain = device.load(copy_executable(CONFIG))
    kept = [np.zeros(40, np.uint8) for _ in states]
    for index in (0, 1, 0, 2, 1):
        now = rng.integers(0, 256, 40, dtype=np.uint8)
        outputs = states[index].run({"now": now})
        np.testing.assert_array_equal(outputs["before"], kept[index])
        np.testing.assert_array_equal(outputs["constant"], constants[index])
        kept[index] = now
    check_copy(plain, 3)
    # The place of one is used again by the next, and the others do not notice.
    states.pop(1).free()
    again = device.load(state_executable(CONFIG, constants[0].tobytes()))
    np.testing.assert_array_equal(again.run({"now": kept[0]})["before"], 0)
    np.testing.assert_array_equal(states[0].read_region(4), kept[0])
    states[0].write_region(4, kept[2])
    np.testing.assert_array_equal(states[0].run({"now": kept[0]})["before"], kept[2])
    for loaded in (*states, plain, again):
        loaded.free()
    assert device.memory.free_bytes == before


def test_a_program_sees_its_own_regions_only(device):
    with device.load(state_executable(CONFIG, bytes(40))) as other:
        other.run({"now": np.ones(40, np.uint8)})
        executable = copy_executable(CONFIG)
        executable.program.body[0]["region"] = 4
        with pytest.raises(DeviceFault) as caught:
            device.run(executable, {"x": matrix(1)}, start=0)
        assert caught.value.code == Fault.WINDOW
        # The program before stands, and has lost nothing.
        np.testing.assert_array_equal(other.run({"now": np.zeros(40, np.uint8)})["before"], 1)


def test_scalars(device):
    x = matrix(3, 5, 4)
    executable = copy_executable(CONFIG, 5, 4)
    executable.program.body[0]["length"] = 8
    executable.program.body[1]["length"] = 8
    with device.load(executable) as loaded:
        for row in (0, 4, 2):
            outputs = loaded.run({"x": x}, {"start": 8 * row})
            np.testing.assert_array_equal(outputs["y"][0], x[row])


# ---- the queue ----


def test_queued_runs_end_in_order(device):
    with device.load(copy_executable(CONFIG)) as loaded:
        with device.load(state_executable(CONFIG, bytes(8))) as state:
            tickets = []
            for turn in range(4):
                tickets.append(device.submit(loaded, {"x": matrix(turn)}, {"start": 0}))
                state.submit({"now": np.full(8, turn, np.uint8)})
            last = state.submit({"now": np.zeros(8, np.uint8)})
            np.testing.assert_array_equal(last.result()["before"], 3)
            assert all(ticket.done for ticket in tickets)
            for turn, ticket in enumerate(tickets):
                np.testing.assert_array_equal(ticket.result()["y"], matrix(turn))
                # A second time too.
                np.testing.assert_array_equal(ticket.result()["y"], matrix(turn))
            assert len(device.queue) == 0


class Recording(IssTransport):
    """Notes what the driver does and in which order."""

    def __init__(self, memory=(0x1000, 1 << 20)):
        super().__init__(CONFIG, memory=memory)
        self.log = []

    def write_memory(self, address, data):
        self.log.append("write")
        super().write_memory(address, data)

    def read_memory(self, address, length):
        self.log.append("read")
        return super().read_memory(address, length)

    def write32(self, address, value):
        if address == 0x20 and value & 1:
            self.log.append("start")
        super().write32(address, value)

    def wait(self, cycles, progress=None):
        self.log.append("wait")
        return super().wait(cycles, progress)


def test_the_next_run_is_ready_when_one_ends():
    """Inputs of the second are written before the first is waited for; it starts at once."""
    transport = Recording()
    device = Device(transport, CONFIG)
    loaded = device.load(copy_executable(CONFIG))
    first = loaded.submit({"x": matrix(1)}, {"start": 0})
    second = loaded.submit({"x": matrix(2)}, {"start": 0})
    third = loaded.submit({"x": matrix(3)}, {"start": 0})
    transport.log.clear()
    first.result()
    # The third takes the first's frame once its outputs are read.
    assert transport.log == ["wait", "start", "read", "write"]
    second.result()
    assert transport.log[4:] == ["wait", "start", "read"]
    np.testing.assert_array_equal(third.result()["y"], matrix(3))


def test_one_frame_where_memory_is_short():
    # Program, input and output: three pages, and no more.
    device = Device(Recording((0, 3 * 4096)), CONFIG)
    loaded = device.load(copy_executable(CONFIG))
    assert loaded.size == device.memory.total
    tickets = [loaded.submit({"x": matrix(turn)}, {"start": 0}) for turn in range(4)]
    for turn, ticket in enumerate(tickets):
        np.testing.assert_array_equal(ticket.result()["y"], matrix(turn))


def test_freeing_waits_for_what_is_queued(device):
    loaded = device.load(copy_executable(CONFIG))
    tickets = [loaded.submit({"x": matrix(turn)}, {"start": 0}) for turn in range(3)]
    loaded.free()
    loaded.free()
    for turn, ticket in enumerate(tickets):
        assert ticket.done
        np.testing.assert_array_equal(ticket.result()["y"], matrix(turn))
    with pytest.raises(DeviceError, match="freed"):
        loaded.submit({"x": matrix(0)}, {"start": 0})


# ---- what goes wrong ----


def test_a_fault_is_its_own_runs_alone(device):
    with device.load(copy_executable(CONFIG)) as loaded:
        good = loaded.submit({"x": matrix(1)}, {"start": 0})
        bad = loaded.submit({"x": matrix(2)}, {"start": 1 << 20})
        after = loaded.submit({"x": matrix(3)}, {"start": 0})
        np.testing.assert_array_equal(after.result()["y"], matrix(3))
        np.testing.assert_array_equal(good.result()["y"], matrix(1))
        for _ in range(2):
            with pytest.raises(DeviceFault, match="WINDOW in unit LOAD, command 1"):
                bad.result()


def test_time_out_and_recovery(device):
    with device.load(hanging()) as stuck, device.load(copy_executable(CONFIG)) as loaded:
        bad = stuck.submit({"x": matrix(1)}, {"start": 0}, watchdog=0, timeout=3000)
        good = loaded.submit({"x": matrix(2)}, {"start": 0})
        with pytest.raises(DeviceTimeout, match="not done after 3000 cycles: 2 of 4 commands"):
            bad.result()
        np.testing.assert_array_equal(good.result()["y"], matrix(2))
        with pytest.raises(DeviceFault, match="WATCHDOG in unit STORE, command 2"):
            stuck.run({"x": matrix(1)}, {"start": 0}, watchdog=500)
        assert device.read("STATUS") == 0
        with pytest.raises(DeviceTimeout):
            stuck.run({"x": matrix(1)}, {"start": 0}, watchdog=0, timeout=500)
        # It is stopped before anyone uses its memory again.
        assert device.read("STATUS") == 0
        check_copy(loaded, 3)


def test_a_run_that_is_broken_off(rtl):
    """Ctrl-C leaves the machine with a run under way; it is given up, not waited for."""

    def interrupt(cycles):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rtl.run(hanging(), {"x": matrix(1)}, start=0, watchdog=0, progress=interrupt)
    assert len(rtl.queue) == 0
    assert rtl.memory.free_bytes == rtl.memory.total
    np.testing.assert_array_equal(
        rtl.run(copy_executable(CONFIG), {"x": matrix(2)}, start=0)["y"], matrix(2)
    )


class Interrupted(Recording):
    """Ctrl-C in the n-th call of a method, once."""

    method, calls = "", 0

    def _count(self, method):
        if method == self.method:
            self.calls -= 1
            if not self.calls:
                raise KeyboardInterrupt

    def write_memory(self, address, data):
        self._count("write_memory")
        super().write_memory(address, data)

    def read_memory(self, address, length):
        self._count("read_memory")
        return super().read_memory(address, length)

    def write32(self, address, value):
        # Behind it: the machine has it, and the driver does not know.
        super().write32(address, value)
        self._count("write32")

    def read32(self, address):
        self._count("read32")
        return super().read32(address)


@pytest.mark.parametrize("method", ["read_memory", "write_memory", "read32", "write32"])
def test_an_interrupt_costs_no_frame(method):
    """Wherever it comes: the runs it met say so, those after it are right."""
    transport = Interrupted()
    device = Device(transport, CONFIG)
    met = 0
    with device.load(copy_executable(CONFIG)) as loaded:

        def three():
            return [loaded.submit({"x": matrix(n)}, {"start": 0}) for n in range(3)]

        for call in range(1, 8):
            tickets = []
            transport.method, transport.calls = method, call
            try:
                tickets = three()
                for ticket in tickets:
                    ticket.result()
            except KeyboardInterrupt:
                met += 1
            transport.method = ""
            for number, ticket in enumerate(tickets):
                with contextlib.suppress(DeviceError):
                    np.testing.assert_array_equal(ticket.result()["y"], matrix(number))
            for number, ticket in enumerate(three()):
                np.testing.assert_array_equal(ticket.result()["y"], matrix(number))
            assert len(device.queue) == 0
            assert len(loaded.idle) == 2
    assert met >= 3
    assert device.memory.free_bytes == device.memory.total


@pytest.mark.parametrize("call", [1, 2, 9])
def test_a_wait_that_is_broken_off_goes_on(call):
    """Also while the driver reads what the run took."""
    transport = Interrupted()
    with Device(transport, CONFIG).load(copy_executable(CONFIG)) as loaded:
        ticket = loaded.submit({"x": matrix(1)}, {"start": 0})
        transport.method, transport.calls = "read32", call
        with pytest.raises(KeyboardInterrupt):
            ticket.result()
        np.testing.assert_array_equal(ticket.result()["y"], matrix(1))


def test_an_interrupt_while_loading_keeps_nothing():
    transport = Interrupted()
    device = Device(transport, CONFIG)
    for call in (1, 2):
        transport.method, transport.calls = "write_memory", call
        with pytest.raises(KeyboardInterrupt):
            device.load(copy_executable(CONFIG))
        assert device.memory.free_bytes == device.memory.total


@pytest.mark.parametrize("reset", ["soft_reset", "hard_reset"])
def test_a_reset_gives_up_one_run(device, reset):
    with device.load(copy_executable(CONFIG)) as loaded:
        check_copy(loaded, 0)
        first = loaded.submit({"x": matrix(1)}, {"start": 0})
        second = loaded.submit({"x": matrix(2)}, {"start": 0})
        getattr(device, reset)()
        with pytest.raises(DeviceError, match="the machine was reset"):
            first.result()
        np.testing.assert_array_equal(second.result()["y"], matrix(2))


def test_programs_and_raw_runs_live_together(device):
    with device.load(copy_executable(CONFIG)) as loaded:
        ticket = loaded.submit({"x": matrix(1)}, {"start": 0})
        content = np.arange(64, dtype=np.uint8)
        device.set_region(1, content)
        device.set_region(2, 64)
        raw = copy_executable(CONFIG).program
        raw.body[:] = [move(Opcode.LOAD, 1, 64), move(Opcode.STORE, 2, 64, waits=[(1, 1)])]
        raw.body[0].posts = (Token(1, 1),)
        device.run_program(raw.to_bytes())
        np.testing.assert_array_equal(device.read_region(2), content)
        np.testing.assert_array_equal(ticket.result()["y"], matrix(1))
        check_copy(loaded, 2)


def test_another_machines_program(iss):
    small = copy_executable(preset_config("small"))
    with pytest.raises(DeviceMismatch, match=r"for configuration 'small' .* the machine is 'tiny'"):
        iss.load(small)
    changed = Config.from_dict({**CONFIG.to_dict(), "queue_depth": 8})
    with pytest.raises(DeviceMismatch):
        iss.load(copy_executable(changed))


def test_out_of_memory_keeps_nothing():
    device = Device(Recording((0x1000, 5 * 4096)), CONFIG)
    loaded = device.load(copy_executable(CONFIG))
    with pytest.raises(OutOfDeviceMemory, match="80 bytes wanted, 0 free, largest gap 0 of 20480"):
        device.load(copy_executable(CONFIG))
    assert device.memory.free_bytes == 2 * 4096
    check_copy(loaded, 1)
    loaded.free()
    assert device.memory.free_bytes == device.memory.total


def test_bad_inputs_take_nothing(iss):
    with iss.load(copy_executable(CONFIG)) as loaded:
        with pytest.raises(InputError, match="input 'x' is missing"):
            loaded.run({})
        with pytest.raises(InputError, match="scalar 'start' is missing"):
            loaded.run({"x": matrix(1)})
        with pytest.raises(ValueError, match="region 3 of this program has no place"):
            loaded.read_region(TARGET)
        with pytest.raises(ValueError, match="not internal"):
            loaded.write_region(TARGET, 0)
        check_copy(loaded, 1)


def test_long_programs_report_progress(iss):
    executable = copy_executable(CONFIG)
    executable.program.body[1:1] = [command(Opcode.LOAD)] * 600
    seen: list[int] = []
    iss.run(executable, {"x": matrix(1)}, start=0, progress=seen.append)
    assert seen == [0, 256, 512]
