"""A built native simulator as a Python object: clock, registers, memory, faults, waveforms."""

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import Unit
from tilewright.sim.errors import SimulationError, answered_error
from tilewright.sim.trace import Span

CHANNELS = ("AR", "R", "AW", "W", "B")
SLVERR = 2
DECERR = 3

_OK, _INTERRUPT, _VIOLATION, _TIMEOUT, _BAD_RESPONSE, _FAILED = range(6)

_CHUNK = 10_000
"""Cycles of the first call of a run into the library."""
_CHUNK_SECONDS = 0.2
"""About how long the later ones take: Ctrl-C and progress wait for the end of a call."""


class ProtocolError(SimulationError):
    """The core broke a rule of AXI; `violations` has one line each."""

    def __init__(self, violations: list[str]) -> None:
        self.violations = violations
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"AXI: {violations[0]}{more}")


@dataclass(frozen=True, kw_only=True)
class BusOptions:
    """How the memory behaves.

    Parameters
    ----------
    latency : int or (int, int)
        Cycles from an accepted address to the first beat, and from the last write beat to its
        response; of a pair, each burst draws its own, both ends included.
    back_pressure : float or mapping of channel to float
        Probability that a channel ("AR", "R", "AW", "W", "B") is held for a cycle.
    lite_delay : float
        The same for the register master.
    interleave : bool
        Beats of bursts of different IDs may mix, and responses overtake.
    seed : int
        Of everything random.
    capacity : int
        Addresses the memory takes before it holds the channel.
    outstanding, max_burst : int
        What the master may not exceed: bursts in flight of one ID and direction, beats of a burst.
        0: any.

    Raises
    ------
    ValueError
        Naming the value, and what was allowed.

    Examples
    --------
    >>> import tilewright as tw
    >>> slow = tw.BusOptions(latency=(20, 60), back_pressure={"R": 0.2}, seed=1)
    >>> device = tw.Device("verilator", tw.preset("tiny"), bus=slow)  # doctest: +SKIP
    """

    latency: int | tuple[int, int] = 30
    back_pressure: float | Mapping[str, float] = 0.0
    lite_delay: float = 0.0
    interleave: bool = False
    seed: int = 0
    capacity: int = 64
    outstanding: int = 0
    max_burst: int = 0

    def __post_init__(self) -> None:
        low, high = self.latency_range
        if not 1 <= low <= high:
            raise ValueError(f"latency = {self.latency}: must be 1 or more, the smaller first")
        if isinstance(self.back_pressure, Mapping):
            for channel in self.back_pressure:
                _channel(channel)
        for value in (*self.holds, self.lite_delay):
            if not 0 <= value < 1:
                raise ValueError(f"probability {value}: must be 0 or more and below 1")
        if self.capacity < 1:
            raise ValueError(f"capacity = {self.capacity}: must be 1 or more")

    @property
    def latency_range(self) -> tuple[int, int]:
        if isinstance(self.latency, int):
            return self.latency, self.latency
        low, high = self.latency
        return low, high

    @property
    def holds(self) -> tuple[float, ...]:
        """Probability of each of `CHANNELS`."""
        if isinstance(self.back_pressure, Mapping):
            return tuple(self.back_pressure.get(channel, 0.0) for channel in CHANNELS)
        return (self.back_pressure,) * len(CHANNELS)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the bus carried since the simulator was made."""

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int
    write_bytes: int
    read_outstanding: int
    write_outstanding: int


class _Options(ctypes.Structure):
    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("latency_low", ctypes.c_uint64),
        ("latency_high", ctypes.c_uint64),
        ("back_pressure", ctypes.c_uint64 * len(CHANNELS)),
        ("lite_delay", ctypes.c_uint64),
        ("interleave", ctypes.c_uint64),
        ("capacity", ctypes.c_uint64),
        ("outstanding", ctypes.c_uint64),
        ("max_burst", ctypes.c_uint64),
    ]


class _Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in Statistics.__dataclass_fields__]


class _Span(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("index", "unit", "start", "end", "busy", "first_busy", "last_busy")
    ]


def _channel(name: str) -> int:
    if name not in CHANNELS:
        raise ValueError(f"channel {name!r}: must be one of {', '.join(CHANNELS)}")
    return CHANNELS.index(name)


def _threshold(probability: float) -> int:
    return round(probability * 2**32)


def _options(bus: BusOptions) -> _Options:
    low, high = bus.latency_range
    return _Options(
        seed=bus.seed & (2**64 - 1),
        latency_low=low,
        latency_high=high,
        back_pressure=(ctypes.c_uint64 * len(CHANNELS))(*map(_threshold, bus.holds)),
        lite_delay=_threshold(bus.lite_delay),
        interleave=bus.interleave,
        capacity=bus.capacity,
        outstanding=bus.outstanding,
        max_burst=bus.max_burst,
    )


_HANDLE = ctypes.c_void_p
_U64 = ctypes.c_uint64
_INT = ctypes.c_int
_TEXT = ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "tw_create": (_HANDLE, [ctypes.POINTER(_Options)]),
    "tw_destroy": (None, [_HANDLE]),
    "tw_error": (_TEXT, [_HANDLE]),
    "tw_configure": (None, [_HANDLE, ctypes.POINTER(_Options)]),
    "tw_reset": (_INT, [_HANDLE, _U64]),
    "tw_add_memory": (_HANDLE, [_HANDLE, _U64, _U64]),
    "tw_run": (_INT, [_HANDLE, _U64, _INT]),
    "tw_write": (_INT, [_HANDLE, _U64, ctypes.c_uint32, _U64]),
    "tw_read": (_INT, [_HANDLE, _U64, ctypes.POINTER(ctypes.c_uint32), _U64]),
    "tw_cycle": (_U64, [_HANDLE]),
    "tw_interrupt": (_INT, [_HANDLE]),
    "tw_fail": (None, [_HANDLE, _INT, _U64, _U64, _INT]),
    "tw_stall": (None, [_HANDLE, _INT, _U64, _U64]),
    "tw_clear_faults": (None, [_HANDLE]),
    "tw_violations": (_U64, [_HANDLE]),
    "tw_violation": (_TEXT, [_HANDLE, _U64]),
    "tw_clear_violations": (None, [_HANDLE]),
    "tw_idle": (_INT, [_HANDLE]),
    "tw_statistics": (None, [_HANDLE, ctypes.POINTER(_Statistics)]),
    "tw_trace": (_INT, [_HANDLE, _TEXT, _U64, _U64]),
    "tw_end_trace": (None, [_HANDLE]),
    "tw_spans": (ctypes.POINTER(_Span), [_HANDLE, ctypes.POINTER(_U64)]),
}


def _load(library: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(Path(library).absolute()))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded


@dataclass(eq=False)
class _Segment:
    base: int
    # Memory of the library, without a copy; it is gone when the simulator is closed.
    data: npt.NDArray[np.uint8] = field(repr=False)


class NativeSimulator:
    """A core in reset-released state with its memory; a context manager.

    Parameters
    ----------
    library : Path
        What `tilewright.sim.native.build.build` made.
    bus : BusOptions, optional
    memory : iterable of (base, size)
        DRAM, multiples of 4096; it costs only what is touched. Other addresses answer DECERR.

    Attributes
    ----------
    memory_range : (int, int)
        Base and size of the first of it, where a driver places its regions.

    Notes
    -----
    It has the methods of `tilewright.sw.driver.transport.Transport`. Methods that let cycles pass
    raise `ProtocolError` when the core breaks a rule of AXI.
    """

    name = "verilator"

    def __init__(
        self,
        library: Path,
        *,
        bus: BusOptions | None = None,
        memory: tuple[tuple[int, int], ...] = ((0x4000_0000, 0x4000_0000),),
    ) -> None:
        self._segments: list[_Segment] = []
        self._handle: int | None = None
        self._library = _load(library)
        self.bus = bus or BusOptions()
        self._handle = self._library.tw_create(ctypes.byref(_options(self.bus)))
        if self._handle is None:
            raise SimulationError(self._library.tw_error(None).decode())
        for base, size in memory:
            self.add_memory(base, size)
        self.memory_range = memory[0]
        self.reset()

    # ---- life ----

    def close(self) -> None:
        """End waveforms and free the simulator; a second call does nothing."""
        if self._handle is not None:
            self._segments.clear()
            self._library.tw_destroy(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @property
    def _live(self) -> int:
        if self._handle is None:
            raise SimulationError("the simulator is closed")
        return self._handle

    # ---- clock ----

    @property
    def cycle(self) -> int:
        """Cycles since the simulator was made, those in reset included."""
        return int(self._library.tw_cycle(self._live))

    @property
    def interrupt(self) -> bool:
        """Level of `irq`."""
        return bool(self._library.tw_interrupt(self._live))

    def reset(self, cycles: int = 8) -> None:
        """Hold `rst` for some cycles; the bus forgets what was in flight, memory stays."""
        self._check(self._library.tw_reset(self._live, cycles))

    def run(
        self,
        cycles: int,
        *,
        until_interrupt: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> bool:
        """Let cycles pass; with `until_interrupt` only until `irq` is high.

        `progress` is told a few times a second how many have passed, and at the end.

        Returns
        -------
        bool
            Whether `irq` ended it.
        """
        done, chunk = 0, _CHUNK
        while done < cycles:
            count = min(chunk, cycles - done)
            began = time.perf_counter()
            status = self._library.tw_run(self._live, count, until_interrupt)
            if status == _INTERRUPT:
                return True
            self._check(status)
            seconds = time.perf_counter() - began
            # Machines differ a hundredfold in speed.
            chunk = 2 * chunk if seconds < _CHUNK_SECONDS else max(chunk // 2, 1)
            done += count
            if progress is not None:
                progress(done)
        return False

    def wait(self, cycles: int, progress: Callable[[int], None] | None = None) -> bool:
        """Wait for the interrupt, at most `cycles`; whether it came."""
        return self.run(cycles, until_interrupt=True, progress=progress)

    # ---- registers ----

    def read32(self, address: int, *, limit: int = 10_000) -> int:
        """Read a register; it must answer within `limit` cycles."""
        value = ctypes.c_uint32()
        status = self._library.tw_read(self._live, address, ctypes.byref(value), limit)
        self._check_access(status, "reading", address, limit)
        return value.value

    def write32(self, address: int, value: int, *, limit: int = 10_000) -> None:
        """Write a register; it must answer within `limit` cycles."""
        status = self._library.tw_write(self._live, address, value, limit)
        self._check_access(status, "writing", address, limit)

    def _check_access(self, status: int, access: str, address: int, limit: int) -> None:
        if status == _TIMEOUT:
            what = f"{access} register 0x{address:03x}"
            raise SimulationError(f"{what}: no answer in {limit} cycles")
        if status == _BAD_RESPONSE:
            raise answered_error(access, address)
        self._check(status)

    def _check(self, status: int) -> None:
        if status in (_OK, _INTERRUPT):
            return
        if status == _VIOLATION:
            raise ProtocolError(self.violations)
        raise SimulationError(self._library.tw_error(self._live).decode())

    # ---- memory ----

    def add_memory(self, base: int, size: int) -> None:
        """Add DRAM; ValueError if it overlaps or is not a multiple of 4096."""
        data = self._library.tw_add_memory(self._live, base, size)
        if data is None:
            raise ValueError(self._library.tw_error(self._live).decode())
        array = np.ctypeslib.as_array(ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8)), (size,))
        self._segments.append(_Segment(base, array))

    def _slice(self, address: int, length: int) -> npt.NDArray[np.uint8]:
        for segment in self._segments:
            start = address - segment.base
            if start >= 0 and start + length <= len(segment.data):
                return segment.data[start : start + length]
        raise ValueError(f"{length} bytes at 0x{address:x} are not all in memory")

    def read_memory(self, address: int, length: int) -> npt.NDArray[np.uint8]:
        """Copy bytes out of the memory; takes no cycles."""
        return self._slice(address, length).copy()

    def write_memory(self, address: int, data: npt.ArrayLike) -> None:
        """Copy an array's bytes into the memory; takes no cycles."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._slice(address, len(raw))[:] = raw

    # ---- the bus ----

    def configure(self, bus: BusOptions) -> None:
        """Change the memory's behaviour from now on; another seed starts its randomness anew."""
        self.bus = bus
        self._library.tw_configure(self._live, ctypes.byref(_options(bus)))

    def fail(self, access: str, low: int, high: int, response: int = SLVERR) -> None:
        """Answer beats that touch [low, high) with an error.

        Parameters
        ----------
        access : str
            "read" or "write".
        response : int
            `SLVERR` or `DECERR`.
        """
        if access not in ("read", "write"):
            raise ValueError(f"access {access!r}: must be 'read' or 'write'")
        if response not in (SLVERR, DECERR):
            raise ValueError(f"response {response}: must be SLVERR (2) or DECERR (3)")
        self._library.tw_fail(self._live, access == "write", low, high, response)

    def stall(self, channel: str, start: int | None = None, cycles: int = 0) -> None:
        """Hold a channel from cycle `start` (now) for some cycles, 0 for ever.

        A valid of the memory that is already high stays so, as AXI demands.
        """
        self._library.tw_stall(
            self._live, _channel(channel), self.cycle if start is None else start, cycles
        )

    def clear_faults(self) -> None:
        """Take back all that `fail` and `stall` ordered."""
        self._library.tw_clear_faults(self._live)

    @property
    def idle(self) -> bool:
        """Nothing is in flight on the bus."""
        return bool(self._library.tw_idle(self._live))

    @property
    def violations(self) -> list[str]:
        """Rules of AXI the core broke, the first hundred; any of them stops the clock."""
        count = self._library.tw_violations(self._live)
        return [self._library.tw_violation(self._live, i).decode() for i in range(count)]

    def clear_violations(self) -> None:
        """Forget them, so that the clock runs on."""
        self._library.tw_clear_violations(self._live)

    @property
    def statistics(self) -> Statistics:
        raw = _Statistics()
        self._library.tw_statistics(self._live, ctypes.byref(raw))
        return Statistics(
            **{name: int(getattr(raw, name)) for name in Statistics.__dataclass_fields__}
        )

    # ---- waveforms ----

    def trace(self, path: Path, start: int | None = None, cycles: int = 0) -> None:
        """Write an FST waveform from cycle `start` (now) for some cycles, 0 up to the end.

        Cycle c is 10c … 10c + 9 ns, the clock rises in its middle. The library must have been built
        with `trace`.
        """
        # Verilator does not tell when it cannot write.
        path.open("wb").close()
        self._check(
            self._library.tw_trace(
                self._live, str(path).encode(), self.cycle if start is None else start, cycles
            )
        )

    def end_trace(self) -> None:
        """Close the waveform file."""
        self._library.tw_end_trace(self._live)

    # ---- spans ----

    def spans(self) -> tuple[Span, ...]:
        """Commands of the last run that are through, in program order.

        Empty where the library was built without probes.
        """
        count = ctypes.c_uint64()
        raw = self._library.tw_spans(self._live, ctypes.byref(count))
        found = (raw[number] for number in range(count.value))
        return tuple(
            sorted(
                (
                    Span(
                        index=span.index,
                        unit=Unit(span.unit),
                        start=span.start,
                        end=span.end,
                        busy=span.busy,
                        first_busy=span.first_busy,
                        last_busy=span.last_busy,
                    )
                    for span in found
                ),
                key=lambda span: span.index,
            )
        )
