"""What units did in which cycles, and the counters that follow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Intervals = list[tuple[int, int]]
"""Half-open intervals of cycles, in any order, that may overlap."""


def _edges(intervals: Intervals, cycles: int) -> np.ndarray:
    """Sorted disjoint intervals within the run, [n, 2]."""
    if not intervals:
        return np.zeros((0, 2), dtype=np.int64)
    array = np.clip(np.array(intervals, dtype=np.int64), 0, cycles)
    array = array[array[:, 0] < array[:, 1]]
    array = array[np.argsort(array[:, 0], kind="stable")]
    if len(array) < 2:
        return array
    reach = np.maximum.accumulate(array[:, 1])
    start = np.flatnonzero(np.concatenate(([True], array[1:, 0] > reach[:-1])))
    last = np.concatenate((start[1:] - 1, [len(array) - 1]))
    return np.stack((array[start, 0], reach[last]), axis=1)


def counts(intervals: Mapping[str, Intervals], cycles: int) -> dict[str, int]:
    """Cycles of each reason, where an earlier one hides those behind it, and of `idle`.

    Parameters
    ----------
    intervals : mapping of reason to intervals, the strongest first
    cycles : int
        Of the run: what the counts add up to.
    """
    out: dict[str, int] = {}
    covered: Intervals = []
    before = 0
    for reason, own in intervals.items():
        covered = [*covered, *own]
        merged = _edges(covered, cycles)
        covered = [(int(a), int(b)) for a, b in merged]
        total = int((merged[:, 1] - merged[:, 0]).sum())
        out[reason] = total - before
        before = total
    return {**out, "idle": cycles - before}
