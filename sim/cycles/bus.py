"""The AXI4 bus and the memory behind it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from tilewright.hw.commands import COMMAND_BYTES
from tilewright.hw.config import Config
from tilewright.sim.cycles.clock import Clock, Event, Process


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What stands behind the bus.

    Parameters
    ----------
    latency : int
        Cycles from an accepted address to the first beat, and from the last write beat to its
        response; 1 or more.
    bandwidth : float
        Beats a cycle in each direction, above 0 up to 1.
    """

    latency: int = 30
    bandwidth: float = 1.0

    def __post_init__(self) -> None:
        if self.latency < 1:
            raise ValueError(f"latency = {self.latency}: must be 1 or more")
        if not 0 < self.bandwidth <= 1:
            raise ValueError(f"bandwidth = {self.bandwidth}: must be above 0 and at most 1")


def burst_beats(config: Config) -> int:
    """Longest burst of a transfer in beats; bursts end at multiples of it."""
    longest = 1 << config.axi_max_burst.bit_length() - 1
    return min(longest, 4096 // config.axi_bytes, 256)


def fetch_beats(config: Config) -> int:
    """Beats of a burst of the command fetch: two commands, one beat at the least."""
    return min(burst_beats(config), max(1, 2 * COMMAND_BYTES // config.axi_bytes))


def bursts(config: Config, address: int, length: int) -> Iterator[int]:
    """Beats of each burst of a run of bytes."""
    first, last = address // config.axi_bytes, (address + length - 1) // config.axi_bytes
    longest = burst_beats(config)
    while first <= last:
        end = min((first // longest + 1) * longest, last + 1)
        yield end - first
        first = end


class _Direction:
    """Bursts of one direction: how many are in flight, and when the data lines are free.

    Attributes
    ----------
    freed : Event
        A burst has ended.
    """

    def __init__(self, clock: Clock, config: Config, memory: Memory) -> None:
        self.clock, self.memory = clock, memory
        self.outstanding = config.axi_outstanding
        self.freed = Event()
        self.in_flight = 0
        self._data_free = 0.0

    def _end(self, cycle: int) -> Process:
        yield cycle
        self.in_flight -= 1
        self.clock.fire(self.freed)


class ReadBus(_Direction):
    """AR and R, shared by command fetch and LOAD.

    Data comes in the order of the addresses, whoever asked.
    """

    def __init__(self, clock: Clock, config: Config, memory: Memory) -> None:
        super().__init__(clock, config, memory)
        self._address_free = 0

    def ask(self, beats: int, pace: float = 1.0) -> Generator[int | Event, None, tuple[int, int]]:
        """Ask for a burst as soon as one may be in flight; return cycles of first and last beat.

        Parameters
        ----------
        beats : int
        pace : float
            Cycles a beat that the reader needs at the least.
        """
        clock = self.clock
        while self.in_flight >= self.outstanding or self._address_free > clock.now:
            yield self._address_free if self._address_free > clock.now else self.freed
        self._address_free = clock.now + 1
        self.in_flight += 1
        pace = max(pace, 1 / self.memory.bandwidth)
        first = max(clock.now + 1 + self.memory.latency, self._data_free)
        self._data_free = first + beats * pace
        last = int(self._data_free - pace)
        clock.start(self._end(last + 1))
        return int(first), last


class WriteBus(_Direction):
    """AW, W and B of STORE; responses come in order."""

    def announce(self) -> Process:
        """Wait until one more burst may be in flight."""
        while self.in_flight >= self.outstanding:
            yield self.freed
        self.in_flight += 1

    def send(self, beats: int, ready: int, pace: float) -> tuple[int, int, int]:
        """Send a burst's beats from cycle `ready` on; cycles of first and last beat, response."""
        pace = max(pace, 1 / self.memory.bandwidth)
        first = max(ready, self._data_free)
        self._data_free = first + beats * pace
        last = int(self._data_free - pace)
        response = last + self.memory.latency
        self.clock.start(self._end(response + 1))
        return int(first), last, response
