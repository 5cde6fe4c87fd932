"""A machine ready to run programs: the register protocol, placement of regions, errors."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hw import __version__
from hw.commands import COMMAND_BYTES, PROGRAM_REGION, REGIONS, SCALARS, Fault, Unit
from hw.config import Config
from hw.encoding import decode
from hw.manifest import manifest_hash
from hw.registers import (
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
from sw.driver.backends import open_transport
from sw.driver.transport import Transport
from sw.program import format_command

WATCHDOG = 100_000
"""Cycles without progress until a fault, unless the caller says otherwise."""

TIMEOUT = 2_000_000_000
"""Cycles a run may take, unless the caller says otherwise."""

_RESET_CYCLES = 100_000
_RESET_POLLS = 100
_ALIGNMENT = 4096

Bytes = npt.NDArray[np.uint8]


class DeviceError(RuntimeError):
    """A machine cannot be used, or did not do what it was told."""


class DeviceMismatch(DeviceError):
    """What answers is not the machine of this configuration and version."""


class DeviceTimeout(DeviceError):
    """The machine did not answer within the cycles it was given."""


class DeviceFault(DeviceError):
    """The machine latched a fault.

    Attributes
    ----------
    code : Fault
    unit : Unit
    index : int
        Command, BEGIN being 0.
    address : int
        DRAM address of a bus or window fault, else 0.
    command : str or None
        The command's listing, if the program has one of that index.
    """

    def __init__(
        self, code: Fault, unit: Unit, index: int, address: int, command: str | None
    ) -> None:
        self.code = code
        self.unit = unit
        self.index = index
        self.address = address
        self.command = command
        text = f"{code.name} in unit {unit.name}, command {index}"
        if command is not None:
            text += f" ({command})"
        if address:
            text += f", DRAM address 0x{address:x}"
        super().__init__(text)


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
    """

    cycles: int
    commands: int
    counters: dict[str, dict[str, int]]
    seconds: float


@dataclass(frozen=True)
class _Region:
    """A region in memory: its bytes, and what may still grow into."""

    base: int
    size: int
    room: int


