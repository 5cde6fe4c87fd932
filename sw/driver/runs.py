"""The queue of runs: the machine takes one start at a time.

While a run is under way the inputs of the next are written into their frame; its start is all that
is left to do when the one before has ended. Nothing here runs by itself: whoever waits for a result
moves the queue on.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.driver.errors import DeviceError
from tilewright.sw.driver.machine import Launch, Machine, Progress, RunResult

if TYPE_CHECKING:
    from tilewright.sw.driver.loaded import Blocks, Loaded

Array = npt.NDArray[np.integer[Any]]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a run gave.

    Attributes
    ----------
    values : dict of str to array
        The outputs by name.
    result : RunResult
        Cycles and counters.
    regions : dict of int to uint8 array
        Whole content of the regions with outputs.
    """

    values: dict[str, Array]
    result: RunResult
    regions: dict[int, Bytes]

    def __getitem__(self, name: str) -> Array:
        return self.values[name]


class Ticket:
    """A run that is queued, under way, or done."""

    def __init__(
        self,
        loaded: Loaded,
        images: dict[int, Bytes],
        registers: dict[int, int],
        watchdog: int,
        timeout: int,
        progress: Progress | None,
    ) -> None:
        self.loaded = loaded
        self.progress = progress
        self._images = images
        self._registers = registers
        self._cycles = watchdog, timeout
        self._frame: Blocks | None = None
        self._launch: Launch | None = None
        self._result: RunResult | None = None
        self._outputs: Outputs | None = None
        self._error: DeviceError | None = None

    @property
    def done(self) -> bool:
        """Whether `result` returns (or raises) at once."""
        return self._outputs is not None or self._error is not None

    def result(self) -> Outputs:
        """Wait for the run, and those before it.

        Raises
        ------
        DeviceFault, DeviceTimeout
            That of this run; runs behind it go on.
        """
        while not self.done:
            self.loaded.device.queue.step()
        if self._error is not None:
            raise self._error
        assert self._outputs is not None
        return self._outputs

    # What the queue does with it.

    @property
    def staged(self) -> bool:
        """Whether its inputs are in place, all of them."""
        return self._frame is not None and not self._images

    def stage(self) -> bool:
        """Write the inputs into a frame; False where none is free."""
        if self._frame is None:
            self._frame = self.loaded.acquire()
        if self._frame is None:
            return False
        for region, image in self._images.items():
            self.loaded.write(self._frame, region, image)
        self._images.clear()
        return True

    def start(self, machine: Machine) -> None:
        """Start it; the inputs must be in place."""
        assert self._frame is not None
        loaded = self.loaded
        blocks = {**loaded.fixed, **self._frame}
        watchdog, timeout = self._cycles
        self._launch = Launch(
            program=loaded.executable.commands,
            windows={region: (blocks[region], loaded.sizes[region]) for region in blocks},
            scalars=self._registers,
            watchdog=watchdog,
            timeout=timeout,
        )
        machine.launch(self._launch)

    def wait(self, machine: Machine) -> None:
        """Wait for its end; the outputs stay in the frame."""
        assert self._launch is not None
        self._result = machine.finish(self._launch, self.progress)

    def collect(self) -> None:
        """Read the outputs."""
        assert self._frame is not None
        assert self._result is not None
        loaded = self.loaded
        regions = {
            region: loaded.device.transport.read_memory(self._frame[region], loaded.sizes[region])
            for region in loaded.executable.regions_of("output")
        }
        values = loaded.executable.unpack(regions)
        self._outputs = Outputs(values=values, result=self._result, regions=regions)

    def end(self, error: DeviceError) -> None:
        """Give the frame back; without outputs by now, the run failed by `error`."""
        if self._outputs is None:
            self._error = error
        if self._frame is not None:
            self.loaded.idle.append(self._frame)
            self._frame = None


class Queue:
    """Runs of a machine, in the order they were submitted."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None

    def __len__(self) -> int:
        return len(self._waiting) + (self._running is not None)

    def add(self, ticket: Ticket) -> None:
        """Append a run, and start it if nothing is before it."""
        self._waiting.append(ticket)
        self._stage()
        self._start()

    def _stage(self) -> None:
        """Bring the inputs of the next runs into memory, in order, as far as frames are free."""
        for ticket in self._waiting:
            if not ticket.stage():
                break

    def _start(self) -> None:
        while self._running is None and self._waiting and self._waiting[0].staged:
            ticket = self._running = self._waiting.popleft()
            try:
                ticket.start(self._machine)
            except DeviceError as error:
                self._running = None
                ticket.end(error)
                self._stage()
            except BaseException:
                # Nobody knows whether it runs: stopped before its frame is anyone else's.
                with contextlib.suppress(DeviceError):
                    self._machine.soft_reset()
                raise

    def step(self) -> None:
        """Wait for the end of the run under way, start the next, then read the outputs."""
        self._start()
        ticket = self._running
        if ticket is None:
            raise DeviceError("no run is under way")
        error: DeviceError | None = None
        try:
            ticket.wait(self._machine)
        except DeviceError as caught:
            error = caught
        self._running = None
        try:
            if error is not None:
                # Before its frame is anyone else's; where the bus hangs, the next start says so.
                with contextlib.suppress(DeviceError):
                    self._machine.soft_reset()
            # Before the outputs are read: the machine need not wait for that.
            self._start()
            if error is None:
                ticket.collect()
        finally:
            ticket.end(error or DeviceError("the outputs of the run were not read to their end"))
        self._stage()
        self._start()

    def cancel(self, loaded: Loaded) -> None:
        """Give up every run of a program that is not done."""
        for ticket in [ticket for ticket in self._waiting if ticket.loaded is loaded]:
            self._waiting.remove(ticket)
            ticket.end(DeviceError("the run was given up before it started"))
        if self._running is not None and self._running.loaded is loaded:
            # Abandons it.
            self._machine.soft_reset()

    def abandon(self) -> None:
        """Give up the run under way, if there is one: the machine is being reset."""
        ticket, self._running = self._running, None
        if ticket is not None:
            ticket.end(DeviceError("the machine was reset while the run was under way"))

    def drain(self, loaded: Loaded | None = None) -> None:
        """Wait until no run (of a program) is queued; what they raise stays with their tickets."""
        while any(
            ticket is not None and (loaded is None or ticket.loaded is loaded)
            for ticket in (self._running, *self._waiting)
        ):
            self.step()
