"""The machine: registers to set, a program to run, a state to look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn, cast

import numpy as np

from tilewright.hw.commands import (
    COMMAND_BYTES,
    PROGRAM_REGION,
    REGIONS,
    SEMAPHORES,
    TOKEN_MAX,
    Fault,
    Opcode,
    Unit,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, DecodeError, Scalar, decode, illegal_field
from tilewright.hw.manifest import manifest_hash
from tilewright.sim.iss.dram import Bytes
from tilewright.sim.iss.matmul import matmul
from tilewright.sim.iss.state import FaultRecord, MachineFault, State, UndefinedError, WindowError
from tilewright.sim.iss.transfer import load, store
from tilewright.sim.iss.vector import row, vector

ACTIONS: dict[Opcode, Callable[[State, dict[str, int]], None]] = {
    Opcode.LOAD: load,
    Opcode.STORE: store,
    Opcode.MATMUL: matmul,
    Opcode.VECTOR: vector,
    Opcode.ROW: row,
}
_ALIGNMENT = 4096


@lru_cache(maxsize=1 << 14)
def _decoded(data: bytes, config: Config) -> tuple[Command, str | None, tuple[str, ...]]:
    """Command, what is illegal in it, and its fields that name registers."""
    item = decode(data)
    named = tuple(name for name, value in item.fields.items() if isinstance(value, Scalar))
    return item, illegal_field(item, config), named


class IssMachine(State):
    """An accelerator that executes programs in order, without time.

    Parameters
    ----------
    config : Config
    memory : uint8 [n], optional
        DRAM as one buffer at address 0; more with `place` or `dram.attach`.
    check : bool
        Raise `UndefinedError` where the machine goes on with an undefined result: an address that
        wraps, a negative or too large shift, a value wider than its port, overlapping runs of a
        STORE, tokens left over.

    Attributes
    ----------
    dram : Dram
    fault : FaultRecord or None
        Of the last run.
    completed : int
        Commands completed in the last run.
    """

    def __init__(self, config: Config, memory: Bytes | None = None, *, check: bool = False) -> None:
        super().__init__(config, check)
        self.hash = manifest_hash(config)
        self.fault: FaultRecord | None = None
        self.completed = 0
        if memory is not None:
            self.dram.attach(0, memory)

    # Registers and memory.

    def set_region(self, region: int, base: int, limit: int) -> None:
        """Set base and limit (one behind the last byte) of a region."""
        if not 0 <= region < REGIONS:
            raise ValueError(f"region {region}: must be 0 to {REGIONS - 1}")
        for name, value in (("base", base), ("limit", limit)):
            if not 0 <= value < 1 << 64:
                raise ValueError(f"{name} of region {region} = {value}: must fit 64 bits")
        self.base[region], self.limit[region] = base, limit

    def place(self, region: int, data: bytes | Bytes | int) -> Bytes:
        """Put a buffer (a number: so many zeros) behind all others and let a region be just that.

        Returns
        -------
        ndarray of uint8
            The buffer itself: an array is taken as it is, bytes are copied.
        """
        if isinstance(data, int):
            buffer = np.zeros(data, dtype=np.uint8)
        elif isinstance(data, bytes):
            buffer = np.frombuffer(data, dtype=np.uint8).copy()
        else:
            buffer = data
        base = max(-(-self.dram.top() // _ALIGNMENT), 1) * _ALIGNMENT
        self.dram.attach(base, buffer)
        self.set_region(region, base, base + buffer.size)
        return buffer

    # Running.

    def run(
        self,
        program: bytes | None = None,
        *,
        offset: int = 0,
        count: int | None = None,
        observe: Callable[[int, Command], None] | None = None,
    ) -> None:
        """Run the program at `offset` of region 0.

        Parameters
        ----------
        program : bytes, optional
            Written there first; where region 0 is not set, a buffer is made for it.
        offset : int
            PROGRAM_OFFSET.
        count : int, optional
            PROGRAM_COUNT; the number of commands of `program` where not given.
        observe : callable, optional
            Called with index and command after each; the machine's state is then as it left it.

        Raises
        ------
        MachineFault
            As the hardware would stop; `fault` holds its record. A wait that nothing earlier
            satisfies counts as WATCHDOG.
        UndefinedError
            In check mode.
        """
        if program is not None:
            if not self.limit[PROGRAM_REGION]:
                self.place(PROGRAM_REGION, offset + len(program))
            self.dram.write(self.base[PROGRAM_REGION] + offset, program)
            if count is None:
                count = len(program) // COMMAND_BYTES
        if count is None:
            raise ValueError("count must be the number of commands, got None")
        self.fault = None
        self.completed = 0
        self.tokens = [0] * SEMAPHORES
        self._check_place(offset, count)
        start = self.base[PROGRAM_REGION] + offset
        for index in range(count):
            self._step(index, count, start + index * COMMAND_BYTES, observe)
        left = [s for s, value in enumerate(self.tokens) if value]
        self.undefined(bool(left), f"tokens left over at END in semaphores {left}")

    def _check_place(self, offset: int, count: int) -> None:
        """What the fetch checks before it reads."""
        if not count:
            self._fault(Fault.PROGRAM_LENGTH, Unit.FETCH, 0, "no commands")
        base, space = self.base[PROGRAM_REGION], 1 << self.config.axi_addr_width
        start = base + offset
        if start + count * COMMAND_BYTES > min(self.limit[PROGRAM_REGION], space):
            self._fault(Fault.WINDOW, Unit.FETCH, 0, f"program of {count} commands", start % space)
        if start % COMMAND_BYTES:
            self._fault(
                Fault.ILLEGAL_FIELD, Unit.FETCH, 0, f"program at {start:#x}: multiple of 64", start
            )

    def _fault(
        self, code: Fault, unit: Unit, index: int, detail: str, address: int = 0
    ) -> NoReturn:
        self.fault = FaultRecord(code, unit, index, address)
        raise MachineFault(self.fault, detail)

    def _step(
        self,
        index: int,
        count: int,
        address: int,
        observe: Callable[[int, Command], None] | None,
    ) -> None:
        item, fields = self._fetch(index, count, address)
        for token in item.waits:
            if self.tokens[token.semaphore] < token.amount:
                self._fault(
                    Fault.WATCHDOG,
                    item.unit,
                    index,
                    f"waits for {token.amount} of semaphore {token.semaphore}, which holds "
                    f"{self.tokens[token.semaphore]}",
                )
            self.tokens[token.semaphore] -= token.amount
        action = ACTIONS.get(item.opcode)
        if action is not None:
            try:
                action(self, fields)
            except WindowError as error:
                self._fault(error.code, item.unit, index, str(error), error.address)
            except UndefinedError as error:
                raise UndefinedError(f"command {index}, {item.opcode.name}: {error}") from None
        for token in item.posts:
            self.tokens[token.semaphore] += token.amount
            if self.tokens[token.semaphore] > TOKEN_MAX:
                self._fault(
                    Fault.TOKEN_OVERFLOW,
                    item.unit,
                    index,
                    f"semaphore {token.semaphore} would hold {self.tokens[token.semaphore]}",
                )
        self.completed += 1
        if observe is not None:
            observe(index, item)

    def _fetch(self, index: int, count: int, address: int) -> tuple[Command, dict[str, int]]:
        """Read and check a command; the order of the checks decides which fault is reported."""
        found = self.dram.find(address, address + COMMAND_BYTES - 1)
        if found is None:
            self._fault(Fault.READ_DECERR, Unit.FETCH, index, "no memory is there", address)
        buffer, offset = found
        data = buffer[offset : offset + COMMAND_BYTES].tobytes()
        try:
            item, illegal, named = _decoded(data, self.config)
        except DecodeError as error:
            self._fault(error.fault, Unit.FETCH, index, str(error))
        begin, end = index == 0, index == count - 1
        if (item.opcode == Opcode.BEGIN) != begin or (item.opcode == Opcode.END) != end:
            self._fault(
                Fault.PROGRAM_LENGTH,
                Unit.FETCH,
                index,
                f"{item.opcode.name} as command {index} of {count}",
            )
        if begin:
            if item["hash"] != self.hash:
                self._fault(
                    Fault.HASH_MISMATCH,
                    Unit.FETCH,
                    index,
                    f"program for {item['hash']:#x}, this machine is {self.hash:#x}",
                )
            if item["commands"] != count:
                self._fault(
                    Fault.PROGRAM_LENGTH,
                    Unit.FETCH,
                    index,
                    f"BEGIN says {item['commands']} commands, PROGRAM_COUNT {count}",
                )
        if illegal is not None:
            self._fault(Fault.ILLEGAL_FIELD, Unit.FETCH, index, illegal)
        if named:
            registers = dict(enumerate(self.scalars))
            return item, item.resolve(registers)
        return item, cast(dict[str, int], item.fields)
