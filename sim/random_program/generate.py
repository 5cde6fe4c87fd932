"""The whole of a program: preparation, random commands, and stores that show what they did."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from tilewright.hw.commands import SCALARS, Mul, Opcode, Out, Pre, RowOp, Source, Stat
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, encode
from tilewright.hw.manifest import manifest_hash
from tilewright.sim.random_program.draft import PROGRAM, Draft, words_at
from tilewright.sim.random_program.products import matmul
from tilewright.sim.random_program.program import RandomProgram
from tilewright.sim.random_program.transfers import load_arena, store_words, transfer
from tilewright.sim.random_program.vectors import layernorm, plain, row, softmax, vector

KINDS = ("transfer", "matmul", "vector", "row", "mixed")
_RECIPES: dict[str, Callable[[Draft], object]] = {
    "load": lambda draft: transfer(draft, load=True),
    "store": lambda draft: transfer(draft, load=False),
    "matmul": matmul,
    "vector": vector,
    "row": row,
    "softmax": softmax,
    "layernorm": layernorm,
}
_TRIES = 100
_WEIGHTS = {
    "transfer": {"load": 3, "store": 2},
    "matmul": {"matmul": 1},
    "vector": {"vector": 8, "softmax": 1, "layernorm": 1},
    "row": {"row": 4, "vector": 1},
    "mixed": {"load": 2, "store": 2, "matmul": 3, "vector": 5, "row": 2, "softmax": 1},
}


def _prepare(draft: Draft) -> None:
    """Give every memory of the machine values that the program knows."""
    load_arena(draft)
    row(draft, RowOp.GET, m=draft.scale_count)
    # Its weights may not fit as drawn, where few words hold narrow ones.
    if not any(matmul(draft, whole=True) for _ in range(_TRIES)):
        raise AssertionError("no product gives all accumulators values")
    vector(
        draft,
        plain(source=Source.SP, stat_op=Stat.MOMENTS, first=1),
        {"m": draft.rows, "panels": 1, "valid": draft.config.panel, "row0": 0}
        | {"stat": draft.stat_first},
    )
    row(draft, RowOp.RSQRT, draft.stat_first, draft.stat_count)


def _finish(draft: Draft) -> None:
    """Store the arena, then views of accumulators, scale rows and statistics."""
    draft.used = -(-draft.used // 64) * 64
    store_words(draft, draft.first, draft.end - draft.first)
    config = draft.config
    low = draft.free[0]
    # A row of a panel is a word of each of its tiles.
    rows = draft.acc_count * config.columns // config.panel
    m = min(rows, draft.rows)
    panels = rows // m
    whole = {"m": m, "panels": panels, "valid": panels * config.panel, "row0": 0}
    acc = {"acc_addr": draft.acc_first, "acc_stride": m}
    size = m * panels
    views = [
        plain(out=Out.WRAP16),
        plain(mul=Mul.IMMEDIATE, imm=1, shift=16, out=Out.WRAP16),
    ]
    for number, flags in enumerate(views):
        out = {"out_addr": low + number * size, "out_stride": m}
        if not vector(draft, flags, {**whole, **acc, **out}):
            raise AssertionError("a view of the accumulators is undefined")
    store_words(draft, low, len(views) * size)
    rows = draft.stat_count
    shape = {"m": rows, "panels": 1, "valid": config.panel, "row0": 0}
    shape |= {"stat": draft.stat_first, "in_addr": draft.first, "in_stride": 0}
    place = low
    for pre, mul, shift in (
        (Pre.MAX_MINUS, Mul.IMMEDIATE, 0),
        (Pre.MAX_MINUS, Mul.IMMEDIATE, 14),
        (Pre.MAX_MINUS, Mul.IMMEDIATE, 28),
        (Pre.TOP_MINUS, Mul.IMMEDIATE, 0),
        (Pre.TOP_MINUS, Mul.IMMEDIATE, 14),
        (Pre.NONE, Mul.ROW, 0),
        (Pre.NONE, Mul.ROW, 8),
    ):
        flags = plain(source=Source.SP, pre=pre, mul=mul, imm=1, shift=shift, out=Out.S16)
        vector(draft, flags, {**shape, "out_addr": place, "out_stride": 0})
        place += rows
    words = -(-draft.scale_count // config.panel)
    draft.emit(
        Opcode.ROW,
        {"op": RowOp.PUT, "m": draft.scale_count, "scale": draft.scale_first, "sp_addr": place},
        [("scale", words_at(draft.scale_first, (draft.scale_count, 1)))],
        [("sp", words_at(place, (words, 1)))],
    )
    store_words(draft, low, place + words - low)


def _build(
    draft: Draft, kind: str, count: int, name: str, without: frozenset[int]
) -> RandomProgram:
    _prepare(draft)
    draft.without = without
    weights = _WEIGHTS[kind]
    names = list(weights)
    share = np.array([weights[n] for n in names], dtype=np.float64)
    draft.drawn = 0
    for _ in range(20 * count):
        if draft.drawn >= count:
            break
        _RECIPES[str(draft.rng.choice(names, p=share / share.sum()))](draft)
    draft.without = frozenset()
    _finish(draft)
    body = draft.order.commands
    begin = {"hash": manifest_hash(draft.config), "commands": len(body) + 2}
    commands = [Command(Opcode.BEGIN, dict(begin)), *body, Command(Opcode.END)]
    program = b"".join(encode(item) for item in commands)
    start = draft.regions[PROGRAM][0] + draft.program_offset
    for memory in (draft.memory, draft.machine.dram.buffers[0]):
        memory[start : start + len(program)] = np.frombuffer(program, dtype=np.uint8)
    return RandomProgram(
        config=draft.config,
        name=name,
        commands=commands,
        memory=draft.memory,
        regions=draft.regions,
        program_offset=draft.program_offset,
        scalars=[draft.scalars.get(i, 0) for i in range(SCALARS)],
        expected=draft.machine.dram.buffers[0],
    )


def random_program(
    config: Config,
    seed: int,
    *,
    kind: str = "mixed",
    commands: int = 24,
    corner: bool = False,
    words: int | None = None,
    without: Collection[int] = (),
) -> RandomProgram:
    """Make a random legal program.

    Parameters
    ----------
    config : Config
    seed : int
    kind : str
        Commands between preparation and the final stores: "transfer", "matmul", "vector", "row" or
        "mixed".
    commands : int
        How many of them (a softmax or LayerNorm counts each of its commands).
    corner : bool
        Data and parameters from the ends of their ranges.
    words : int, optional
        Scratchpad words used, loaded first and stored last; 768 where there are as many.
    without : collection of int
        Random commands to leave out, by number: how a program that fails is made smaller.

    Returns
    -------
    RandomProgram
        Race-free, and defined in every step.

    Raises
    ------
    ValueError
        If the kind is unknown, or the words too few.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: must be one of {', '.join(KINDS)}")
    if not 0 <= commands <= 500:
        raise ValueError(f"commands = {commands}: must be 0 to 500")
    name = f"{config.name}-{kind}-{seed}{'-corner' if corner else ''}"
    return _build(Draft(config, seed, corner, words), kind, commands, name, frozenset(without))
