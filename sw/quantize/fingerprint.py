"""A hash of quantized models and what they are made of, to tell whose results a file holds."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def fingerprint(value: Any) -> str:
    """Hash of dataclasses, sequences, mappings, arrays, enumerations, strings and numbers."""
    digest = hashlib.sha256()
    _feed(digest.update, value)
    return digest.hexdigest()[:16]


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            update(field.name.encode() + b"=")
            _feed(update, getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        update(f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        _feed(update, tuple(value.items()))
    elif isinstance(value, (tuple, list)):
        update(f"{len(value)}:".encode())
        for item in value:
            _feed(update, item)
    else:
        shown = value.value if isinstance(value, enum.Enum) else value
        update(f"{shown!r};".encode())
