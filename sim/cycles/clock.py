"""Processes in simulated time: generators that wait for a cycle or for something to happen."""

from __future__ import annotations

import heapq
from collections.abc import Generator


class Event:
    """Something that happens again and again; processes wait for the next time."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Process] = []


Process = Generator["int | Event", None, None]
"""Yields the cycle in which it goes on (at once, where that is past), or an `Event`."""


class Clock:
    """Runs processes in the order of time; those of one cycle in the order they came.

    Attributes
    ----------
    now : int
        Cycle of the process that runs.
    """

    def __init__(self) -> None:
        self.now = 0
        self._number = 0
        self._heap: list[tuple[int, int, Process]] = []

    def start(self, process: Process) -> None:
        """Add a process; it runs from this cycle on."""
        self._push(self.now, process)

    def fire(self, event: Event) -> None:
        """Let go on, in this cycle, whoever waits for an event."""
        waiting, event.waiting = event.waiting, []
        for process in waiting:
            self._push(self.now, process)

    def _push(self, cycle: int, process: Process) -> None:
        self._number += 1
        heapq.heappush(self._heap, (cycle, self._number, process))

    def run(self) -> None:
        """Run until no process can go on."""
        heap = self._heap
        while heap:
            self.now, _, process = heapq.heappop(heap)
            try:
                what = next(process)
            except StopIteration:
                continue
            if isinstance(what, int):
                self._push(max(what, self.now), process)
            else:
                what.waiting.append(process)
