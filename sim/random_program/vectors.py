"""Recipes of VECTOR and ROW: single commands, a softmax, a LayerNorm."""

from __future__ import annotations

import numpy as np

from tilewright.hw.commands import (
    BYTE_OUTS,
    PARAMETER_ROWS,
    Function,
    Mul,
    Opcode,
    Out,
    Parts,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
)
from tilewright.sim.random_program.draft import Draft, words_at
from tilewright.sim.random_program.order import Words


def plain(**fields: int) -> dict[str, int]:
    """Flags that do nothing, changed by `fields`."""
    names = "source pre mul bias function post out stat_op magnitude first causal"
    return {**dict.fromkeys((names + " shift shift1 shift2 imm").split(), 0), **fields}


def random_flags(draft: Draft) -> dict[str, int]:
    """A point of the legal flag space, numbers chosen so that outputs are not all saturated."""
    functions = [Function.NONE, Function.EXP2]
    functions += [Function[name.upper()] for name in draft.config.functions]
    f = {
        "source": draft.integer(0, 1),
        "pre": draft.choose([int(v) for v in Pre]),
        "mul": draft.choose([int(v) for v in Mul]),
        "bias": draft.integer(0, 1),
        "function": draft.choose([int(v) for v in functions]),
        "post": draft.choose([int(v) for v in Post]),
        "out": draft.choose([1, 1, *(int(v) for v in Out)]),
        "stat_op": draft.choose([int(v) for v in Stat]),
        "magnitude": draft.integer(0, 1),
        "first": draft.integer(0, 1),
        "causal": int(draft.chance(0.25)),
        "shift": draft.choose([0, draft.integer(0, 34), draft.integer(4, 24)]),
        "shift1": draft.choose([0, draft.integer(0, 30), draft.integer(4, 20)]),
        "shift2": draft.choose([0, draft.integer(0, 40), draft.integer(4, 20)]),
        "imm": draft.choose([1, draft.integer(0, 65535), draft.integer(32768, 65535)]),
    }
    if f["post"] == Post.AFFINE:
        f["bias"] = 0
    if f["source"] == Source.ACC and draft.chance(0.3):
        f["parts"] = draft.choose([Parts.TWO, Parts.THREE])
    if f["pre"] == Pre.CENTER:
        f["imm"] = draft.choose([1, 4096, draft.integer(1, 4096)])
    if f["pre"] in (Pre.MAX_MINUS, Pre.CENTER):
        f["stat_op"] = draft.choose([Stat.NONE, Stat.SUM])
    if draft.corner and draft.chance(0.3):
        f["shift"], f["shift1"], f["shift2"] = (draft.choose([0, 34]) for _ in range(3))
    return f


def random_shape(draft: Draft, most: int = 24) -> dict[str, int]:
    """Rows, panels and which columns are valid."""
    width = draft.config.panel
    m, panels = draft.integer(1, min(most, draft.rows)), draft.integer(1, 3)
    if draft.chance(0.2):
        m = 1
    columns = panels * width
    valid = draft.choose([columns, columns, draft.integer(0, columns), columns + 7])
    return {"m": m, "panels": panels, "valid": valid, "row0": draft.integer(0, columns)}


