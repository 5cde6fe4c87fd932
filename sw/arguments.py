"""Arguments of the Python interface: each is right, or refused in one line that names it."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Iterable
from numbers import Integral, Number, Real
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tilewright.sw.errors import InputError

T = TypeVar("T")
Integers = npt.NDArray[np.integer[Any]]
F64 = npt.NDArray[np.float64]


def shown(value: object) -> str:
    """A value in a few characters of one line."""
    text = str(value) if isinstance(value, Number) else reprlib.repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def instance(name: str, value: object, kind: type[T]) -> T:
    """Return `value`, which must be of a class.

    Raises
    ------
    InputError
    """
    if not isinstance(value, kind):
        raise InputError(f"{name}: expected a {kind.__name__}, got {shown(value)}")
    return value


def choice(name: str, value: object, known: Iterable[str]) -> str:
    """Return a name, which must be one of `known`.

    Raises
    ------
    InputError
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{name} {shown(value)} is unknown; one of {', '.join(names)}")
    return value


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an integer of any integral type (no bool) within bounds, both included.

    Raises
    ------
    InputError
    """
    integral = isinstance(value, Integral) and not isinstance(value, bool)
    if not integral or operator.index(value) < low or (high is not None and value > high):
        bounds = f", {low} or more" if high is None else f" from {low} to {high}"
        raise InputError(f"{name} = {shown(value)}: must be an integer{bounds}")
    return operator.index(value)


def real(name: str, value: Any, low: float, high: float) -> float:
    """Return a real number within bounds, both included.

    Raises
    ------
    InputError
    """
    # Compared as it is: an integer may be beyond what a float holds.
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise InputError(f"{name} = {shown(value)}: must be a number from {low:g} to {high:g}")
    return float(value)


def array(name: str, value: object) -> npt.NDArray[Any]:
    """Return what NumPy makes of a value.

    Raises
    ------
    InputError
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        # Lists of different lengths, or what only looks like an array.
        raise InputError(f"{name}: expected an array, got {shown(value)}") from None


def integers(name: str, value: object, allowed: Iterable[str]) -> Integers:
    """Return an array of one of some integer types, in the machine's byte order.

    Raises
    ------
    InputError
    """
    found = array(name, value)
    if found.dtype.name not in allowed:
        raise InputError(f"{name}: expected an array of {', '.join(allowed)}, got {found.dtype}")
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def reals(name: str, value: object, shape: tuple[int, ...]) -> F64:
    """Return an array of finite real numbers of a shape.

    Raises
    ------
    InputError
    """
    found = array(name, value)
    if found.dtype.kind not in "iuf" or found.shape != shape:
        raise InputError(
            f"{name}: expected {math.prod(shape)} real numbers of shape {shape}, got {found.dtype} "
            f"of shape {found.shape}"
        )
    wide = found.astype(np.float64)
    if not np.isfinite(wide).all():
        raise InputError(f"{name}: must be finite, it holds NaN or infinity")
    return wide


def as_bytes(name: str, value: object) -> npt.NDArray[np.uint8]:
    """Return the bytes of a buffer or an array of numbers, in the machine's byte order.

    Raises
    ------
    InputError
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return np.frombuffer(bytes(value), dtype=np.uint8)
    found = array(name, value)
    if found.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected bytes or an array of numbers, got {found.dtype}")
    native = found.astype(found.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).reshape(-1).view(np.uint8)
