"""Which words, rows and bytes a command touches.

A footprint is a list of half-open intervals in a space: the scratchpad in half-words (2 · word +
half, since two rows of s8 share a word), the accumulators in words, the three row tables in rows, a
DRAM region in bytes from its base (or all of DRAM in absolute bytes when the regions' places are
known). Addresses are not wrapped: an interval that leaves its memory shows a program in error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import (
    BYTE_OUTS,
    GROUP_ROWS,
    Mul,
    Opcode,
    Out,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
    WeightFormat,
    XMode,
    parameter_rows,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, Scalar
from tilewright.sw.rounding import ceil_div

Intervals = npt.NDArray[np.int64]
"""[n, 2]: first, and one behind the last."""

SP, ACC, SCALE, DRAM = "scratchpad", "accumulators", "scale rows", "dram"
STAT, TOP = "stat rows", "row maxima"

COUNTS = {
    Opcode.LOAD: ("runs", "planes"),
    Opcode.STORE: ("runs", "planes"),
    Opcode.MATMUL: ("m", "kt", "nt"),
    Opcode.VECTOR: ("m", "panels"),
    Opcode.ROW: ("m",),
    Opcode.BEGIN: (),
    Opcode.END: (),
}
"""The count fields that decide what a command touches."""


@dataclass
class Footprint:
    """What one command reads and writes.

    Attributes
    ----------
    reads, writes : list of (space, intervals)
        Intervals as they come; not sorted or merged.
    """

    reads: list[tuple[str, Intervals]] = field(default_factory=list)
    writes: list[tuple[str, Intervals]] = field(default_factory=list)


def resolve(command: Command, scalars: Mapping[int, int]) -> dict[str, int]:
    """Fields as numbers; counts that no address depends on (`valid`, `row0`) may stay unknown (0).

    Raises
    ------
    ValueError
        If a register that is needed has no value.
    """
    out: dict[str, int] = {}
    needed = COUNTS[command.opcode]
    for name, value in command.fields.items():
        if not isinstance(value, Scalar):
            out[name] = value
        elif value.index in scalars:
            out[name] = scalars[value.index] & 0xFFFF
        elif name in needed:
            raise ValueError(f"{name} = {value}: the check needs the register's value")
        else:
            out[name] = 0
    return out


def _ranges(base: int, length: int, *steps: tuple[int, int]) -> Intervals:
    """Intervals of `length` at `base + Σ index · stride` over the (count, stride) steps."""
    first = np.array([base], dtype=np.int64)
    for count, stride in steps:
        if count == 1:
            continue
        if stride == length and first.size == 1:
            # Contiguous: one interval, which keeps big plain transfers cheap.
            length *= count
            continue
        offsets = np.arange(count, dtype=np.int64) * stride
        first = (first[:, None] + offsets).reshape(-1)
    return np.stack((first, first + length), axis=1)


def merge(intervals: Intervals) -> Intervals:
    """The same cells as sorted intervals that neither overlap nor touch."""
    if len(intervals) < 2:
        return intervals
    ordered = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    start = np.flatnonzero(np.concatenate(([True], ordered[1:, 0] > reach[:-1])))
    last = np.concatenate((start[1:] - 1, [len(ordered) - 1]))
    return np.stack((ordered[start, 0], reach[last]), axis=1)


def cells(intervals: Intervals) -> int:
    """Cells counted as often as they are covered."""
    return int((intervals[:, 1] - intervals[:, 0]).sum())


def dram_address(
    fields: Mapping[str, int],
    scalars: Mapping[int, int],
    regions: Mapping[int, tuple[int, int]] | None,
) -> tuple[str, int]:
    """Space and first byte of a transfer.

    Raises
    ------
    ValueError
        If the scalar register of the offset, or the region, is not known.
    """
    address = fields["offset"]
    if fields["scalar_on"]:
        if fields["scalar"] not in scalars:
            raise ValueError(f"scalar = s{fields['scalar']}: the check needs the register's value")
        address += scalars[fields["scalar"]]
    if address >> 62:
        raise ValueError(f"offset = {fields['offset']:#x}: must be below 2^62")
    if regions is None:
        return f"{DRAM} region {fields['region']}", address
    if fields["region"] not in regions:
        raise ValueError(f"region = {fields['region']}: no such region was given")
    return DRAM, address + regions[fields["region"]][0]


def _transfer(
    out: Footprint,
    f: Mapping[str, int],
    config: Config,
    scalars: Mapping[int, int],
    regions: Mapping[int, tuple[int, int]] | None,
    load: bool,
) -> None:
    runs, planes, length = f["runs"], f["planes"], f["length"]
    if not (runs and planes and length):
        return
    space, address = dram_address(f, scalars, regions)
    chunks = ceil_div(length, config.panel if f["half"] else config.word_bytes)
    if planes * runs * chunks > 2 * config.sp_words:
        raise ValueError(
            f"planes * runs = {planes} * {runs} of {chunks} chunks: more than the scratchpad holds"
        )
    dram = _ranges(address, length, (runs, f["run_stride"]), (planes, f["plane_stride"]))
    word, plane, run, chunk = (2 * f[k] for k in ("sp_addr", "sp_plane", "sp_run", "sp_chunk"))
    if f["half"]:
        # Runs 2i and 2i + 1 are the halves of the same words.
        parts = [
            _ranges(word + half, 1, (chunks, chunk), (count, run), (planes, plane))
            for half, count in ((0, ceil_div(runs, 2)), (1, runs // 2))
            if count
        ]
        sp = np.concatenate(parts)
    else:
        sp = _ranges(word, 2, (chunks, chunk), (runs, run), (planes, plane))
    (out.reads if load else out.writes).append((space, dram))
    (out.writes if load else out.reads).append((SP, sp))


def _matmul(out: Footprint, f: Mapping[str, int], config: Config) -> None:
    m, kt, nt = f["m"], f["kt"], f["nt"]
    if not (m and kt and nt):
        return
    rows, columns, width = config.rows, config.columns, config.panel
    k_panels, n_panels = ceil_div(kt * rows, width), ceil_div(nt * columns, width)
    bytes_mode = f["mode"] in (XMode.S8, XMode.U8)
    out.reads.append(
        (SP, _ranges(2 * f["x_addr"], m if bytes_mode else 2 * m, (k_panels, 2 * f["x_stride"])))
    )
    panels, depth = (k_panels, nt * columns) if f["transposed"] else (n_panels, kt * rows)
    if f["weights"] == WeightFormat.S4 and not f["transposed"]:
        # Four rows a word; the words are read whole.
        groups = ceil_div(kt * rows, GROUP_ROWS)
        for name, count in (("w", ceil_div(kt * rows, 4)), ("group", ceil_div(groups, 4))):
            stride = 2 * f[f"{name}_stride"]
            out.reads.append((SP, _ranges(2 * f[f"{name}_addr"], 2 * count, (panels, stride))))
    else:
        out.reads.append((SP, _ranges(2 * f["w_addr"], depth, (panels, 2 * f["w_stride"]))))
    if f["mode"] == XMode.SCALED:
        out.reads.append((SCALE, _ranges(f["scale"], m)))
    acc = _ranges(f["acc_addr"], m, (nt, f["acc_stride"]))
    if f["accumulate"]:
        out.reads.append((ACC, acc))
    if f["row_max"]:
        out.writes.append((TOP, _ranges(f["stat"], m)))
    out.writes.append((ACC, acc))


def _vector(out: Footprint, f: Mapping[str, int], config: Config) -> None:
    m, panels = f["m"], f["panels"]
    if not (m and panels):
        return
    step = (panels, 2 * f["in_stride"])
    if f["source"] == Source.ACC:
        tiles = panels * config.panel // config.columns
        for part in range(f["parts"] + 1):
            region = f["acc_addr"] + part * f["acc_part"]
            out.reads.append((ACC, _ranges(region, m, (tiles, f["acc_stride"]))))
    if f["source"] == Source.SP or f["post"] == Post.RESIDUAL:
        out.reads.append((SP, _ranges(2 * f["in_addr"], 2 * m, step)))
    rows = parameter_rows(f)
    if rows:
        first = 2 * (f["par_addr"] + np.array(rows, dtype=np.int64))
        offsets = 2 * f["par_stride"] * np.arange(panels, dtype=np.int64)
        low = (offsets[:, None] + first).reshape(-1)
        out.reads.append((SP, merge(np.stack((low, low + 2), axis=1))))
    if f["pre"] == Pre.ROW_SCALE:
        out.reads.append((SCALE, _ranges(f["scale_in"], m)))
    if f["pre"] in (Pre.MAX_MINUS, Pre.CENTER) or f["mul"] == Mul.ROW:
        out.reads.append((STAT, _ranges(f["stat"], m)))
    if f["pre"] == Pre.TOP_MINUS:
        out.reads.append((TOP, _ranges(f["stat"], m)))
    if f["out"] != Out.NONE:
        length = m if f["out"] in BYTE_OUTS else 2 * m
        out.writes.append((SP, _ranges(2 * f["out_addr"], length, (panels, 2 * f["out_stride"]))))
    if f["magnitude"]:
        out.writes.append((SCALE, _ranges(f["scale_out"], m)))
    if f["stat_op"] != Stat.NONE:
        out.writes.append((STAT, _ranges(f["stat"], m)))


def _row(out: Footprint, f: Mapping[str, int], config: Config) -> None:
    m = f["m"]
    if not m:
        return
    words = (SP, _ranges(2 * f["sp_addr"], 2 * ceil_div(m, config.panel)))
    scale, stat = (SCALE, _ranges(f["scale"], m)), (STAT, _ranges(f["stat"], m))
    if f["op"] == RowOp.GET:
        out.reads.append(words)
        out.writes.append(scale)
    elif f["op"] == RowOp.PUT:
        out.reads.append(scale)
        out.writes.append(words)
    else:
        out.writes.append(stat)


def footprint(
    command: Command,
    fields: Mapping[str, int],
    config: Config,
    scalars: Mapping[int, int],
    regions: Mapping[int, tuple[int, int]] | None = None,
) -> Footprint:
    """What a command touches, from its resolved fields.

    Parameters
    ----------
    command : Command
    fields : mapping
        From `resolve`.
    config : Config
    scalars : mapping
        Values of scalar registers.
    regions : mapping of region to (base, limit), optional
        With it DRAM is one space of absolute addresses, so that regions may overlap.

    Raises
    ------
    ValueError
        If a register or region that is needed is not known.
    """
    out = Footprint()
    if command.opcode in (Opcode.LOAD, Opcode.STORE):
        load = command.opcode == Opcode.LOAD
        _transfer(out, fields, config, scalars, regions, load)
    elif command.opcode == Opcode.MATMUL:
        _matmul(out, fields, config)
    elif command.opcode == Opcode.VECTOR:
        _vector(out, fields, config)
    elif command.opcode == Opcode.ROW:
        _row(out, fields, config)
    return out


def sizes(config: Config) -> dict[str, int]:
    """Cells of each on-chip space."""
    return {
        SP: 2 * config.sp_words,
        ACC: config.acc_words,
        SCALE: config.scale_rows,
        STAT: config.stat_rows,
        TOP: config.stat_rows,
    }
