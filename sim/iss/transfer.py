"""LOAD and STORE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from tilewright.hw.commands import Fault
from tilewright.sim.iss.state import State, WindowError

_FAR = 1 << 60


def _runs(state: State, f: dict[str, int], write: bool) -> npt.NDArray[np.uint8]:
    """The bytes in DRAM, [planes, runs, length], as a view; every run checked first."""
    planes, runs, length = f["planes"], f["runs"], f["length"]
    base, limit = state.base[f["region"]], state.limit[f["region"]]
    space = 1 << state.config.axi_addr_width
    start = base + f["offset"] + (state.scalars[f["scalar"]] if f["scalar_on"] else 0)
    steps = (
        np.arange(planes, dtype=np.int64)[:, None] * f["plane_stride"]
        + np.arange(runs, dtype=np.int64) * f["run_stride"]
    )
    # Addresses do not wrap. Steps are below 2^50, so that farther bounds may be cut to 2^60.
    lowest = max(base - start, -_FAR)
    highest = min(min(limit, space) - length - start, _FAR)
    outside = (steps < lowest) | (steps > highest)
    if start >= space:
        outside[0, 0] = True
    if outside.any():
        first = (start + int(steps[outside][0])) % space
        raise WindowError(
            Fault.WINDOW,
            first,
            f"{length} bytes at {first:#x}, region {f['region']} is [{base:#x}, {limit:#x})",
        )
    low = start + int(steps.min())
    found = state.dram.find(low, start + int(steps.max()) + length - 1)
    if found is None:
        for step in steps.reshape(-1).tolist():
            place = start + step
            if state.dram.find(place, place + length - 1) is None:
                code = Fault.WRITE_DECERR if write else Fault.READ_DECERR
                raise WindowError(code, place, f"{length} bytes at {place:#x}: no memory is there")
        raise ValueError("runs of one command lie in several buffers of the simulated DRAM")
    buffer, offset = found
    if write and state.check:
        order = np.sort(steps.reshape(-1))
        state.undefined(bool((np.diff(order) < length).any()), "runs of a STORE overlap")
    offset += start - low
    return as_strided(
        buffer[offset:],
        shape=(planes, runs, length),
        strides=(f["plane_stride"], f["run_stride"], 1),
        writeable=write,
    )


def _chunks(state: State, f: dict[str, int]) -> tuple[np.ndarray, npt.NDArray[np.int64]]:
    """The scratchpad as rows of chunks, and the row of each chunk, [planes, runs, chunks]."""
    planes, runs, length = f["planes"], f["runs"], f["length"]
    rows = state.sp_halves if f["half"] else state.sp
    count = -(-length // rows.shape[1])
    size = len(state.sp)
    j = np.arange(runs, dtype=np.int64)
    word = (
        f["sp_addr"]
        + np.arange(planes, dtype=np.int64)[:, None, None] * f["sp_plane"]
        + (j >> f["half"])[:, None] * f["sp_run"]
        + np.arange(count, dtype=np.int64) * f["sp_chunk"]
    )
    last = int(word[-1, -1, -1])
    if last >= size:
        state.undefined(True, f"sp_addr: address {last}, the last is {size - 1}")
        word &= size - 1
    return rows, 2 * word + (j & 1)[:, None] if f["half"] else word


def load(state: State, f: dict[str, int]) -> None:
    """Runs of bytes into words or half-words; the last chunk of a run is filled with zeros."""
    planes, runs, length = f["planes"], f["runs"], f["length"]
    if not (planes and runs and length):
        return
    source = _runs(state, f, write=False)
    rows, place = _chunks(state, f)
    width = rows.shape[1]
    if length % width:
        padded = np.zeros((planes, runs, place.shape[2] * width), dtype=np.uint8)
        padded[..., :length] = source
        source = padded
    # In the order of the commands' runs: where chunks lie over each other the last one stays.
    rows[place.reshape(-1)] = source.reshape(-1, width)


def store(state: State, f: dict[str, int]) -> None:
    """Words or half-words to runs of bytes, exactly `length` each."""
    planes, runs, length = f["planes"], f["runs"], f["length"]
    if not (planes and runs and length):
        return
    target = _runs(state, f, write=True)
    rows, place = _chunks(state, f)
    target[...] = rows[place].reshape(planes, runs, -1)[..., :length]
