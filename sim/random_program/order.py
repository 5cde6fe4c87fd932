"""Tokens between commands that touch the same words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tilewright.hw.encoding import Command, Token

Words = npt.NDArray[np.int64]
_BARRIER = 16
"""Commands after which every unit waits for all others, which bounds the token counters."""


class Order:
    """Tokens for true dependences: who touched each word last, and who already knows."""

    def __init__(self, rng: np.random.Generator, sizes: dict[str, int]) -> None:
        self.rng = rng
        self.writer = {space: np.full(size, -1, dtype=np.int64) for space, size in sizes.items()}
        self.reader = {
            space: np.full((4, size), -1, dtype=np.int64) for space, size in sizes.items()
        }
        self.commands: list[Command] = []
        self.clocks: list[npt.NDArray[np.int64]] = []
        self.latest = [-1] * 4
        self.barrier = 0

    def add(
        self,
        item: Command,
        reads: Iterable[tuple[str, Words]],
        writes: Iterable[tuple[str, Words]],
    ) -> None:
        """Append a command, with the waits it needs, and the posts on those it waits for."""
        index = len(self.commands)
        unit = item.unit
        needed = np.full(4, -1, dtype=np.int64)
        for space, words in (*reads, *writes):
            self._need(needed, self.writer[space][words])
        for space, words in writes:
            for other in range(4):
                self._need(needed, self.reader[space][other, words])
        if index - self.barrier >= _BARRIER:
            self.barrier = index
        for other in range(4):
            # The first command of a unit behind a barrier waits for all that is before it.
            if self.latest[unit] < self.barrier:
                before = [i for i in range(self.barrier) if self.commands[i].unit == other]
                needed[other] = max(int(needed[other]), before[-1] if before else -1)
        mine = self.latest[unit]
        clock = self.clocks[mine].copy() if mine >= 0 else np.full(4, -1, dtype=np.int64)
        for other in range(4):
            rival = int(needed[other])
            if other == unit or rival <= clock[other]:
                continue
            semaphore = 3 * other + (unit if unit < other else unit - 1)
            amount = int(self.rng.integers(1, 3))
            poster = self.commands[rival]
            poster.posts = (*poster.posts, Token(semaphore, amount))
            item.waits = (*item.waits, Token(semaphore, amount))
            np.maximum(clock, self.clocks[rival], out=clock)
        clock[unit] = index
        self.commands.append(item)
        self.clocks.append(clock)
        self.latest[unit] = index
        for space, words in reads:
            self.reader[space][unit, words] = index
        for space, words in writes:
            self.writer[space][words] = index

    def _need(self, needed: npt.NDArray[np.int64], touched: npt.NDArray[np.int64]) -> None:
        for index in np.unique(touched[touched >= 0]).tolist():
            unit = self.commands[index].unit
            needed[unit] = max(int(needed[unit]), index)
