"""The bits of the arithmetic and its revision change together: programs name the revision."""

import hashlib

import numpy as np

from tests.sim.golden_vectors import names, vector
from tilewright.hw import tables
from tilewright.hw.manifest import ARITHMETIC

DIGESTS = {1: "c3b06ec042b2604f"}
"""Revision → digest of the golden vectors (with which all golden functions are compared) and of
the tables. Results that change make a revision: add a line here, and keep those above it."""


def digest() -> str:
    """SHA-256 of all vectors and tables, by name."""
    arrays = {name: vector(name) for name in names()}
    for table in (tables.GELU, tables.SILU, tables.TANH):
        bounds = [table.lo, table.hi, table.lg, table.below]
        arrays[table.name] = np.concatenate((bounds, table.values))
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape}\n".encode())
        found.update(np.ascontiguousarray(arrays[name], dtype="<i8").data)
    return found.hexdigest()[:16]


def test_bits_that_change_make_a_revision() -> None:
    assert max(DIGESTS) == ARITHMETIC
    assert digest() == DIGESTS[ARITHMETIC], (
        "the golden vectors or tables have changed: increase ARITHMETIC in hw/manifest.py and add "
        "its digest here (where vectors were only added, replace the digest)"
    )
