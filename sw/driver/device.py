"""A machine ready to run programs: its memory, the programs in it, their runs."""

from collections.abc import Mapping
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import COMMAND_BYTES, PROGRAM_REGION, REGIONS
from tilewright.hw.config import Config
from tilewright.hw.manifest import differences, identity
from tilewright.sw.arguments import as_bytes, instance, integer
from tilewright.sw.driver.backends import open_transport
from tilewright.sw.driver.errors import DeviceMismatch
from tilewright.sw.driver.loaded import Inputs, Loaded, Scalars
from tilewright.sw.driver.machine import (
    TIMEOUT,
    WATCHDOG,
    Launch,
    Machine,
    Progress,
    RunResult,
    check_limits,
)
from tilewright.sw.driver.memory import Memory
from tilewright.sw.driver.runs import Outputs, Queue, Ticket
from tilewright.sw.driver.transport import Transport
from tilewright.sw.errors import InputError
from tilewright.sw.program import Executable
from tilewright.sw.rounding import round_up

if TYPE_CHECKING:
    from tilewright.sw.driver.arrays import ArrayOperations

Bytes = npt.NDArray[np.uint8]


class Device(Machine):
    """One machine with its memory; a context manager.

    Parameters
    ----------
    backend : str or Transport
        What stands for the machine. "iss": the instruction-set simulator, without time. "model":
        the same, with the cycle model's time. "verilator" and "cocotb": the generated Verilog,
        whose simulator is built at the first call and kept in the cache. A board is an object with
        the methods of `Transport`.
    config : Config
        What the machine must be.
    **options
        Of a backend by name. All: `memory` (base and bytes of the DRAM) and `spans` (record when
        each command ran). "iss": `check` (refuse what hardware leaves undefined). "model":
        `latency` (cycles), `bandwidth` (beats a cycle), `values` (compute them, too). "verilator":
        `bus` (a `BusOptions`), `trace` (able to write waveforms), `progress` (told what is built).
        "cocotb": `simulator` ("verilator" or "icarus"), `latency`, `pause`, `interleave`, `seed`,
        `progress`.

    Attributes
    ----------
    config : Config
    transport : Transport
        Registers and memory as they are.
    memory : Memory
        Allocator of the memory that program, constants, inputs and outputs lie in.
    queue : Queue
        Runs that are not done.

    Raises
    ------
    InputError
        If there is no such backend, or it does not take an option.
    DeviceMismatch
        If something else answers; it is closed then.

    Examples
    --------
    >>> import numpy as np
    >>> import tilewright as tw
    >>> with tw.Device("iss", tw.preset("small")) as device:
    ...     device.matmul(np.full((2, 5), 2, np.int8), np.full((5, 3), 3, np.int8))
    array([[30, 30, 30],
           [30, 30, 30]], dtype=int32)
    """

    def __init__(self, backend: str | Transport, config: Config, **options: Any) -> None:
        if not isinstance(backend, Transport):
            transport = open_transport(backend, config, **options)
        elif options:
            raise InputError(f"{', '.join(options)}: only a backend by name takes options")
        else:
            transport = backend
        try:
            super().__init__(config, transport)
        except BaseException:
            transport.close()
            raise
        self.memory = Memory(*transport.memory_range)
        self.queue = Queue(self)
        # Regions by number, for programs that are run as bytes: address and bytes.
        self._regions: dict[int, tuple[int, int]] = {}

    def soft_reset(self) -> None:
        """Stop what runs, as `Machine.soft_reset`; runs that wait start with the next request."""
        self.queue.abandon()
        super().soft_reset()

    def hard_reset(self) -> None:
        """Assert the hardware's reset, as `Machine.hard_reset`; programs stay loaded."""
        self.queue.abandon()
        super().hard_reset()

    # ---- programs ----

    def load(self, executable: Executable) -> Loaded:
        """Bring a program with its constants into memory, where it stays until it is freed.

        Raises
        ------
        DeviceMismatch
            If it was made for another machine.
        OutOfDeviceMemory
            If it does not fit; nothing is kept of it then.
        """
        instance("executable", executable, Executable)
        wrong = differences(identity(executable.config), identity(self.config))
        if wrong:
            raise DeviceMismatch(
                f"the program was made for configuration {executable.config.label!r}; the machine "
                f"is {self.config.label!r}: the program has {wrong}"
            )
        return Loaded(self, executable)

    def submit(
        self, loaded: Loaded, inputs: Inputs, scalars: Scalars | None = None, **limits: Any
    ) -> Ticket:
        """Queue a run of a program that is loaded; see `Loaded.submit`."""
        return loaded.submit(inputs, scalars, **limits)

    def run(
        self,
        executable: Executable,
        inputs: Inputs,
        *,
        watchdog: int = WATCHDOG,
        timeout: int = TIMEOUT,
        progress: Progress | None = None,
        **scalars: int,
    ) -> Outputs:
        """Load a program, run it once and free it.

        Parameters
        ----------
        executable : Executable
        inputs : mapping of str to integer arrays
        watchdog, timeout : int
            Cycles without progress until a fault (0: none), and until the driver gives up.
        progress : callable, optional
            Told now and then how many cycles have passed.
        **scalars
            Values of the scalar registers by meaning.

        Raises
        ------
        DeviceMismatch, OutOfDeviceMemory
            If it cannot be loaded.
        InputError
            If an input or a scalar does not fit.
        DeviceFault, DeviceTimeout
            As the machine or the time says; the next run is right again.
        """
        with self.load(executable) as loaded:
            return loaded.run(
                inputs, scalars, watchdog=watchdog, timeout=timeout, progress=progress
            )

    # ---- operations on arrays ----

    @cached_property
    def operations(self) -> "ArrayOperations":
        """ArrayOperations on arrays, and the programs they keep loaded."""
        # Whoever runs programs that are compiled does without the compiler.
        from tilewright.sw.driver.arrays import ArrayOperations

        return ArrayOperations(self)

    def matmul(self, a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.integer[Any]]:
        """Exact product of integer arrays; see `ArrayOperations.matmul`."""
        return self.operations.matmul(a, b)

    def softmax(
        self, x: npt.ArrayLike, scale: float = 1.0, *, valid: int | None = None
    ) -> npt.NDArray[np.uint16]:
        """Softmax of the last axis, u16 Q15; see `ArrayOperations.softmax`."""
        return self.operations.softmax(x, scale, valid=valid)

    def layernorm(
        self,
        x: npt.ArrayLike,
        gamma: npt.ArrayLike | None = None,
        beta: npt.ArrayLike | None = None,
        **constants: float,
    ) -> npt.NDArray[np.int16]:
        """LayerNorm of the last axis; see `ArrayOperations.layernorm`."""
        return self.operations.layernorm(x, gamma, beta, **constants)

    def gelu(self, x: npt.ArrayLike) -> npt.NDArray[np.int16]:
        """GELU of every element, s16 Q10; see `ArrayOperations.activation`."""
        return self.operations.activation("gelu", x)

    # ---- programs as bytes, regions by number ----

    def region(self, index: int) -> tuple[int, int]:
        """First byte and size of a region that `set_region` placed."""
        found = self._regions.get(index)
        if found is None:
            raise InputError(f"region {index} is not placed")
        return found

    def _place(self, index: int, size: int) -> int:
        """Give a region its place, where it is if it fits; its address."""
        index = integer("region", index, 0, REGIONS - 1)
        old = self._regions.pop(index, None)
        if old is not None and size <= self.memory.room(old[0]):
            address = old[0]
        else:
            if old is not None:
                self.memory.free(old[0])
            address = self.memory.allocate(size)
        self._regions[index] = address, size
        return address

    def set_region(self, index: int, content: npt.ArrayLike | int) -> None:
        """Place a region for `run_program` and fill it: an array's bytes, or a number of zeros.

        Raises
        ------
        InputError
            If there is no such region, or the content is none.
        OutOfDeviceMemory
            If it does not fit.
        """
        # A number of any kind: one of NumPy's is no content of eight bytes.
        if isinstance(content, Integral):
            size = integer(f"bytes of region {index}", content, 0)
            # Placed first: what does not fit is refused before it is made.
            self._place(index, size)
            data = np.zeros(size, dtype=np.uint8)
        else:
            data = as_bytes(f"region {index}", content)
        self.transport.write_memory(self._place(index, len(data)), data)

    def read_region(self, index: int, offset: int = 0, length: int | None = None) -> Bytes:
        """Copy bytes out of a region of `set_region`, to its end if no length is given."""
        base, size = self.region(index)
        integer("offset", offset, 0, size)
        count = size - offset if length is None else integer("length", length, 0, size - offset)
        return self.transport.read_memory(base + offset, count)

    def run_program(
        self,
        program: bytes,
        regions: Mapping[int, npt.ArrayLike | int] | None = None,
        *,
        scalars: Mapping[int, int] | None = None,
        count: int | None = None,
        watchdog: int = WATCHDOG,
        timeout: int = TIMEOUT,
        progress: Progress | None = None,
    ) -> RunResult:
        """Run commands as bytes, right or wrong, on regions by number.

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
        watchdog, timeout, progress
            As of `run`.

        Raises
        ------
        DeviceFault, DeviceTimeout
            As the machine or the time says.
        OutOfDeviceMemory
            When the regions do not fit into memory.
        """
        check_limits(watchdog, timeout)
        self.queue.drain()
        for index, content in (regions or {}).items():
            self.set_region(index, content)
        windows, offset = self._put_program(program)
        run = Launch(
            program=program,
            windows=windows,
            offset=offset,
            count=count,
            scalars=scalars or {},
            watchdog=watchdog,
            timeout=timeout,
        )
        self.launch(run)
        return self.finish(run, progress)

    def _put_program(self, program: bytes) -> tuple[dict[int, tuple[int, int]], int]:
        """Put the program behind region 0's content; the windows of the run, and its offset."""
        if len(program) % COMMAND_BYTES:
            raise InputError(f"a program of {len(program)} bytes: commands have {COMMAND_BYTES}")
        base, size = self._regions.get(PROGRAM_REGION, (0, 0))
        content = self.transport.read_memory(base, size) if size else None
        offset = round_up(size, COMMAND_BYTES)
        address = self._place(PROGRAM_REGION, offset + len(program))
        if content is not None and address != base:
            self.transport.write_memory(address, content)
        self.transport.write_memory(address + offset, np.frombuffer(program, dtype=np.uint8))
        windows = dict(self._regions)
        # The window includes the program, the content does not: the next program replaces this one.
        self._regions[PROGRAM_REGION] = address, size
        return windows, offset
