"""Programs that stay in a device's memory.

A run's inputs and outputs lie in a *frame*: the regions that hold them. A program has two frames
once two runs of it are queued (where memory allows it), so that the inputs of the next are in place
before the one that runs has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import PROGRAM_REGION
from tilewright.sw.arguments import as_bytes
from tilewright.sw.driver.errors import DeviceClosed, OutOfDeviceMemory
from tilewright.sw.driver.machine import TIMEOUT, WATCHDOG, Progress, check_limits
from tilewright.sw.driver.runs import Outputs, Ticket
from tilewright.sw.errors import InputError
from tilewright.sw.program import Executable

if TYPE_CHECKING:
    from tilewright.sw.driver.device import Device

Bytes = npt.NDArray[np.uint8]
Inputs = Mapping[str, npt.ArrayLike]
Scalars = Mapping[str, int]
Blocks = dict[int, int]
"""Address of each region."""

FRAMES = 2


class Loaded:
    """A program that stays in a device's memory; a context manager that frees it.

    Made by `Device.load`. Program, constants and internal regions have one place, frames come and
    go between runs. All memory starts as zeros; internal regions keep what runs leave in them.

    Attributes
    ----------
    device : Device
    executable : Executable
    sizes : dict of int to int
        Bytes of every region, the program's too.
    fixed : dict of int to int
        Addresses of the regions that are not in a frame.
    idle : list of dict of int to int
        Addresses of the frames no run uses.
    """

    def __init__(self, device: Device, executable: Executable) -> None:
        self.device = device
        self.executable = executable
        self._memory = device.memory
        regions = executable.regions
        self._moved = executable.regions_of("input") | executable.regions_of("output")
        self.sizes = {PROGRAM_REGION: len(executable.commands), **regions}
        self.fixed = self._place(set(self.sizes) - self._moved)
        self._frames: list[Blocks] = []
        self.idle: list[Blocks] = []
        try:
            self._add_frame()
            self.write(self.fixed, PROGRAM_REGION, np.frombuffer(executable.commands, np.uint8))
            for region, content in executable.constants.items():
                self.write(self.fixed, region, np.frombuffer(content, np.uint8))
            for region in executable.regions_of("internal"):
                self.write(self.fixed, region, np.zeros(regions[region], np.uint8))
        except BaseException:
            self._release_all()
            raise

    # ---- memory ----

    def _place(self, regions: set[int]) -> Blocks:
        """Blocks for regions: all of them or none."""
        blocks: Blocks = {}
        try:
            for region in sorted(regions):
                blocks[region] = self._memory.allocate(self.sizes[region])
        except BaseException:
            self._release(blocks)
            raise
        return blocks

    def _release(self, blocks: Blocks) -> None:
        for address in blocks.values():
            self._memory.free(address)

    def _release_all(self) -> None:
        for blocks in (self.fixed, *self._frames):
            self._release(blocks)
            blocks.clear()
        self._frames.clear()
        self.idle.clear()

    def write(self, blocks: Blocks, region: int, data: Bytes) -> None:
        """Write a region's content to its address."""
        self.device.transport.write_memory(blocks[region], data)

    def _add_frame(self) -> None:
        frame = self._place(self._moved)
        try:
            # Inputs are written whole by every run.
            for region in sorted(self._moved - self.executable.regions_of("input")):
                self.write(frame, region, np.zeros(self.sizes[region], np.uint8))
        except BaseException:
            self._release(frame)
            raise
        self._frames.append(frame)
        self.idle.append(frame)

    def acquire(self) -> Blocks | None:
        """Take a frame no run uses; None where there is none and no memory for another."""
        if not self.idle and len(self._frames) < FRAMES:
            try:
                self._add_frame()
            except OutOfDeviceMemory:
                return None
        return self.idle.pop() if self.idle else None

    @property
    def size(self) -> int:
        """Bytes of the device's memory it has taken."""
        blocks = [self.fixed, *self._frames]
        return sum(self._memory.room(address) for part in blocks for address in part.values())

    def read_region(self, region: int) -> Bytes:
        """Copy the content of the program, of constants or of an internal region."""
        if region not in self.fixed:
            raise InputError(f"region {region} of this program has no place between runs")
        self.device.queue.drain(self)
        return self.device.transport.read_memory(self.fixed[region], self.sizes[region])

    def write_region(self, region: int, data: npt.ArrayLike) -> None:
        """Set an internal region, for example to start a cache anew."""
        raw = as_bytes(f"region {region}", data)
        if region not in self.executable.regions_of("internal"):
            raise InputError(f"region {region} of this program is not internal")
        if raw.size != self.sizes[region]:
            raise InputError(f"{raw.size} bytes: region {region} has {self.sizes[region]}")
        self.device.queue.drain(self)
        self.write(self.fixed, region, raw)

    def free(self) -> None:
        """Give the memory back; runs that are queued end first. A second call does nothing."""
        self.device.queue.drain(self)
        self._release_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if value is not None:
            # Ctrl-C must not wait for the end of what it broke off.
            self.device.queue.cancel(self)
        self.free()

    # ---- runs ----

    def submit(
        self,
        inputs: Inputs,
        scalars: Scalars | None = None,
        *,
        watchdog: int = WATCHDOG,
        timeout: int = TIMEOUT,
        progress: Progress | None = None,
    ) -> Ticket:
        """Queue a run; it starts when those queued before have ended.

        Parameters
        ----------
        inputs, scalars
            By name, as the executable says.
        watchdog, timeout : int
            Cycles, as of `tilewright.sw.driver.machine.Launch`.
        progress : callable, optional
            Told now and then how many cycles of this run have passed.

        Raises
        ------
        InputError
            If an input or a scalar does not fit.
        """
        if not self.fixed:
            raise DeviceClosed("the program was freed")
        images = self.executable.pack(inputs)
        registers = self.executable.registers(scalars or {})
        check_limits(watchdog, timeout)
        ticket = Ticket(self, images, registers, watchdog, timeout, progress)
        self.device.queue.add(ticket)
        return ticket

    def run(
        self,
        inputs: Inputs,
        scalars: Scalars | None = None,
        *,
        watchdog: int = WATCHDOG,
        timeout: int = TIMEOUT,
        progress: Progress | None = None,
    ) -> Outputs:
        """Run once; as `submit`, and wait.

        Raises
        ------
        InputError
            If an input or a scalar does not fit.
        DeviceFault, DeviceTimeout
            As the machine or the time says; the next run is right again.
        """
        ticket = self.submit(inputs, scalars, watchdog=watchdog, timeout=timeout, progress=progress)
        return ticket.result()
