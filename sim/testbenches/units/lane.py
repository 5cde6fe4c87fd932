"""Testbench of one lane of the vector unit.

Parameters: `config`; `latency`, the lane's; `stages`, at which stage an input is used, by its name;
`vectors`, file of vectors; `norms`, whose; `combinations`, how many of the command's switches.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cocotb
import numpy as np

from tilewright.hw.commands import Function, Mul, Out, Post, Pre, Source
from tilewright.hw.tables import INVERSE_MANTISSA
from tilewright.sim import golden
from tilewright.sim.testbenches.units.cell import Array, Bench

PARAMETERS = ("multiplier", "shift", "bias_low", "bias_high", "channel")
_BOUNDS = {
    Out.NONE: (-32768, 32767),
    Out.S16: (-32768, 32767),
    Out.S8: (-128, 127),
    Out.U8: (0, 255),
    **dict.fromkeys((Out.SYM16, Out.HIGH, Out.LOW), (-32639, 32639)),
}


def _wrap(value: Array, bits: int) -> Array:
    return ((value + (1 << bits - 1)) & ((1 << bits) - 1)) - (1 << bits - 1)


def whole(parts: Array) -> Array:
    """The value of accumulator parts, [..., parts], the most significant first; s44."""
    v = np.zeros(parts.shape[:-1], dtype=np.int64)
    for part in np.moveaxis(parts, -1, 0):
        v = (v << 8) + part
    return _wrap(v, 44)


def parts_of(acc: Array, rng: np.random.Generator) -> Array:
    """Three s32 parts of values, [..., 3], none of them small."""
    low = rng.integers(-(1 << 26), 1 << 26, acc.shape)
    middle = rng.integers(-(1 << 26), 1 << 26, acc.shape)
    low += (acc - low) & 255
    rest = acc - low >> 8
    middle += (rest - middle) & 255
    return np.stack((rest - middle >> 8, middle, low), axis=-1)


@dataclass
class Group:
    """Elements with the channel's parameters before them.

    Parameters of value None are not sent. Items are arrays by the names of the lane's inputs;
    those left out are 0, `keep` is 1. `parts`, [..., n], stands for `acc` where values have
    several.
    """

    multiplier: int | None = None
    shift: int | None = None
    bias: int | None = None
    channel: int | None = None
    items: dict[str, Array] | None = None

    def parameters(self) -> list[tuple[str, int]]:
        low = None if self.bias is None else int(self.bias) & 0xFFFF
        high = None if self.bias is None else int(self.bias) >> 16 & 0xFFFF
        values = (self.multiplier, self.shift, low, high, self.channel)
        return [(n, int(v)) for n, v in zip(PARAMETERS, values, strict=True) if v is not None]


async def stream(
    bench: Bench, switches: Mapping[str, int], groups: Sequence[Group]
) -> list[tuple[Array, Array]]:
    """Results and maxima of each group's elements; the groups follow each other without a gap."""
    latency, stages = bench.values["latency"], bench.values["stages"]
    sizes = [len(next(iter(group.items.values()))) for group in groups if group.items]
    length = 3 * sum(sizes) + sum(len(group.parameters()) for group in groups) + latency
    used = {"operand"} | {name for group in groups for name in group.items or {}}
    used = (used - {"parts"}) | {"acc", "more", "take_acc"}
    inputs = {name: np.zeros(length, dtype=np.int64) for name in used}
    if switches.get("source", Source.ACC) == Source.ACC:
        # What is not taken must not matter.
        inputs["acc"][:] = bench.rng.integers(-(1 << 31), 1 << 31, length)
    takes = {
        f"take_{name}": np.zeros(length, dtype=np.int64)
        for group in groups
        for name, _ in group.parameters()
    }
    late = "affine" if switches.get("post") == Post.AFFINE else "bias"
    at, places = 0, []
    for group, size in zip(groups, sizes, strict=True):
        for name, value in group.parameters():
            inputs["operand"][at] = value
            stage = stages[late if name.startswith("bias") else name]
            takes[f"take_{name}"][at + stage] = 1
            at += 1
        assert group.items
        items = dict(group.items)
        each = 1
        if "parts" in items:
            parts = items.pop("parts")
            each = parts.shape[-1]
            items["acc"] = parts.ravel()
            inputs["more"][at : at + size * each] = np.arange(size * each) % each != 0
        inputs["take_acc"][at : at + size * each] = 1
        for name, values in items.items():
            first = at + stages[name]
            copies = 1 if name == "acc" else each
            inputs[name][first : first + size * each] = np.repeat(values, copies)
        # The last part's results count.
        places.append((at + each - 1, size, each))
        at += size * each
    defaults = dict.fromkeys(bench.values["inputs"], 0)
    await bench.tick(**{**defaults, "keep": 1, **switches})
    found = await bench.play({**inputs, **takes}, ["result", "maximum"])
    result, maximum = (np.array(found[name], dtype=np.int64) for name in ("result", "maximum"))
    result = np.where(result >= 1 << 16, result - (1 << 17), result)
    maximum = np.where(maximum >= 1 << 43, maximum - (1 << 44), maximum)
    spans = [
        slice(first + latency, first + latency + size * each, each) for first, size, each in places
    ]
    return [(result[span], maximum[span]) for span in spans]


