"""The registers and the memory of a machine in front of the instruction-set simulator."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tilewright import __version__
from tilewright.hw.commands import REGIONS, SCALARS, Fault
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command
from tilewright.hw.manifest import manifest_hash
from tilewright.hw.registers import (
    CONTROL_IRQ_CLEAR,
    CONTROL_SOFT_RESET,
    CONTROL_START,
    IDENTIFICATION,
    READABLE,
    REGISTERS,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_FAULT,
    WRITABLE,
)
from tilewright.sim.errors import answered_error
from tilewright.sim.iss import IssMachine, MachineFault

_NAMES = {register.address: register.name for register in REGISTERS.values()}
_PROGRESS = 256


class _OutOfTimeError(Exception):
    """The run takes more commands than the caller waits for."""


class IssTransport:
    """A machine one drives by registers, as the hardware is.

    It has no time: a command counts as one cycle of what `wait` may take, and CYCLES and the
    counters are 0. A run happens within `wait`. Fault and watchdog behave as in hardware: a program
    that waits for ever stays busy if the watchdog is off.

    Parameters
    ----------
    config : Config
    memory : (int, int)
        Base and size of the DRAM; it costs only what is touched.
    check : bool
        As of `tilewright.sim.iss.IssMachine`: raise where a result is undefined.

    Notes
    -----
    It has the methods of `tilewright.sw.driver.transport.Transport`.
    """

    name = "iss"

    def __init__(
        self,
        config: Config,
        *,
        memory: tuple[int, int] = (0x4000_0000, 0x4000_0000),
        check: bool = False,
    ) -> None:
        self.memory_range = memory
        self.machine = IssMachine(config, check=check)
        base, size = memory
        self._memory = np.zeros(size, dtype=np.uint8)
        self.machine.dram.attach(base, self._memory)
        major, minor, patch = (int(part) for part in __version__.split(".")[:3])
        digest = manifest_hash(config)
        self._constants = {
            "ID": IDENTIFICATION,
            "VERSION": major << 16 | minor << 8 | patch,
            "HASH_LO": digest & 0xFFFF_FFFF,
            "HASH_HI": digest >> 32,
            "ARRAY": config.rows | config.columns << 8 | config.lanes << 16,
        }
        self.reset()

    # ---- registers ----

    def reset(self) -> None:
        """As the pin `rst`: every register is 0; memory stays."""
        self._registers = {name: 0 for name, r in REGISTERS.items() if r.access == "rw"}
        self._soft_reset()

    def _soft_reset(self) -> None:
        self._status = 0
        self._interrupt = False
        self._completed = 0
        self._ran = False
        self.machine.fault = None

    @property
    def interrupt(self) -> bool:
        """Level of the interrupt."""
        return self._interrupt and bool(self._registers["IRQ_ENABLE"] & 1)

    def _name(self, address: int, access: str, known: frozenset[int]) -> str:
        """The register's name, empty if there is none."""
        if self.machine.config.register_errors and address not in known:
            raise answered_error(access, address)
        return _NAMES.get(address, "")

    def read32(self, address: int) -> int:
        """Read a register; there is 0 where there is none."""
        name = self._name(address, "reading", READABLE)
        if name in self._constants:
            return self._constants[name]
        if name in self._registers:
            return self._registers[name]
        if name == "STATUS":
            return self._status
        if name == "COMMANDS":
            return self._completed
        fault = self.machine.fault if self._status & STATUS_FAULT else None
        if fault is None:
            return 0
        return {
            "FAULT_CODE": int(fault.code) | int(fault.unit) << 8,
            "FAULT_INDEX": fault.index,
            "FAULT_ADDRESS_LO": fault.address & 0xFFFF_FFFF,
            "FAULT_ADDRESS_HI": fault.address >> 32,
        }.get(name, 0)

    def write32(self, address: int, value: int) -> None:
        """Write a register; one that cannot be written ignores it."""
        name = self._name(address, "writing", WRITABLE)
        if name in self._registers:
            self._registers[name] = value & (1 if name == "IRQ_ENABLE" else 0xFFFF_FFFF)
        elif name == "CONTROL":
            if value & CONTROL_IRQ_CLEAR:
                self._interrupt = False
            if value & CONTROL_SOFT_RESET:
                self._soft_reset()
            elif value & CONTROL_START and not self._status & (STATUS_BUSY | STATUS_FAULT):
                self._status = STATUS_BUSY
                self._completed = 0
                self._ran = False

    def _wide(self, name: str) -> int:
        return self._registers[f"{name}_LO"] | self._registers[f"{name}_HI"] << 32

    # ---- memory ----

    def _slice(self, address: int, length: int) -> npt.NDArray[np.uint8]:
        start = address - self.memory_range[0]
        if start < 0 or start + length > len(self._memory):
            raise ValueError(f"{length} bytes at 0x{address:x} are not all in memory")
        return self._memory[start : start + length]

    def read_memory(self, address: int, length: int) -> npt.NDArray[np.uint8]:
        """Copy bytes out of the memory."""
        return self._slice(address, length).copy()

    def write_memory(self, address: int, data: npt.ArrayLike) -> None:
        """Copy an array's bytes into the memory."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._slice(address, len(raw))[:] = raw

    # ---- running ----

    def wait(self, cycles: int, progress: Callable[[int], None] | None = None) -> bool:
        """Run what was started, at most `cycles` commands; whether the interrupt is high."""
        if self._status & STATUS_BUSY and not self._ran:
            self._run(cycles, progress)
        return self.interrupt

    def _run(self, limit: int, progress: Callable[[int], None] | None) -> None:
        machine = self.machine
        for region in range(REGIONS):
            machine.set_region(region, self._wide(f"BASE{region}"), self._wide(f"LIMIT{region}"))
        machine.scalars[:] = [self._registers[f"SCALAR{i}"] for i in range(SCALARS)]

        def observe(index: int, command: Command) -> None:
            if progress is not None and index % _PROGRESS == 0:
                progress(index)
            if index >= limit:
                raise _OutOfTimeError

        # Stopped once, it cannot go on: it then stays busy, as hardware that hangs does.
        self._ran = True
        try:
            machine.run(
                offset=self._registers["PROGRAM_OFFSET"],
                count=self._registers["PROGRAM_COUNT"],
                observe=observe,
            )
            self._status = STATUS_DONE
        except _OutOfTimeError:
            return
        except MachineFault as fault:
            if fault.record.code == Fault.WATCHDOG and not self._registers["WATCHDOG"]:
                return
            self._status = STATUS_FAULT
        finally:
            self._completed = machine.completed
        self._interrupt = True

    def close(self) -> None:
        """Do nothing; memory goes with the object."""
