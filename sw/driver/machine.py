"""One machine behind a transport: registers by name, its identity, one run from start to end."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tilewright import __version__
from tilewright.hw.commands import COMMAND_BYTES, REGIONS, SCALARS, Fault, Unit
from tilewright.hw.config import Config
from tilewright.hw.encoding import decode
from tilewright.hw.manifest import hash_difference, manifest_hash
from tilewright.hw.registers import (
    CONTROL_IRQ_CLEAR,
    CONTROL_SOFT_RESET,
    CONTROL_START,
    COUNTERS,
    IDENTIFICATION,
    REGISTERS,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_FAULT,
    STATUS_RESETTING,
)
from tilewright.sim.trace import Span
from tilewright.sw.arguments import instance, integer, shown
from tilewright.sw.driver.errors import (
    DeviceClosed,
    DeviceError,
    DeviceFault,
    DeviceMismatch,
    DeviceTimeout,
)
from tilewright.sw.driver.transport import Recorder, Transport
from tilewright.sw.errors import InputError
from tilewright.sw.program import format_command

WATCHDOG = 100_000
"""Cycles without progress until a fault, unless the caller says otherwise."""

TIMEOUT = 2_000_000_000
"""Cycles a run may take, unless the caller says otherwise."""

Progress = Callable[[int], None]
"""Told now and then how many cycles of a run have passed."""

_RESET_CYCLES = 100_000
_RESET_POLLS = 100


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run that ended well took.

    Attributes
    ----------
    cycles : int
        Start to done, as the machine counts them; 0 of a backend without time.
    commands : int
        Commands completed.
    counters : dict of str to dict of str to int
        Of each unit, the cycles of each kind; those of a unit add up to `cycles`.
    seconds : float
        Of wall time, from start to done.
    spans : tuple of Span
        When each command was taken, worked on and retired, in program order; empty where the
        backend does not record it.
    """

    cycles: int
    commands: int
    counters: dict[str, dict[str, int]]
    seconds: float
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything the registers say of a run.

    Attributes
    ----------
    program : bytes
        Commands as they stand in memory, to describe a fault.
    windows : mapping of int to (int, int)
        First byte and size of each region the run sees; others are empty.
    offset : int
        Of the first command in region 0.
    count : int or None
        PROGRAM_COUNT; the number of commands in `program` if None.
    scalars : mapping of int to int
        Scalar registers; those not named are 0.
    watchdog : int
        Cycles without progress until a fault; 0: none.
    timeout : int
        Cycles until the driver gives up.
    """

    program: bytes
    windows: Mapping[int, tuple[int, int]]
    offset: int = 0
    count: int | None = None
    scalars: Mapping[int, int] = field(default_factory=dict)
    watchdog: int = WATCHDOG
    timeout: int = TIMEOUT

    @property
    def commands(self) -> int:
        """Commands in the program."""
        return len(self.program) // COMMAND_BYTES


def describe_command(program: bytes, index: int) -> str | None:
    """Listing of command `index`, its bytes if it is none, or None behind the end."""
    data = program[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
    if len(data) < COMMAND_BYTES:
        return None
    try:
        return " ".join(format_command(decode(data)).split())
    except ValueError as error:
        return f"{error}; bytes {data[:16].hex(' ')} …"


def check_limits(watchdog: int, timeout: int) -> None:
    """Refuse limits of a run that are no cycles.

    Raises
    ------
    InputError
    """
    integer("watchdog", watchdog, 0, (1 << 32) - 1)
    integer("timeout", timeout, 1)


class _Closed:
    """In the place of a closed machine's transport: whatever is asked of it is refused."""

    def __getattr__(self, name: str) -> Any:
        raise DeviceClosed("the device is closed")