def model(f: dict[str, int], group: Group) -> tuple[Array, Array]:
    """Result and base (44 bits) by docs/architecture.md, VECTOR."""
    assert group.items
    channel = group.channel or 0
    item = {name: np.asarray(value, dtype=np.int64) for name, value in group.items.items()}
    v = item["operand"] if f["source"] == Source.SP else whole(item["parts"])
    a = {
        Pre.NONE: lambda: v,
        Pre.ROW_SCALE: lambda: golden.rsh(_wrap(v, 32) * item["pre_multiplier"], 7),
        Pre.MAX_MINUS: lambda: item["f1"] - v,
        Pre.TOP_MINUS: lambda: item["f1"] - v,
        Pre.CENTER: lambda: item["pre_multiplier"] * _wrap(v, 32) - item["f1"],
    }[Pre(f["pre"])]()
    if f["mul"] == Mul.CHANNEL:
        a = golden.rsh(a * (group.multiplier or 0), (group.shift or 0) - item["row_shift"])
    elif f["mul"] != Mul.NONE:
        a = golden.rsh(a * item["row_multiplier"], item["row_shift"])
    t = a if f["mul"] == Mul.NONE else np.clip(a, -(1 << 31), (1 << 31) - 1)
    base = t + (group.bias or 0) if f["bias"] else t
    w = np.clip(golden.rsh(base, 8) if f["bias"] else t, -32768, 32767)
    function = Function(f["function"])
    if function == Function.EXP2:
        g = golden.softmax_exp(-base, 0 * base[:1], base >= 0, 1, 0).astype(np.int64)
        g = g.reshape(base.shape)
    elif function == Function.NONE:
        g = w
    else:
        g = golden.activation(w, function.name.lower()).astype(np.int64)
    post, s1, s2 = f["post"], f["shift1"], f["shift2"]
    if post == Post.RESIDUAL:
        y = golden.rsh(base + golden.rsh(item["operand"] * channel, s1), s2)
    elif post == Post.AFFINE:
        y = golden.rsh(g * ((channel + 0x8000 & 0xFFFF) - 0x8000) + (group.bias or 0), s2)
    elif post == Post.SMOOTH:
        y = golden.rsh(g * channel, s2)
    else:
        y = g
    form = Out(f["out"])
    if form == Out.WRAP16:
        out = _wrap(base, 16)
    else:
        out = np.clip(y, *_BOUNDS[form])
    if form == Out.HIGH:
        out = out + 128 >> 8
    elif form == Out.LOW:
        out = _wrap(out, 8)
    return np.where(item["keep"], out, 0), _wrap(base, 44)


