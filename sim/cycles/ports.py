"""Who uses which memory bank when, as far as it makes others wait."""

from __future__ import annotations

from collections import deque

from tilewright.hw.config import Config
from tilewright.sim.cycles.clock import Clock, Process


class Ports:
    """The feeder's bank of the scratchpad, and accumulator banks that take sums.

    Passes are known when they begin: the feeder's as long as it lasts, its sums a good while
    before they come.
    """

    def __init__(self, clock: Clock, config: Config) -> None:
        self.clock, self.config = clock, config
        self._feeder = (-1, 0)  # bank, and the cycle behind its last read
        self._follows = 1 << 60  # when it goes on in this bank, at the earliest
        self._loader = (-1, 0, 0, 1)  # bank, first cycle of a tile's reads, end, cycles a read
        self._sums: list[deque[tuple[int, int]]] = [deque() for _ in range(config.acc_banks)]

    def _bank(self, address: int) -> int:
        """Bank of a scratchpad word; addresses wrap."""
        return address % self.config.sp_words // self.config.sp_depth

    def feeder_pass(self, address: int, start: int, rows: int, following: int) -> None:
        """A pass reads rows from `address` on; one that follows there begins no sooner."""
        bank = self._bank(address)
        self._feeder = (bank, start + rows)
        self._follows = following

    def sums_pass(self, address: int, start: int, rows: int) -> None:
        """A pass brings sums of rows, the first at cycle `start` at column 0."""
        config = self.config
        depth, columns = config.acc_depth, config.columns
        first, end = address % config.acc_words, address % config.acc_words + rows
        while first < end:
            bank = first // depth
            count = min(end, (bank + 1) * depth) - first
            sums = self._sums[bank % config.acc_banks]
            if sums and sums[-1][1] >= start:
                sums[-1] = (sums[-1][0], start + count + columns)
            else:
                sums.append((start, start + count + columns))
            start += count
            first += count

    def feeder_has(self, address: int) -> int:
        """Until which cycle the feeder reads the bank of a word; 0 if it does not."""
        bank, end = self._feeder
        if end <= self.clock.now:
            return 0
        here = self._bank(address) == bank
        return end if here else 0

    def feeder_returns(self, address: int) -> int:
        """Between passes, the cycle in which the feeder may come back to the bank of a word."""
        here = self._bank(address) == self._feeder[0]
        return self._follows if here and self._follows > self.clock.now else 1 << 60

    def loader_tile(self, address: int, start: int, end: int, words: int) -> None:
        """The weight loader reads words from `address` on, spread over cycles [start, end)."""
        bank = self._bank(address)
        self._loader = (bank, start, end, max(1, (end - start) // words))

    def loader_has(self, address: int) -> int:
        """Until which cycle the weight loader reads the bank of a word; 0 if it does not."""
        bank, start, end, pace = self._loader
        now = self.clock.now
        if not start <= now < end or (now - start) % pace:
            return 0
        here = self._bank(address) == bank
        return (end if pace == 1 else now + 1) if here else 0

    def loader_wait(self, address: int) -> Process:
        """Wait, as the weight loader does, until the feeder leaves the bank of a word alone."""
        while end := self.feeder_has(address):
            yield end
            yield self.clock.now

    def vector_wait(self, address: int) -> Process:
        """Wait, as the vector unit does, until feeder and weight loader do."""
        while end := max(self.feeder_has(address), self.loader_has(address)):
            yield end
            yield self.clock.now

    def sums_until(self, address: int, cycle: int) -> tuple[int, int]:
        """Until when a bank takes sums in a cycle (0: it does not), and when it does next."""
        config = self.config
        sums = self._sums[address % config.acc_words // config.acc_depth]
        while sums and sums[0][1] <= cycle:
            sums.popleft()
        if not sums:
            return 0, 1 << 60
        start, end = sums[0]
        return (end, end) if start <= cycle else (0, start)
