"""Placement: buffers in the scratchpad, and areas in DRAM.

Ports are per bank, so buffers used by different ports at the same time go into different banks
where there is room. Buffers whose phases do not meet may share words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.sw.rounding import round_up


@dataclass(frozen=True)
class Area:
    """A placed buffer: words [start, start + words)."""

    name: str
    start: int
    words: int
    phases: frozenset[str]

    @property
    def end(self) -> int:
        return self.start + self.words

    def banks(self, bank_words: int) -> set[int]:
        """Banks it lies in."""
        if not self.words:
            return set()
        return set(range(self.start // bank_words, (self.end - 1) // bank_words + 1))


class Placer:
    """Interval allocator over the scratchpad with phases and bank preferences.

    Parameters
    ----------
    words, bank_words : int
        Size of the memory and of a bank.
    """

    def __init__(self, words: int, bank_words: int) -> None:
        self.words = words
        self.bank_words = bank_words
        self.areas: dict[str, Area] = {}

    def _rivals(self, phases: frozenset[str]) -> list[Area]:
        return [area for area in self.areas.values() if area.phases & phases and area.words]

    def place(
        self, name: str, words: int, phases: Iterable[str], avoid: Iterable[str] = ()
    ) -> Area | None:
        """Place a buffer, or return None where there is no room.

        Among the starts behind other buffers and at bank boundaries the one is taken that shares
        fewest banks with `avoid`, then the lowest.
        """
        span = frozenset(phases)
        rivals = self._rivals(span)
        wanted = [self.areas[other] for other in avoid if other in self.areas]
        taken = [
            bank for other in wanted if other.phases & span for bank in other.banks(self.bank_words)
        ]
        starts = {0, *(area.end for area in rivals), *(area.end for area in self.areas.values())}
        starts |= set(range(0, self.words, self.bank_words))
        best: tuple[int, int] | None = None
        for start in starts:
            if start + words > self.words or any(
                start < area.end and area.start < start + words for area in rivals
            ):
                continue
            banks = Area(name, start, words, span).banks(self.bank_words)
            key = (sum(taken.count(bank) for bank in banks), start)
            if best is None or key < best:
                best = key
        if best is None:
            return None
        self.areas[name] = Area(name, best[1], words, span)
        return self.areas[name]

    def largest_gap(self, phases: Iterable[str]) -> tuple[int, int]:
        """Start and words of the largest stretch that is free in these phases."""
        edges = sorted((area.start, area.end) for area in self._rivals(frozenset(phases)))
        best, reach = (0, 0), 0
        for start, end in [*edges, (self.words, self.words)]:
            if start - reach > best[1]:
                best = (reach, start - reach)
            reach = max(reach, end)
        return best


class DramMap:
    """Areas of one DRAM region, one behind the other.

    Parameters
    ----------
    alignment : int
        Bytes every area is aligned to.
    """

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.size = 0
        self.offsets: dict[str, int] = {}
        self.sizes: dict[str, int] = {}

    def add(self, name: str, size: int) -> int:
        """Append an area and return its offset."""
        offset = self.size
        self.offsets[name] = offset
        self.size = offset + round_up(size, self.alignment)
        return offset

    def share(self, name: str, size: int) -> int:
        """Offset of an area that many use in turn; appended by the first.

        Raises
        ------
        ValueError
            If a later one needs more than the first.
        """
        if name not in self.offsets:
            self.sizes[name] = size
            return self.add(name, size)
        if size > self.sizes[name]:
            raise ValueError(f"{name}: {size} bytes: must be at most {self.sizes[name]}")
        return self.offsets[name]