def _any(rng: np.random.Generator, bits: int, count: int) -> Array:
    """Signed numbers of any length up to `bits` bits, extremes among them."""
    half = 1 << bits - 1
    values = rng.integers(-half, half, count) >> rng.integers(0, bits, count)
    extreme = rng.random(count) < 0.15
    values[extreme] = rng.choice([-half, half - 1, 0, -1, 1], count)[extreme]
    return values


def _random_group(bench: Bench, f: dict[str, int], count: int) -> Group:
    rng = bench.rng
    scaled = f["mul"] == Mul.CHANNEL and f["pre"] == Pre.ROW_SCALE
    row_shift = rng.integers(0, 10, count) if scaled else rng.integers(0, 62, count)
    if f["mul"] == Mul.CHANNEL and not scaled:
        row_shift = np.full(count, 8)
    pre = (
        rng.choice(list(INVERSE_MANTISSA.values()), count)
        if f["pre"] == Pre.ROW_SCALE
        else rng.integers(1, 4097, count)
    )
    parts = int(rng.choice([1, 1, 2, 3]))
    return Group(
        multiplier=int(rng.integers(1 << 16)),
        shift=int(rng.integers(9, 62)),
        bias=int(_any(rng, 30, 1)[0] if f["bias"] else _any(rng, 32, 1)[0]),
        channel=int(_any(rng, 16, 1)[0]) & 0xFFFF,
        items={
            "parts": _any(rng, 32, count * parts).reshape(count, parts),
            "operand": _any(rng, 16, count),
            "pre_multiplier": pre,
            "f1": _any(rng, 44, count),
            "row_multiplier": rng.choice([0, 1, 65535, 65536, int(rng.integers(65537))], count),
            "row_shift": row_shift,
            "keep": (rng.random(count) < 0.9).astype(int),
        },
    )


def _same(found: Array, want: Any, what: str) -> None:
    wrong = np.flatnonzero(found != np.asarray(want))
    assert not len(wrong), (
        f"{what}: {len(wrong)} of {found.size} differ, the first at {wrong[0]}: "
        f"{found.flat[wrong[0]]}, expected {np.asarray(want).flat[wrong[0]]}"
    )


@cocotb.test
async def combinations(dut: Any) -> None:
    """Every pre, mul, bias, function, post and out; two groups each, shifts of all sizes."""
    bench = Bench(dut, timeout=10_000_000)
    rng = bench.rng
    await bench.start(keep=1)
    functions = [
        f
        for f in Function
        if f in (Function.NONE, Function.EXP2) or f.name.lower() in bench.config.functions
    ]
    every = [
        dict(zip(("pre", "mul", "bias", "function", "post", "out", "source"), values, strict=True))
        for values in itertools.product(Pre, Mul, (0, 1), functions, Post, Out, Source)
        if not (values[2] and values[4] == Post.AFFINE)
    ]
    picked = rng.permutation(len(every))[: bench.values["combinations"]]
    for number in picked:
        f = {**every[number], "shift1": int(rng.integers(62)), "shift2": int(rng.integers(40))}
        if rng.random() < 0.5:
            f |= {"shift1": int(rng.integers(4)), "shift2": int(rng.integers(12))}
        groups = [_random_group(bench, f, int(rng.integers(1, 9))) for _ in range(2)]
        found = await stream(bench, f, groups)
        for group, (result, base) in zip(groups, found, strict=True):
            want, want_base = model(f, group)
            _same(base, want_base, f"base, {f}")
            _same(result, want, f"{f}, {group}")
    print(f"{len(picked)} of {len(every)} combinations, {bench.cycle} cycles")