def vector(
    draft: Draft, f: dict[str, int] | None = None, shape: dict[str, int] | None = None
) -> bool:
    """One vector command with the given flags and shape, or random ones; whether there is one."""
    config = draft.config
    f = {**(f or random_flags(draft)), **(shape or random_shape(draft))}
    m, panels = f["m"], f["panels"]
    tiles = panels * config.panel // config.columns
    reads: list[tuple[str, Words]] = []
    writes: list[tuple[str, Words]] = []
    taken = [np.zeros(0, dtype=np.int64)]

    def place(name: str, spot: tuple[int, int] | None) -> bool:
        if spot is None:
            return False
        f.setdefault(f"{name}_addr", spot[0])
        f.setdefault(f"{name}_stride", spot[1])
        return True

    acc_end = draft.acc_first + draft.acc_count
    if not place("acc", draft.matrix(m, tiles, draft.acc_first, acc_end, apart=False)):
        return False
    parts = f.setdefault("parts", Parts.ONE)
    if parts:
        room = acc_end - f["acc_addr"] - (tiles - 1) * f["acc_stride"] - m
        f["acc_part"] = draft.integer(0, room // parts)
    if not place("in", draft.matrix(m, panels, draft.first, draft.end, apart=False)):
        return False
    blocks = draft.par_blocks
    end = draft.par_first + PARAMETER_ROWS * blocks
    spot = draft.matrix(PARAMETER_ROWS, panels, draft.par_first, end, apart=False)
    if spot is not None and panels > 1:
        # Every block on a block: the rows' meaning differs.
        most = (blocks - 1) // (panels - 1)
        step = draft.integer(0, most)
        first = draft.integer(0, blocks - 1 - step * (panels - 1))
        spot = (draft.par_first + PARAMETER_ROWS * first, PARAMETER_ROWS * step)
    elif spot is not None:
        first = draft.integer(0, blocks - 1)
        spot = (draft.par_first + PARAMETER_ROWS * first, spot[1])
    place("par", spot)
    f.setdefault("scale_in", draft.scale_first + draft.integer(0, draft.scale_count - m))
    f.setdefault("scale_out", draft.scale_first + draft.integer(0, draft.scale_count - m))
    f.setdefault("stat", draft.stat_first + draft.integer(0, draft.stat_count - m))
    if f["pre"] == Pre.ROW_SCALE and f["magnitude"] and (abs(f["scale_in"] - f["scale_out"]) < m):
        f["magnitude"] = 0
    if f["source"] == Source.ACC:
        steps = (parts + 1, f.get("acc_part", 0)), (tiles, f["acc_stride"]), (m, 1)
        reads.append(("acc", words_at(f["acc_addr"], *steps)))
    operand = words_at(f["in_addr"], (panels, f["in_stride"]), (m, 1))
    if f["source"] == Source.SP or f["post"] == Post.RESIDUAL:
        reads.append(("sp", operand))
        taken.append(operand)
    if f["mul"] == Mul.CHANNEL or f["bias"] or f["post"] != Post.NONE:
        # All five rows: more than is read, so ordered with a little to spare.
        reads.append(
            ("sp", words_at(f["par_addr"], (panels, f["par_stride"]), (PARAMETER_ROWS, 1)))
        )
    if f["pre"] == Pre.ROW_SCALE:
        reads.append(("scale", words_at(f["scale_in"], (m, 1))))
    if f["magnitude"]:
        writes.append(("scale", words_at(f["scale_out"], (m, 1))))
    rows = words_at(f["stat"], (m, 1))
    reads.append(("stat", rows))
    if f["stat_op"] != Stat.NONE:
        writes.append(("stat", rows))
    if f["out"] != Out.NONE and "out_addr" not in f and not place_output(draft, f, taken):
        return False
    if f["out"] != Out.NONE:
        depth = -(-m // 2) if f["out"] in BYTE_OUTS else m
        writes.append(("sp", words_at(f["out_addr"], (panels, f["out_stride"]), (depth, 1))))
    f.setdefault("out_addr", 0)
    f.setdefault("out_stride", 0)
    return draft.emit(Opcode.VECTOR, f, reads, writes)


def place_output(draft: Draft, f: dict[str, int], taken: list[Words]) -> bool:
    """Output over the operand, element over element, or clear of everything read."""
    m, panels = f["m"], f["panels"]
    low, high = draft.free
    operand = words_at(f["in_addr"], (panels, f["in_stride"]), (m, 1))
    over = (
        f["out"] not in BYTE_OUTS
        and low <= operand.min()
        and len(np.unique(operand)) == len(operand)
    )
    if over and draft.chance(0.3):
        f["out_addr"], f["out_stride"] = f["in_addr"], f["in_stride"]
        return True
    depth = -(-m // 2) if f["out"] in BYTE_OUTS else m
    for _ in range(20):
        spot = draft.matrix(depth, panels, low, high, apart=True)
        if spot is None:
            return False
        words = words_at(spot[0], (panels, spot[1]), (depth, 1))
        if not np.isin(words, np.concatenate(taken)).any():
            f["out_addr"], f["out_stride"] = spot
            return True
    return False


def row(
    draft: Draft, op: RowOp | None = None, stat: int | None = None, m: int | None = None
) -> None:
    """One row command of the given operation, place and length, or random ones."""
    chosen = RowOp(draft.integer(0, 3)) if op is None else op
    f = {"op": int(chosen), "rms": draft.integer(0, 1), "sp_addr": draft.first}
    f["n"] = draft.choose([1, 4096, draft.integer(1, 4096)])
    f["eps"] = draft.choose([0, (1 << 40) - 1, draft.integer(0, 1 << 30)])
    f["scale"] = draft.scale_first
    f["stat"] = draft.stat_first
    reads: list[tuple[str, Words]] = []
    writes: list[tuple[str, Words]] = []
    width = draft.config.panel
    if chosen in (RowOp.GET, RowOp.PUT):
        f["m"] = draft.integer(1, draft.scale_count) if m is None else m
        f["scale"] += draft.integer(0, draft.scale_count - f["m"])
        words = -(-f["m"] // width)
        rows = ("scale", words_at(f["scale"], (f["m"], 1)))
        if chosen == RowOp.GET:
            spare = -(-draft.scale_count // width) - words
            f["sp_addr"] = draft.scale_words + draft.integer(0, spare)
            reads.append(("sp", words_at(f["sp_addr"], (words, 1))))
            writes.append(rows)
        else:
            f["sp_addr"] = draft.integer(draft.free[0], draft.free[1] - words)
            reads.append(rows)
            writes.append(("sp", words_at(f["sp_addr"], (words, 1))))
    else:
        f["m"] = draft.integer(1, draft.stat_count) if m is None else m
        f["stat"] = (
            draft.stat_first + draft.integer(0, draft.stat_count - f["m"]) if stat is None else stat
        )
        writes.append(("stat", words_at(f["stat"], (f["m"], 1))))
    draft.emit(Opcode.ROW, f, reads, writes)


def softmax(draft: Draft) -> None:
    """Maximum, exponentials and their sum, division, product: with sensible numbers."""
    shape = random_shape(draft)
    m = shape["m"]
    stat = draft.stat_first + draft.integer(0, draft.stat_count - m)
    source = draft.integer(0, 1)
    causal = draft.integer(0, 1)
    spot = draft.matrix(m, shape["panels"], draft.first, draft.end, apart=True)
    tiles = shape["panels"] * draft.config.panel // draft.config.columns
    acc = draft.matrix(m, tiles, draft.acc_first, draft.acc_first + draft.acc_count, apart=False)
    if spot is None or acc is None:
        return
    same = {**shape, "stat": stat, "in_addr": spot[0], "in_stride": spot[1]}
    same |= {"acc_addr": acc[0], "acc_stride": acc[1]}
    top = plain(source=source, causal=causal, stat_op=Stat.MAX, first=1)
    if not vector(draft, top, same):
        return
    e8 = plain(
        source=source,
        causal=causal,
        pre=Pre.MAX_MINUS,
        mul=Mul.IMMEDIATE,
        imm=draft.integer(32768, 65535),
        shift=draft.integer(14, 22),
        function=Function.EXP2,
        out=Out.U8,
        stat_op=Stat.SUM,
        first=1,
    )
    if not vector(draft, e8, same):
        return
    row(draft, RowOp.DIVIDE, stat, m)
    vector(draft, plain(mul=Mul.ROW, shift=8, out=Out.S16), {**shape, "stat": stat})


def layernorm(draft: Draft) -> None:
    """Moments, rsqrt, and the normalized output."""
    shape = random_shape(draft)
    shape["valid"] = shape["panels"] * draft.config.panel
    m = shape["m"]
    stat = draft.stat_first + draft.integer(0, draft.stat_count - m)
    spot = draft.matrix(m, shape["panels"], *draft.free, apart=True)
    if spot is None:
        return
    same = {**shape, "stat": stat}
    z = {"out_addr": spot[0], "out_stride": spot[1]}
    moments = plain(stat_op=Stat.MOMENTS, first=1, out=Out.S16, mul=Mul.CHANNEL, bias=1)
    if not vector(draft, moments, {**same, **z}):
        return
    row(draft, RowOp.RSQRT, stat, m)
    normal = plain(
        source=Source.SP,
        pre=Pre.CENTER,
        imm=shape["valid"],
        mul=Mul.ROW,
        shift=6,
        post=Post.AFFINE,
        shift2=draft.integer(8, 16),
        out=Out.S16,
        magnitude=1,
        first=1,
    )
    vector(draft, normal, {**same, "in_addr": spot[0], "in_stride": spot[1]})
