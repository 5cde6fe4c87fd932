"""An AXI4 memory for cocotb, cycle by cycle, that is as awkward as AXI allows, and a monitor."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BOUNDARY = 4096


@dataclass
class Burst:
    """A burst as accepted: its address (of a beat), beats, and the cycle it came in."""

    id: int
    address: int
    beats: int
    cycle: int
    taken: int = 0


@dataclass(kw_only=True)
class Manners:
    """How the memory behaves.

    Parameters
    ----------
    latency : int
        Cycles from an accepted address to its first beat, or from the last beat to the response.
    pause : float
        Probability that a channel pauses for a cycle.
    interleave : bool
        Read beats of different IDs interleave.
    order : str
        "any"; "aw": no W beat is taken before its AW; "w": no AW is taken before its W burst.
    frozen : set of str
        Channels ("ar", "r", "aw", "w", "b") that stand still.
    """

    latency: int = 2
    pause: float = 0.0
    interleave: bool = False
    order: str = "any"
    frozen: set[str] = field(default_factory=set)


def no_error(address: int) -> int | None:
    """No beat has an error."""
    return None


class AxiMemory:
    """Memory behind the ports `m_axi_*` of `dut`.

    Reads come from `source`, writes go to `target`: two byte arrays at `origin`. `step` is called
    after each rising edge, before anything is driven. A breach of the rules raises AssertionError.

    Attributes
    ----------
    read_error, write_error : callable
        The response for a beat at an address: 2 or 3, or None.
    manners : Manners
    beats : dict
        Beats moved on "r0", "r1" (by ID) and "w"; `beat_cycles` the cycles of each.
    """

    def __init__(
        self, dut: Any, *, origin: int, size: int, beat: int, limits: tuple[int, int], rng: Any
    ) -> None:
        self.ports = {
            port._name.removeprefix("m_axi_"): port
            for port in dut
            if port._name.startswith("m_axi_")
        }
        self.driven: dict[str, int] = {}
        self.origin = origin
        self.source = rng.integers(0, 256, size, dtype=np.uint8)
        self.target = rng.integers(0, 256, size, dtype=np.uint8)
        self.beat = beat
        self.most_beats, self.most_bursts = limits
        self.rng = rng
        self.manners = Manners()
        self.read_error: Callable[[int], int | None] = no_error
        self.write_error: Callable[[int], int | None] = no_error
        self.cycle = 0
        self.reads: list[deque[Burst]] = [deque(), deque()]
        self.writes: deque[Burst] = deque()
        self.write_beats: deque[tuple[int, int, int]] = deque()
        self.whole_bursts = 0
        self.responses: deque[tuple[int, int]] = deque()
        self.reading = 0
        self.writing = 0
        self.offered: dict[str, tuple[int, ...] | None] = dict.fromkeys(("ar", "aw", "w"))
        self.w_left = 0
        self.aw_lengths: deque[int] = deque()
        self.r_busy = self.b_busy = False
        self.r_id = 0
        self.burst_log: list[tuple[str, int, int, int]] = []
        self.beat_cycles: dict[str, list[int]] = {"r0": [], "r1": [], "w": []}
        for name in ("arready", "rvalid", "awready", "wready", "bvalid"):
            self._set(name, 0)

    def _get(self, name: str) -> int:
        return int(self.ports[name].value)

    def _set(self, name: str, value: int) -> None:
        if self.driven.get(name) != value:
            self.driven[name] = value
            self.ports[name].value = value

    def idle(self) -> bool:
        """Whether nothing is outstanding, and nothing offered."""
        return (
            not self.reading
            and not self.writing
            and not any(value is not None for value in self.offered.values())
        )

    def _goes(self, channel: str) -> bool:
        if channel in self.manners.frozen:
            return False
        return not self.manners.pause or self.rng.random() >= self.manners.pause

    def _stable(self, channel: str, valid: int, names: tuple[str, ...], taken: bool) -> None:
        now = tuple(self._get(name) for name in names) if valid else None
        before = self.offered[channel]
        assert before is None or now == before, f"{channel}: {before} became {now} before ready"
        self.offered[channel] = None if taken else now

    def _check(self, channel: str) -> Burst:
        address, length = self._get(channel + "addr"), self._get(channel + "len")
        burst = Burst(self._get(channel + "id"), address, length + 1, self.cycle)
        assert self._get(channel + "size") == self.beat.bit_length() - 1
        assert self._get(channel + "burst") == 1
        assert address % self.beat == 0
        assert burst.beats <= self.most_beats, f"{channel}: {burst.beats} beats"
        assert address // BOUNDARY == (address + burst.beats * self.beat - 1) // BOUNDARY
        inside = self.origin <= address
        inside &= address + burst.beats * self.beat <= self.origin + len(self.source)
        assert inside, f"{channel}: 0x{address:x} is outside of the memory"
        self.burst_log.append((channel, burst.id, address, burst.beats))
        return burst

    def step(self) -> None:
        """Sample the handshakes of the cycle that ends, and drive the next."""
        self.cycle += 1
        self._step_read()
        self._step_write()

    def _step_read(self) -> None:
        valid, ready = self._get("arvalid"), self._get("arready")
        self._stable("ar", valid, ("araddr", "arlen", "arid"), bool(valid and ready))
        if valid and ready:
            burst = self._check("ar")
            self.reads[burst.id].append(burst)
            self.reading += 1
            assert self.reading <= self.most_bursts, f"{self.reading} reads in flight"
        self._set("arready", int(self._goes("ar")))

        if self.r_busy and self._get("rready"):
            self.r_busy = False
            burst = self.reads[self.r_id][0]
            burst.taken += 1
            self.beat_cycles[f"r{burst.id}"].append(self.cycle)
            if burst.taken == burst.beats:
                self.reads[self.r_id].popleft()
                self.reading -= 1
        if not self.r_busy:
            candidates = [
                queue[0]
                for queue in self.reads
                if queue and queue[0].cycle + self.manners.latency <= self.cycle
            ]
            started = [burst for burst in candidates if burst.taken]
            if candidates and self._goes("r"):
                if self.manners.interleave:
                    burst = candidates[int(self.rng.integers(len(candidates)))]
                else:
                    burst = (started or sorted(candidates, key=lambda b: b.cycle))[0]
                self.r_id = burst.id
                address = burst.address + burst.taken * self.beat
                at = address - self.origin
                self._set("rdata", int.from_bytes(self.source[at : at + self.beat], "little"))
                self._set("rid", burst.id)
                self._set("rresp", self.read_error(address) or 0)
                self._set("rlast", int(burst.taken == burst.beats - 1))
                self.r_busy = True
            self._set("rvalid", int(self.r_busy))

    def _step_write(self) -> None:
        valid, ready = self._get("awvalid"), self._get("awready")
        new = valid and self.offered["aw"] is None
        if new:
            # W may follow once AW is offered.
            self.aw_lengths.append(self._get("awlen") + 1)
            self.writing += 1
            assert self.writing <= self.most_bursts, f"{self.writing} writes in flight"
        self._stable("aw", valid, ("awaddr", "awlen", "awid"), bool(valid and ready))
        if valid and ready:
            self.writes.append(self._check("aw"))

        valid, ready = self._get("wvalid"), self._get("wready")
        self._stable("w", valid, ("wdata", "wstrb", "wlast"), bool(valid and ready))
        if valid and ready:
            if not self.w_left:
                assert self.aw_lengths, "W before AW was offered"
                self.w_left = self.aw_lengths.popleft()
            self.w_left -= 1
            last = self._get("wlast")
            assert last == (self.w_left == 0), "WLAST"
            self.write_beats.append((self._get("wdata"), self._get("wstrb"), last))
            self.whole_bursts += last
            self.beat_cycles["w"].append(self.cycle)
        while self.writes and self.write_beats:
            burst = self.writes[0]
            data, strobe, _ = self.write_beats.popleft()
            at = burst.address + burst.taken * self.beat - self.origin
            raw = data.to_bytes(self.beat, "little")
            burst_error = self.write_error(burst.address) or 0
            if not burst_error:
                for lane in range(self.beat):
                    if strobe >> lane & 1:
                        self.target[at + lane] = raw[lane]
            burst.taken += 1
            if burst.taken == burst.beats:
                self.writes.popleft()
                self.whole_bursts -= 1
                self.responses.append((self.cycle + self.manners.latency, burst_error))
        order = self.manners.order
        aw_open = order != "w" or self.whole_bursts > len(self.writes)
        w_open = order != "aw" or len(self.writes) > 0
        # In order "aw" a burst's own AW counts, not the one of the burst before.
        if order == "aw" and len(self.writes) == 1 and valid and ready and self.w_left == 0:
            w_open = self.writes[0].taken < self.writes[0].beats
        self._set("awready", int(aw_open and self._goes("aw")))
        self._set("wready", int(w_open and self._goes("w")))

        if self.b_busy and self._get("bready"):
            self.b_busy = False
            self.responses.popleft()
            self.writing -= 1
        if not self.b_busy:
            if self.responses and self.responses[0][0] <= self.cycle and self._goes("b"):
                self._set("bresp", self.responses[0][1])
                self._set("bid", 1)
                self.b_busy = True
            self._set("bvalid", int(self.b_busy))