@cocotb.test
async def requantize(dut: Any) -> None:
    """Vectors of requantizing with a row scale and without, and with a residual."""
    bench = Bench(dut, timeout=1_000_000)
    await bench.start(keep=1)
    v = dict(np.load(bench.values["vectors"]))
    f: dict[str, int] = {"pre": Pre.ROW_SCALE, "mul": Mul.CHANNEL, "bias": 1}
    inverse = np.array([INVERSE_MANTISSA.get(m, 0) for m in range(8)])

    def scale(name: str) -> dict[str, Array]:
        return {"pre_multiplier": inverse[v[f"{name}_m"]], "row_shift": v[f"{name}_e"]}

    def channel(name: str, c: tuple[int, ...] | int) -> dict[str, int]:
        return {
            "multiplier": int(v[f"{name}_M"][c]),
            "shift": int(v[f"{name}_sh"][c]),
            "bias": int(v[f"{name}_B"][c]),
        }

    name = "requant_row"
    groups = [
        Group(**channel(name, c), items={"acc": v[f"{name}_acc"][:, c], **scale(name)})
        for c in range(32)
    ]
    for out, y in ((Out.S8, "y8"), (Out.S16, "y16")):
        for c, (result, _) in enumerate(await stream(bench, {**f, "out": out}, groups)):
            _same(result, v[f"{name}_{y}"][:, c], f"{name}_{y}, channel {c}")

    name = "requant_static"
    parts = parts_of(v[f"{name}_acc"], bench.rng)
    groups = [
        Group(
            **channel(name, c),
            items={"parts": parts[:, c], "row_shift": np.full(len(parts), 8)},
        )
        for c in range(32)
    ]
    high, low = golden.balanced_bytes(v[f"{name}_ysym"])
    for out, wanted in (
        (Out.S8, v[f"{name}_y8"]),
        (Out.S16, v[f"{name}_y16"]),
        (Out.SYM16, v[f"{name}_ysym"]),
        (Out.HIGH, high),
        (Out.LOW, low),
    ):
        f_static = {**f, "pre": Pre.NONE, "out": out}
        for c, (result, _) in enumerate(await stream(bench, f_static, groups)):
            _same(result, wanted[:, c], f"{name}, {out.name}, channel {c}")

    name = "residual"
    for i in range(5):
        groups = [
            Group(
                **channel(name, (i, c)),
                channel=int(v["residual_R"][i, c]),
                items={
                    "acc": v["residual_acc"][i, :, c],
                    "operand": v["residual_r"][i, :, c],
                    **scale(name),
                },
            )
            for c in range(32)
        ]
        f_residual = {**f, "post": Post.RESIDUAL, "out": Out.S16, "shift2": 8}
        f_residual["shift1"] = int(v["residual_sR"][i])
        for c, (result, _) in enumerate(await stream(bench, f_residual, groups)):
            _same(result, v["residual_z"][i, :, c], f"residual {i}, channel {c}")


