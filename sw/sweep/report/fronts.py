"""Which points no other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> list[int]:
    """The points for which no other is as good in both values and better in one; less is better.

    Parameters
    ----------
    points
        Pairs of values. One with a value that is None or not finite is on no front and beats none.

    Returns
    -------
    list[int]
        Indices by ascending first value. Equal points are all on the front or all off it, and come
        in the order given.

    Notes
    -----
    One pass over the sorted points: O(n log n). page.js computes the same over the points that its
    filter leaves.
    """
    usable = sorted(
        (x, y, index)
        for index, (x, y) in enumerate(points)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    )
    front: list[int] = []
    last = (-math.inf, math.inf)
    for x, y, index in usable:
        if y < last[1] or (x, y) == last:
            front.append(index)
            last = (x, y)
    return front
