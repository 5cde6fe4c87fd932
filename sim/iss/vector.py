"""VECTOR and ROW."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import (
    BYTE_OUTS,
    PARAMETER_ROWS,
    SYM16_MAX,
    Function,
    Mul,
    Out,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
)
from tilewright.hw.tables import INVERSE_MANTISSA
from tilewright.sim import golden
from tilewright.sim.golden.normalize import N_MAX
from tilewright.sim.iss.state import DENOMINATOR_BITS, F1_BITS, F1_LOWEST, F2_BITS, State

Int64 = npt.NDArray[np.int64]

_S32 = (-(1 << 31), (1 << 31) - 1)
_BOUNDS = {
    Out.NONE: (-32768, 32767),
    Out.S16: (-32768, 32767),
    Out.S8: (-128, 127),
    Out.U8: (0, 255),
    Out.SYM16: (-SYM16_MAX, SYM16_MAX),
    Out.HIGH: (-SYM16_MAX, SYM16_MAX),
    Out.LOW: (-SYM16_MAX, SYM16_MAX),
}
_V_BITS = 44
_SHIFT_MAX = 61
_INVERSE = np.zeros(8, dtype=np.int64)
_INVERSE[list(INVERSE_MANTISSA)] = list(INVERSE_MANTISSA.values())


def _wrap(value: Int64, bits: int) -> Int64:
    """Modulo 2^bits, signed."""
    half = np.int64(1 << bits - 1)
    return ((value + half) & np.int64((1 << bits) - 1)) - half


class _Vector:
    """One vector command on its way through the stages; arrays are [m, panels · W]."""

    def __init__(self, state: State, f: dict[str, int]) -> None:
        self.state = state
        self.f = f
        self.m, self.panels = f["m"], f["panels"]
        self.columns = self.panels * state.config.panel
        self.valid = self._valid()

    def _valid(self) -> npt.NDArray[np.bool_] | None:
        """Valid elements; None when all are."""
        f = self.f
        if f["valid"] >= self.columns and not f["causal"]:
            return None
        return golden.valid_columns(
            self.m, self.columns, length=f["valid"], causal=bool(f["causal"]), row0=f["row0"]
        )

    def _zero_invalid(self, value: np.ndarray) -> np.ndarray:
        return value if self.valid is None else np.where(self.valid, value, 0)

    def _source(self) -> Int64:
        f, state = self.f, self.state
        if f["source"] == Source.SP:
            v = self._operand()
        else:
            count = self.columns // state.config.columns
            v = np.zeros((self.m, self.columns), dtype=np.int64)
            for part in range(f["parts"] + 1):
                first = f["acc_addr"] + part * f["acc_part"]
                place = state.tiles("acc_addr", first, count, f["acc_stride"], self.m)
                words = state.acc[place].transpose(1, 0, 2).reshape(self.m, -1)
                v = (v << 8) + words.astype(np.int64)
            if f["parts"]:
                v = _wrap(v, _V_BITS)
        # An invalid element takes part in nothing, so that it may be anything.
        return self._zero_invalid(v)

    def _operand(self) -> Int64:
        f = self.f
        return self.state.rows16(
            "in_addr", f["in_addr"], self.panels, f["in_stride"], self.m
        ).astype(np.int64)

    def _parameter(self, row: int) -> npt.NDArray[np.int16]:
        f, state = self.f, self.state
        place = state.index(
            "par_addr", f["par_addr"] + row, len(state.sp), (self.panels, f["par_stride"])
        )
        return state.sp16[place].reshape(-1)

    def _bias(self) -> Int64:
        low, high = self._parameter(2).view(np.uint16), self._parameter(3)
        return (high.astype(np.int64) << 16) | low

    def _shift(self, shift: Int64, what: str) -> Int64:
        """A shift as the machine takes it: modulo 64; what is outside 0 … 61 is undefined."""
        bad = (shift < 0) | (shift > _SHIFT_MAX)
        if bad.any():
            where = bad if self.valid is None else bad & self.valid
            if where.any():
                shown = np.broadcast_to(shift, where.shape)[where][0]
                self.state.undefined(True, f"{what}: a shift of {int(shown)}, 0 to {_SHIFT_MAX}")
            shift = np.minimum(shift & 63, _SHIFT_MAX)
        return shift

    def _multiplied(self, v: Int64) -> Int64:
        """The first two stages, up to t."""
        f, state = self.f, self.state
        pre, mul = f["pre"], f["mul"]
        rows = None
        if pre in (Pre.MAX_MINUS, Pre.TOP_MINUS, Pre.CENTER) or mul == Mul.ROW:
            rows = state.stat_rows(f["stat"], self.m)
        a = v
        exponent: Int64 | int = 8
        if pre == Pre.ROW_SCALE:
            mantissa, e = golden.row_scale(state.magnitudes("scale_in", f["scale_in"], self.m))
            a = golden.rsh(_wrap(v, 32) * _INVERSE[mantissa][:, None], 7)
            exponent = e.astype(np.int64)[:, None]
        elif pre == Pre.TOP_MINUS:
            a = state.top[rows][:, None] - v
        elif pre == Pre.MAX_MINUS:
            a = state.f1[rows][:, None] - v
        elif pre == Pre.CENTER:
            state.undefined(f["imm"] > N_MAX, f"imm of CENTER = {f['imm']}, {N_MAX} at most")
            a = f["imm"] * _wrap(v, 32) - state.f1[rows][:, None]
        a = self._zero_invalid(a)
        if mul == Mul.CHANNEL:
            multiplier = self._parameter(0).view(np.uint16).astype(np.int64)
            shift = (self._parameter(1) & 63).astype(np.int64) - exponent
            a = golden.rsh(a * multiplier, self._shift(shift, "sh of a channel"))
        elif mul == Mul.IMMEDIATE:
            a = golden.rsh(a * f["imm"], self._shift(np.array(f["shift"]), "shift"))
        elif mul == Mul.ROW:
            shift = state.exponent[rows][:, None] + f["shift"]
            a = golden.rsh(a * state.factor[rows][:, None], self._shift(shift, "shift"))
        return a if mul == Mul.NONE else np.clip(a, *_S32)

    def _function(self, w: Int64, base: Int64) -> Int64:
        name = Function(self.f["function"])
        if name == Function.NONE:
            return w
        if name != Function.EXP2:
            return golden.activation(w, name.name.lower()).astype(np.int64)
        # u itself is the distance from a maximum of 0; a negative u gives 0.
        rows = np.zeros(self.m, dtype=np.int64)
        return golden.softmax_exp(-base, rows, base >= 0, 1, 0).astype(np.int64)

    def _output(self, base: Int64, g: Int64) -> Int64:
        """The last stage, y."""
        f = self.f
        post = f["post"]
        if post == Post.NONE:
            return g
        multiplier = self._parameter(PARAMETER_ROWS - 1)
        c = (multiplier if post == Post.AFFINE else multiplier.view(np.uint16)).astype(np.int64)
        last = self._shift(np.array(f["shift2"]), "shift2")
        if post == Post.RESIDUAL:
            first = self._shift(np.array(f["shift1"]), "shift1")
            return golden.rsh(base + golden.rsh(self._operand() * c, first), last)
        if post == Post.AFFINE:
            return golden.rsh(g * c + self._bias(), last)
        return golden.rsh(g * c, last)

    def _statistics(self, base: Int64, out: Int64) -> None:
        f, state = self.f, self.state
        first = bool(f["first"])
        if f["magnitude"]:
            place = state.scale_rows("scale_out", f["scale_out"], self.m)
            largest = np.abs(out).max(axis=1)
            old = 0 if first else state.scale[place]
            state.scale[place] = np.maximum(largest, old).astype(np.uint16)
        stat = f["stat_op"]
        if stat == Stat.NONE:
            return
        place = state.stat_rows(f["stat"], self.m)
        if stat == Stat.MAX:
            seen = _wrap(base, F1_BITS)
            if self.valid is not None:
                seen = np.where(self.valid, seen, F1_LOWEST)
            state.f1[place] = np.maximum(seen.max(axis=1), F1_LOWEST if first else state.f1[place])
            return
        s1, s2 = golden.row_sums(out)
        if stat == Stat.SUM:
            f2 = s1 + (0 if first else state.f2[place])
        else:
            state.f1[place] = _wrap(s1 + (0 if first else state.f1[place]), F1_BITS)
            f2 = s2 + (0 if first else state.f2[place])
        state.f2[place] = f2 & ((1 << F2_BITS) - 1)

    def run(self) -> None:
        f = self.f
        t = self._multiplied(self._source())
        base, w = t, t
        if f["bias"]:
            base = t + self._bias()
            w = golden.rsh(base, 8)
        g = self._function(np.clip(w, *_BOUNDS[Out.S16]), base)
        form = Out(f["out"])
        if form == Out.WRAP16:
            out = _wrap(base, 16)
        else:
            out = np.clip(self._output(base, g), *_BOUNDS[form])
        if form == Out.HIGH:
            out = out + 128 >> 8
        elif form == Out.LOW:
            out = _wrap(out, 8)
        out = self._zero_invalid(out)
        if form in BYTE_OUTS:
            self.state.put8("out_addr", f["out_addr"], f["out_stride"], out)
        elif form != Out.NONE:
            self.state.put16("out_addr", f["out_addr"], f["out_stride"], out)
        self._statistics(base, out)


def vector(state: State, f: dict[str, int]) -> None:
    """Every element through the stages, then the row statistics."""
    if f["m"] and f["panels"]:
        _Vector(state, f).run()


def row(state: State, f: dict[str, int]) -> None:
    """Row values from statistics, and scale rows in and out."""
    m, width = f["m"], state.config.panel
    if not m:
        return
    if f["op"] in (RowOp.GET, RowOp.PUT):
        place = state.scale_rows("scale", f["scale"], m)
        words = state.index("sp_addr", f["sp_addr"], len(state.sp), (-(-m // width), 1))
        if f["op"] == RowOp.GET:
            state.scale[place] = state.sp16[words].reshape(-1)[:m].view(np.uint16)
            return
        values = np.zeros(words.size * width, dtype=np.uint16)
        values[:m] = state.scale[place]
        state.sp16[words] = values.view(np.int16).reshape(-1, width)
        return
    place = state.stat_rows(f["stat"], m)
    if f["op"] == RowOp.DIVIDE:
        den = state.f2[place]
        state.undefined(
            bool((den >> DENOMINATOR_BITS).any()), f"DIVIDE: den of {int(den.max())}, 20 bits"
        )
        exponent, factor = golden.reciprocal(den & ((1 << DENOMINATOR_BITS) - 1))
    else:
        factor, exponent = _rsqrt(state, f, place)
    state.factor[place], state.exponent[place] = factor, exponent


def _rsqrt(state: State, f: dict[str, int], place: Int64) -> tuple[Int64, Int64]:
    s1 = np.zeros_like(place) if f["rms"] else state.f1[place]
    s2 = state.f2[place]
    n, eps = f["n"], f["eps"] & ((1 << 40) - 1)
    state.undefined(eps != f["eps"], f"eps = {f['eps']:#x}: 40 bits at most")
    state.undefined(not 1 <= n <= N_MAX, f"n = {n}: must be 1 to {N_MAX}")
    wide = (np.abs(s1) >> 28).any() or (s2 >> 43).any()
    state.undefined(wide, "RSQRT: S1 beyond 28 bits or S2 beyond 43")
    if wide or n > N_MAX:
        # Undefined; keep the arithmetic inside int64.
        s1, s2, n = s1 % (1 << 28), s2 % (1 << 43), n % N_MAX
    return golden.rsqrt_row(s1, s2, n, eps)