@cocotb.test
async def softmax_and_context(dut: Any) -> None:
    """Vectors of e8 from scores and maxima, of the context, of smoothing."""
    bench = Bench(dut, timeout=1_000_000)
    await bench.start(keep=1)
    v = dict(np.load(bench.values["vectors"]))
    acc = v["softmax_acc"]
    names = ("f1", "row_multiplier", "row_shift", "keep", "pre_multiplier")
    items: dict[str, list[Array]] = {name: [] for name in names}
    parts: list[Array] = []
    want = []
    for i in range(len(acc)):
        valid = golden.valid_columns(
            *acc[i].shape,
            length=int(v["softmax_length"][i]),
            causal=bool(v["softmax_causal"][i]),
            row0=int(v["softmax_row0"][i]),
        )
        wide = _wrap(acc[i], 44)
        assert (wide == acc[i])[valid].all()
        parts.append(parts_of(wide, bench.rng).reshape(-1, 3))
        top = golden.softmax_max(acc[i], valid)
        top = np.where(valid.any(axis=1), top, -(1 << 43))
        for name, value in (
            ("f1", top[:, None]),
            ("row_multiplier", v["softmax_Ms"][i]),
            ("row_shift", v["softmax_shs"][i]),
            ("keep", valid),
            ("pre_multiplier", 0),
        ):
            items[name].append(np.broadcast_to(value, wide.shape).ravel().astype(np.int64))
        want.append(v["softmax_e8"][i].ravel())
    f: dict[str, int] = {
        "pre": Pre.MAX_MINUS,
        "mul": Mul.IMMEDIATE,
        "function": Function.EXP2,
        "out": Out.U8,
    }
    items["parts"] = parts
    group = Group(items={name: np.concatenate(values) for name, values in items.items()})
    _same((await stream(bench, f, [group]))[0][0], np.concatenate(want), "softmax_e8")

    for name, extra in (("context", 8), ("context16", 15)):
        o, den = v[f"{name}_o"].astype(np.int64), v[f"{name}_den"]
        n, recip = golden.reciprocal(den)
        ones = np.ones_like(o)
        group = Group(
            items={
                "parts": parts_of(o, bench.rng).reshape(-1, 3),
                "row_multiplier": (ones * recip[:, None]).ravel(),
                "row_shift": (ones * n[:, None] + extra).ravel(),
            }
        )
        found = await stream(bench, {"mul": Mul.ROW, "out": Out.S16}, [group])
        _same(found[0][0], v[f"{name}_ctx"].ravel(), name)

    for row, shift in enumerate(v["smooth_sG"].tolist()):
        groups = [
            Group(channel=int(v["smooth_G"][c]), items={"operand": v["smooth_x"][row, c : c + 1]})
            for c in range(v["smooth_x"].shape[1])
        ]
        f = {"source": Source.SP, "post": Post.SMOOTH, "shift2": shift, "out": Out.S16}
        found = await stream(bench, f, groups)
        _same(np.concatenate([r for r, _ in found]), v["smooth_g"][row], f"smooth, row {row}")


@cocotb.test
async def norms(dut: Any) -> None:
    """Vectors of LayerNorm and RMSNorm: xhat and y from z and the row's sums, r and k."""
    bench = Bench(dut, timeout=10_000_000)
    await bench.start(keep=1)
    with np.load(bench.values["vectors"]) as vectors:
        for name in bench.values["norms"]:
            v = {
                part: vectors[f"{name}_{part}"].astype(np.int64)
                for part in ("z", "S1", "r", "k", "g16", "b32", "sg", "Q", "xhat", "y")
            }
            rows, n = v["z"].shape
            f: dict[str, int] = {
                "source": Source.SP,
                "pre": Pre.CENTER,
                "mul": Mul.ROW,
                "out": Out.S16,
            }
            row = {
                "pre_multiplier": np.full(rows, n),
                "f1": v["S1"],
                "row_multiplier": v["r"],
                "row_shift": 16 + v["k"] - v["Q"][0],
            }
            groups = [Group(items={"operand": v["z"][:, c], **row}) for c in range(n)]
            found = await stream(bench, f, groups[:: max(1, n // 96)])
            got = np.array([result for result, _ in found])
            _same(got, v["xhat"][:, :: max(1, n // 96)].T, f"{name}_xhat")
            groups = [
                Group(
                    bias=int(v["b32"][c]),
                    channel=int(v["g16"][c]) & 0xFFFF,
                    items={"operand": v["z"][:, c], **row},
                )
                for c in range(n)
            ]
            f |= {"post": Post.AFFINE, "shift2": int(v["sg"][0])}
            found = await stream(bench, f, groups)
            _same(np.array([result for result, _ in found]), v["y"].T, f"{name}_y")


@cocotb.test
async def activations(dut: Any) -> None:
    """GELU, SiLU and tanh of all s16."""
    bench = Bench(dut, timeout=1_000_000)
    await bench.start(keep=1)
    with np.load(bench.values["vectors"]) as vectors:
        x = vectors["act_x"].astype(np.int64)
        for name in bench.config.functions:
            f: dict[str, int] = {
                "source": Source.SP,
                "function": Function[name.upper()],
                "out": Out.S16,
            }
            found = await stream(bench, f, [Group(items={"operand": x})])
            _same(found[0][0], vectors[f"{name}_y"].astype(np.int64), name)