class Machine:
    """One machine; a context manager.

    Parameters
    ----------
    config : Config
        What the machine must be.
    transport : Transport
        Where it is.

    Raises
    ------
    DeviceMismatch
        If something else answers.
    """

    def __init__(self, config: Config, transport: Transport) -> None:
        self.config = instance("config", config, Config)
        self.transport = transport
        # What rw registers hold, as far as they were written: a start writes what changes.
        self._held: dict[str, int] = {}
        self._begun = 0.0
        self.check()

    def close(self) -> None:
        """Give the machine back; a second call does nothing."""
        if not isinstance(self.transport, _Closed):
            self.transport.close()
            self.transport = _Closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- registers ----

    def read(self, name: str) -> int:
        """Read a register by name; a name without _LO and _HI reads both."""
        if name in REGISTERS:
            return self.transport.read32(REGISTERS[name].address)
        # In this order: the low half of a counter takes a snapshot of both.
        low, high = (self.transport.read32(address) for address in self._halves(name))
        return high << 32 | low

    def write(self, name: str, value: int) -> None:
        """Write a register by name; a name without _LO and _HI writes both."""
        # What a caller writes past the driver, the next run writes again.
        self._held.clear()
        self._write(name, value)

    def _write(self, name: str, value: int) -> None:
        if name in REGISTERS:
            bits, addresses = 32, [REGISTERS[name].address]
        else:
            bits, addresses = 64, list(self._halves(name))
        value = integer(name, value, 0, (1 << bits) - 1)
        for number, address in enumerate(addresses):
            self.transport.write32(address, value >> 32 * number & 0xFFFF_FFFF)

    def _set(self, name: str, value: int) -> None:
        """Write an rw register unless it holds the value."""
        if self._held.get(name) != value:
            # Forgotten first: a write that breaks off leaves nobody knows what.
            self._held.pop(name, None)
            self._write(name, value)
            self._held[name] = value

    def _control(self, bits: int) -> None:
        self._write("CONTROL", bits)

    @staticmethod
    def _halves(name: str) -> tuple[int, int]:
        try:
            return REGISTERS[f"{name}_LO"].address, REGISTERS[f"{name}_HI"].address
        except KeyError:
            raise InputError(f"there is no register {shown(name)}") from None

    def check(self) -> None:
        """Compare identification and manifest hash with what this software was made for.

        Raises
        ------
        DeviceMismatch
            Naming both versions and what differs.
        """
        found = self.read("ID")
        if found != IDENTIFICATION:
            raise DeviceMismatch(
                f"no Tilewright machine answers: ID is 0x{found:08x}, not 0x{IDENTIFICATION:08x}"
            )
        digest = self.read("HASH")
        if digest != manifest_hash(self.config):
            version = self.read("VERSION")
            number = f"{version >> 16}.{version >> 8 & 255}.{version & 255}"
            raise DeviceMismatch(
                f"the machine, generated by version {number}, has "
                f"{hash_difference(digest, self.config)}: it is not {self.config.label!r} of "
                f"version {__version__}"
            )

    # ---- one run ----

    def launch(self, run: Launch) -> None:
        """Start a run; a machine that a fault or a time-out stopped is reset first.

        Raises
        ------
        DeviceTimeout
            When that reset is not done.
        """
        if self.read("STATUS") & (STATUS_BUSY | STATUS_FAULT | STATUS_RESETTING):
            self._stop()
        for region in range(REGIONS):
            base, size = run.windows.get(region, (0, 0))
            self._set(f"BASE{region}", base)
            self._set(f"LIMIT{region}", base + size)
        for index in range(SCALARS):
            self._set(f"SCALAR{index}", run.scalars.get(index, 0))
        self._set("PROGRAM_OFFSET", run.offset)
        self._set("PROGRAM_COUNT", run.commands if run.count is None else run.count)
        self._set("WATCHDOG", run.watchdog)
        self._set("IRQ_ENABLE", 1)
        self._begun = time.perf_counter()
        self._control(CONTROL_IRQ_CLEAR | CONTROL_START)

    def finish(self, run: Launch, progress: Progress | None = None) -> RunResult:
        """Wait for the end of the run that was started last.

        Raises
        ------
        DeviceFault
            As the machine recorded it.
        DeviceTimeout
            After `run.timeout` cycles; the machine is stopped then, and writes no more.
        """
        finished = self.transport.wait(run.timeout, progress)
        seconds = time.perf_counter() - self._begun
        status = self.read("STATUS")
        if status & STATUS_FAULT:
            fault = self._fault(run.program)
            self._control(CONTROL_IRQ_CLEAR)
            raise fault
        if not finished or not status & STATUS_DONE:
            late = DeviceTimeout(
                f"not done after {run.timeout} cycles: {self.read('COMMANDS')} of "
                f"{run.commands} commands completed, STATUS 0x{status:x}; {self._where()}"
            )
            # Where the bus hangs too, the next start says so.
            with contextlib.suppress(DeviceTimeout):
                self._stop()
            raise late
        result = RunResult(
            cycles=self.read("CYCLES"),
            commands=self.read("COMMANDS"),
            counters=self.counters(),
            seconds=seconds,
            spans=self.transport.spans() if isinstance(self.transport, Recorder) else (),
        )
        # Last of all: what Ctrl-C breaks off before can be waited for again.
        self._control(CONTROL_IRQ_CLEAR)
        return result

    def _fault(self, program: bytes) -> DeviceError:
        record = self.read("FAULT_CODE")
        index = self.read("FAULT_INDEX")
        try:
            code, unit = Fault(record & 0xFF), Unit(record >> 8 & 0xFF)
        except ValueError:
            return DeviceError(f"FAULT_CODE is 0x{record:x}, which has no meaning")
        return DeviceFault(
            code, unit, index, self.read("FAULT_ADDRESS"), describe_command(program, index)
        )

    def _where(self) -> str:
        """What each unit did most, for the message of a time-out."""
        parts = []
        for unit, counts in self.counters().items():
            reason = max(counts, key=lambda name: counts[name])
            if counts[reason]:
                parts.append(f"{unit} mostly {reason}")
        return ", ".join(parts) or "no unit has counted a cycle"

    def counters(self) -> dict[str, dict[str, int]]:
        """Cycles of each kind, of each unit, of the last run."""
        return {
            unit: {reason: self.read(f"COUNT_{unit}_{reason}".upper()) for reason in reasons}
            for unit, reasons in COUNTERS.items()
        }

    def soft_reset(self) -> None:
        """Stop what runs, complete what is on the bus, clear the fault; windows and memory stay.

        Raises
        ------
        DeviceTimeout
            When the bus does not complete it.
        """
        self._stop()

    def _stop(self) -> None:
        self._control(CONTROL_SOFT_RESET | CONTROL_IRQ_CLEAR)
        for _ in range(_RESET_POLLS):
            if not self.read("STATUS") & STATUS_RESETTING:
                return
            self.transport.wait(_RESET_CYCLES // _RESET_POLLS)
        raise DeviceTimeout(
            f"soft reset not done after {_RESET_CYCLES} cycles: the bus does not complete "
            "transactions it has accepted; only the hardware's reset helps"
        )

    def hard_reset(self) -> None:
        """Assert the hardware's reset; memory stays, registers are written anew by the next run."""
        self._held.clear()
        self.transport.reset()
        self.check()