def _aligned(value: int, to: int = _ALIGNMENT) -> int:
    return -(-value // to) * to


def describe_command(program: bytes, index: int) -> str | None:
    """Listing of command `index`, its bytes if it is none, or None behind the end."""
    data = program[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
    if len(data) < COMMAND_BYTES:
        return None
    try:
        return " ".join(format_command(decode(data)).split())
    except ValueError as error:
        return f"{error}; bytes {data[:16].hex(' ')} …"


class Device:
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
        self.config = config
        self.transport = transport
        self._regions: dict[int, _Region] = {}
        self.check()

    @classmethod
    def open(cls, config: Config, backend: str, **options: Any) -> Self:
        """Open a backend by name ("iss", "verilator"); see `sw.driver.backends.open_transport`."""
        return cls(config, open_transport(backend, config, **options))

    def close(self) -> None:
        """Give the machine back."""
        self.transport.close()

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
        low, high = self._halves(name)
        # The counters of a run that goes on may carry in between.
        while True:
            upper = self.transport.read32(high)
            lower = self.transport.read32(low)
            if self.transport.read32(high) == upper:
                return upper << 32 | lower

    def write(self, name: str, value: int) -> None:
        """Write a register by name; a name without _LO and _HI writes both."""
        if name in REGISTERS:
            bits, addresses = 32, [REGISTERS[name].address]
        else:
            bits, addresses = 64, list(self._halves(name))
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} = {value}: 0 to 2^{bits} - 1 is needed")
        for number, address in enumerate(addresses):
            self.transport.write32(address, value >> 32 * number & 0xFFFF_FFFF)

    @staticmethod
    def _halves(name: str) -> tuple[int, int]:
        try:
            return REGISTERS[f"{name}_LO"].address, REGISTERS[f"{name}_HI"].address
        except KeyError:
            raise ValueError(f"there is no register {name!r}") from None

    def check(self) -> None:
        """Compare identification, version and manifest hash with what this software was made for.

        Raises
        ------
        DeviceMismatch
            Naming what was read and what is needed.
        """
        found = self.read("ID")
        if found != IDENTIFICATION:
            raise DeviceMismatch(
                f"no Tilewright machine answers: ID is 0x{found:08x}, not 0x{IDENTIFICATION:08x}"
            )
        major, minor, patch = (int(part) for part in __version__.split(".")[:3])
        version = self.read("VERSION")
        if version != major << 16 | minor << 8 | patch:
            number = f"{version >> 16}.{version >> 8 & 255}.{version & 255}"
            raise DeviceMismatch(
                f"the machine was generated by version {number}, this software is {__version__}"
            )
        digest = self.read("HASH")
        expected = manifest_hash(self.config)
        if digest != expected:
            raise DeviceMismatch(
                f"the machine's manifest hash is {digest:016x}, that of configuration "
                f"{self.config.name!r} is {expected:016x}: it was generated from another one"
            )

    # ---- memory ----

    def region(self, index: int) -> tuple[int, int]:
        """First byte and size of a region that was placed."""
        found = self._regions.get(index)
        if found is None:
            raise ValueError(f"region {index} is not placed")
        return found.base, found.size

    def _place(self, index: int, size: int) -> _Region:
        """Give a region its place: where it is if it fits, else the first gap."""
        if not 0 <= index < REGIONS:
            raise ValueError(f"region {index}: 0 to {REGIONS - 1} is needed")
        old = self._regions.pop(index, None)
        if old is not None and size <= old.room:
            placed = _Region(old.base, size, old.room)
        else:
            start, length = self.transport.memory_range
            room = max(_aligned(size), _ALIGNMENT)
            base = _aligned(start)
            for other in sorted(self._regions.values(), key=lambda region: region.base):
                if base + room <= other.base:
                    break
                base = other.base + other.room
            if base + room > start + length:
                raise DeviceError(
                    f"region {index}: no room for {size} bytes in {length} bytes of memory"
                )
            placed = _Region(base, size, room)
        self._regions[index] = placed
        return placed

    def set_region(self, index: int, content: npt.ArrayLike | int) -> None:
        """Place a region and its windows and fill it: an array's bytes, or a number of zeros."""
        if isinstance(content, int):
            # Placed first: what does not fit is refused before it is made.
            self._place(index, content)
            data = np.zeros(content, dtype=np.uint8)
        elif isinstance(content, bytes | bytearray | memoryview):
            data = np.frombuffer(content, dtype=np.uint8)
        else:
            data = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        placed = self._place(index, len(data))
        self.transport.write_memory(placed.base, data)
        self._window(index, placed)

    def _window(self, index: int, placed: _Region) -> None:
        self.write(f"BASE{index}", placed.base)
        self.write(f"LIMIT{index}", placed.base + placed.size)

    def read_region(self, index: int, offset: int = 0, length: int | None = None) -> Bytes:
        """Copy bytes out of a region, to its end if no length is given."""
        base, size = self.region(index)
        count = size - offset if length is None else length
        if min(offset, count) < 0 or offset + count > size:
            raise ValueError(f"{count} bytes at {offset} of region {index}, which has {size}")
        return self.transport.read_memory(base + offset, count)

    # ---- running ----

    def run(
        self,
        program: bytes,
        regions: Mapping[int, npt.ArrayLike | int] | None = None,
        *,
        scalars: Mapping[int, int] | None = None,
        count: int | None = None,
        watchdog: int = WATCHDOG,
        timeout: int = TIMEOUT,
        progress: Callable[[int], None] | None = None,
    ) -> RunResult:
        """Run a program to its end.

        Parameters
        ----------
        program : bytes
            Commands, BEGIN and END included. They are put behind the content of region 0, which is
            theirs alone if it has none.
        regions : mapping of int to array or int, optional
            What regions hold; a number is that many zeros. Those not named keep what they have.
        scalars : mapping of int to int, optional
            Scalar registers; those not named are 0.
        count : int, optional
            PROGRAM_COUNT, if it is not to be the number of commands in `program`.
        watchdog : int
            Cycles without progress until a fault; 0: none.
        timeout : int
            Cycles until the driver gives up.
        progress : callable, optional
            Told now and then how many cycles have passed.

        Raises
        ------
        DeviceFault
            As the machine recorded it.
        DeviceTimeout
            After `timeout` cycles.
        DeviceError
            When the regions do not fit into memory.

        Notes
        -----
        A machine that a fault or a time-out stopped is reset first.
        """
        if self.read("STATUS") & (STATUS_BUSY | STATUS_FAULT | STATUS_RESETTING):
            self.soft_reset()
        for index, content in (regions or {}).items():
            self.set_region(index, content)
        offset = self._put_program(program)
        for index in range(SCALARS):
            self.write(f"SCALAR{index}", (scalars or {}).get(index, 0))
        self.write("PROGRAM_OFFSET", offset)
        self.write("PROGRAM_COUNT", len(program) // COMMAND_BYTES if count is None else count)
        self.write("WATCHDOG", watchdog)
        self.write("CONTROL", CONTROL_IRQ_CLEAR)
        self.write("IRQ_ENABLE", 1)
        begin = time.perf_counter()
        self.write("CONTROL", CONTROL_START)
        finished = self.transport.wait(timeout, progress)
        seconds = time.perf_counter() - begin
        status = self.read("STATUS")
        self.write("CONTROL", CONTROL_IRQ_CLEAR)
        if status & STATUS_FAULT:
            raise self._fault(program)
        if not finished or not status & STATUS_DONE:
            raise DeviceTimeout(
                f"not done after {timeout} cycles: {self.read('COMMANDS')} of "
                f"{len(program) // COMMAND_BYTES} commands completed, STATUS 0x{status:x}; "
                f"{self._where()}"
            )
        return RunResult(
            cycles=self.read("CYCLES"),
            commands=self.read("COMMANDS"),
            counters=self.counters(),
            seconds=seconds,
        )

    def _put_program(self, program: bytes) -> int:
        """Put the program behind region 0's content; its offset."""
        if len(program) % COMMAND_BYTES:
            raise ValueError(f"a program of {len(program)} bytes: commands have {COMMAND_BYTES}")
        old = self._regions.get(PROGRAM_REGION, _Region(0, 0, 0))
        content = self.transport.read_memory(old.base, old.size) if old.size else None
        offset = _aligned(old.size, COMMAND_BYTES)
        whole = self._place(PROGRAM_REGION, offset + len(program))
        if content is not None and whole.base != old.base:
            self.transport.write_memory(whole.base, content)
        self.transport.write_memory(whole.base + offset, np.frombuffer(program, dtype=np.uint8))
        self._window(PROGRAM_REGION, whole)
        # The window includes the program, the content does not: the next program replaces this one.
        self._regions[PROGRAM_REGION] = _Region(whole.base, old.size, whole.room)
        return offset

    def _fault(self, program: bytes) -> DeviceFault:
        record = self.read("FAULT_CODE")
        index = self.read("FAULT_INDEX")
        try:
            code, unit = Fault(record & 0xFF), Unit(record >> 8 & 0xFF)
        except ValueError:
            raise DeviceError(f"FAULT_CODE is 0x{record:x}, which has no meaning") from None
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
        self.write("CONTROL", CONTROL_SOFT_RESET | CONTROL_IRQ_CLEAR)
        for _ in range(_RESET_POLLS):
            if not self.read("STATUS") & STATUS_RESETTING:
                return
            self.transport.wait(_RESET_CYCLES // _RESET_POLLS)
        raise DeviceTimeout(
            f"soft reset not done after {_RESET_CYCLES} cycles: the bus does not complete "
            "transactions it has accepted; only the hardware's reset helps"
        )

    def hard_reset(self) -> None:
        """Assert the hardware's reset; memory stays, and windows are set again."""
        self.transport.reset()
        self.check()
        for index, placed in self._regions.items():
            self._window(index, placed)
