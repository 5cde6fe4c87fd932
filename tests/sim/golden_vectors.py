"""The independent vectors, loaded lazily, and the exact comparison every golden test uses."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_PATH = Path(__file__).parent.parent / "data" / "vectors.npz"


@cache
def _archive() -> Any:
    return np.load(_PATH, allow_pickle=False)


def names() -> list[str]:
    """Names of all arrays."""
    found: list[str] = _archive().files
    return found


@cache
def vector(name: str) -> npt.NDArray[Any]:
    """Array `name` of ``tests/data/vectors.npz``."""
    out: npt.NDArray[Any] = _archive()[name]
    return out


def same(got: Any, name: str) -> None:
    """Compare with array `name`: shape and every integer; show the first difference."""
    want = vector(name).astype(np.int64)
    have = np.asarray(got).astype(np.int64)
    assert have.shape == want.shape, f"{name}: shape {have.shape}, expected {want.shape}"
    wrong = np.argwhere(have != want)
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"{name}: {len(wrong)} of {want.size} differ, first at {at}: "
            f"got {have[at]}, expected {want[at]}"
        )
