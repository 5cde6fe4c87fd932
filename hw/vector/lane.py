"""One lane of the vector data-flow unit.

A straight pipeline without enables: what enters at stage 0 leaves LANE_LATENCY cycles later. The
command's switches are static while it runs (the unit drains between commands), row values arrive
at the stage that uses them, and channel parameters come down the operand path as items of their
own, picked up by the stage that uses them, so that groups follow each other without double
buffering.
"""

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import SYM16_MAX, Function, Mul, Post, Pre, Source
from tilewright.hw.commands import Out as OutFormat
from tilewright.hw.memories.row_table import F1_BITS, FACTOR_BITS
from tilewright.hw.tables import ACTIVATIONS, EXP2, EXP2_FRACTION_BITS, EXP2_LG

# Stage at which a row's or a command's value is used (the input is visible in that cycle).
STAGE_PRE = 1
STAGE_F1 = 3
STAGE_MULTIPLIER = 4
STAGE_SHIFT = 5
STAGE_BIAS = 9
STAGE_CHANNEL = 15
STAGE_AFFINE = 18
STAGE_MASK = 22
LANE_LATENCY = 23
"""Cycles from the operands to the output."""

V_BITS = 44
A_BITS = 45
BASE_BITS = 46
MAXIMUM_BITS = 44
PIECE = 17
"""Bits of an operand that a DSP's multiplier takes, and one for the sign."""
ROM_VALUE = 18
ROM_SLOPE = 13


def rsh_parts(value: Value, shift: Value) -> Value:
    """Shift for RSH with the rounding bit kept as bit 0: RSH = (parts >> 1) + parts[0]."""
    return (value << 1) >> shift


def saturate(value: Value, bits: int) -> Value:
    """Clip a signed value to `bits` bits."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    top = value[bits - 1 :]
    fits = top.all() | ~top.any()
    return Mux(fits, value[:bits].as_signed(), Mux(value[-1], low, high))


def function_rom(functions: tuple[str, ...]) -> tuple[list[int], dict[str, int]]:
    """Return the lane's ROM (value | slope << ROM_VALUE a segment) and each table's base."""
    words: list[int] = []
    bases: dict[str, int] = {}
    for name, table in [("exp2", EXP2)] + [(f, ACTIVATIONS[f].values) for f in functions]:
        bases[name] = len(words)
        for here, there in zip(table[:-1].tolist(), table[1:].tolist(), strict=True):
            value = here & ((1 << ROM_VALUE) - 1)
            slope = (there - here) & ((1 << ROM_SLOPE) - 1)
            words.append(value | slope << ROM_VALUE)
    return words, bases


class Lane(Cell):
    """Requantize, residual, softmax, table function, LayerNorm on one element a cycle.

    See `docs/architecture.md`, VECTOR, for the formula.

    Attributes
    ----------
    acc : s32, accumulator (stage 0); take_acc : it is there; more : it follows a higher part
    operand : s16, scratchpad element or channel parameter (stage 0)
    pre_multiplier : u16, F[m] or N (stage 1)
    f1 : row maximum or S1 (stage 3)
    row_multiplier : u17, imm or the row factor (stage 4)
    row_shift : 6 bits, shift of IMMEDIATE and ROW, or what CHANNEL takes off sh[c] (stage 5)
    take_multiplier, take_shift, take_bias_low, take_bias_high, take_channel : the operand of this
        stage is that parameter (stages 4, 5, 9 or, with AFFINE, 18, 15)
    source, pre, mul, bias, function, post, out, shift1, shift2 : the command's
    keep : 1 valid column, 0 written as zero (stage 22)
    result : s17, the output as it counts in statistics (stage 23)
    maximum : s44, base, for the row maximum (stage 23)
    """

    def __init__(self, *, functions: tuple[str, ...]) -> None:
        self.functions = functions
        self.cell_name = "tilewright_lane"
        super().__init__(
            {
                "acc": In(signed(32)),
                "take_acc": In(1),
                "more": In(1),
                "operand": In(signed(16)),
                "pre_multiplier": In(16),
                "f1": In(signed(F1_BITS)),
                "row_multiplier": In(FACTOR_BITS),
                "row_shift": In(6),
                "take_multiplier": In(1),
                "take_shift": In(1),
                "take_bias_low": In(1),
                "take_bias_high": In(1),
                "take_channel": In(1),
                "source": In(1),
                "pre": In(3),
                "mul": In(2),
                "bias": In(1),
                "function": In(3),
                "post": In(2),
                "out": In(3),
                "shift1": In(6),
                "shift2": In(6),
                "keep": In(1),
                "result": Out(signed(17)),
                "maximum": Out(signed(MAXIMUM_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def register(name: str, shape: Shape | int, value: Value) -> Signal:
            signal = Signal(shape, name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        def delay(name: str, value: Value, first: int, last: int) -> dict[int, Value]:
            """The value as it is seen at stages first … last."""
            stages = {first: value}
            for stage in range(first + 1, last + 1):
                stages[stage] = register(f"{name}_{stage}", value.shape(), stages[stage - 1])
            return stages

        def product(stage: int, a: Value, b: Value) -> Signal:
            """Signed a × unsigned b of up to PIECE bits, two cycles later, which is at `stage`."""
            pieces = []
            for low in range(0, len(a), PIECE):
                top = low + PIECE >= len(a)
                piece = a[low:].as_signed() if top else a[low : low + PIECE]
                pieces.append(register(f"product{stage - 1}_{low}", 2 * PIECE, piece * b))
            # Of every other piece the product begins where that of the one before it ends.
            even, odd = Cat(pieces[::2]), Cat(pieces[1::2])
            return register(f"product{stage}", signed(len(a) + len(b)), even + (odd << PIECE))

        operand = delay("operand", self.operand, 0, STAGE_AFFINE)

        # Channel parameters.
        multiplier = Signal(16, reset_less=True)
        channel_shift = Signal(6, reset_less=True)
        bias_word = Signal(signed(32), reset_less=True)
        channel = Signal(16, reset_less=True)
        affine = self.post == Post.AFFINE
        bias_operand = Mux(affine, operand[STAGE_AFFINE], operand[STAGE_BIAS])
        with m.If(self.take_multiplier):
            m.d.sync += multiplier.eq(operand[STAGE_MULTIPLIER])
        with m.If(self.take_shift):
            m.d.sync += channel_shift.eq(operand[STAGE_SHIFT])
        with m.If(self.take_bias_low):
            m.d.sync += bias_word[:16].eq(bias_operand)
        with m.If(self.take_bias_high):
            m.d.sync += bias_word[16:].eq(bias_operand)
        with m.If(self.take_channel):
            m.d.sync += channel.eq(operand[STAGE_CHANNEL])

        # 0 … 3: source, first multiplier, a.
        v1 = Signal(signed(V_BITS), reset_less=True)
        with m.If(self.source == Source.SP):
            m.d.sync += v1.eq(operand[0])
        with m.Elif(self.take_acc):
            m.d.sync += v1.eq(Mux(self.more, v1 << 8, 0) + self.acc)
        # Row scales and centering are for one part.
        product3 = product(3, v1[:32], self.pre_multiplier)
        v2 = register("v2", signed(V_BITS), v1)
        v3 = register("v3", signed(V_BITS), v2)
        a = Signal(signed(A_BITS))
        with m.Switch(self.pre):
            with m.Case(Pre.ROW_SCALE):
                m.d.comb += a.eq((product3 + 64) >> 7)
            with m.Case(Pre.MAX_MINUS, Pre.TOP_MINUS):
                m.d.comb += a.eq(self.f1 - v3)
            with m.Case(Pre.CENTER):
                m.d.comb += a.eq(product3 - self.f1)
            with m.Default():
                m.d.comb += a.eq(v3)
        a4 = register("a4", signed(A_BITS), a)

        # 4 … 8: the wide multiplier, RSH, SAT32.
        factor = Signal(FACTOR_BITS)
        with m.Switch(self.mul):
            with m.Case(Mul.NONE):
                m.d.comb += factor.eq(1)
            with m.Case(Mul.CHANNEL):
                m.d.comb += factor.eq(multiplier)
            with m.Default():
                m.d.comb += factor.eq(self.row_multiplier)
        wide = A_BITS + FACTOR_BITS
        product6 = product(6, a4, factor)
        shift = Signal(6)
        with m.Switch(self.mul):
            with m.Case(Mul.NONE):
                m.d.comb += shift.eq(0)
            with m.Case(Mul.CHANNEL):
                m.d.comb += shift.eq(channel_shift - self.row_shift)
            with m.Default():
                m.d.comb += shift.eq(self.row_shift)
        shift6 = register("shift6", 6, shift)
        coarse7 = register("coarse7", signed(wide + 1), rsh_parts(product6, shift6 & 0x38))
        shift7 = register("shift7", 3, shift6[:3])
        fine8 = register("fine8", signed(wide + 1), coarse7 >> shift7)
        rounded8 = Signal(signed(wide + 1))
        m.d.comb += rounded8.eq((fine8 >> 1) + fine8[0])
        t9 = register(
            "t9",
            signed(A_BITS),
            Mux(self.mul == Mul.NONE, rounded8[:A_BITS].as_signed(), saturate(rounded8, 32)),
        )

        # 9, 10: base and w.
        base = delay(
            "base",
            register("base_10", signed(BASE_BITS), t9 + Mux(self.bias, bias_word, 0)),
            10,
            STAGE_MASK,
        )
        rounded10 = Signal(signed(BASE_BITS))
        m.d.comb += rounded10.eq(Mux(self.bias, (base[10] + 128) >> 8, base[10]))
        w = delay("w", register("w_11", signed(16), saturate(rounded10, 16)), 11, 14)
        # u of EXP2: octave (32 and more give 0, as a negative u does) and fraction.
        fraction_bits = EXP2_FRACTION_BITS
        octaves10 = base[10][fraction_bits:]
        u11 = register("u_11", fraction_bits, base[10][:fraction_bits])
        octave = delay(
            "octave",
            register("octave_11", 5, octaves10[:5]),
            11,
            14,
        )
        beyond = delay("beyond", register("beyond_11", 1, octaves10[5:].any()), 11, 14)

        # 11 … 14: table function.
        words, bases = function_rom(self.functions)
        m.submodules.rom = rom = Memory(shape=ROM_VALUE + ROM_SLOPE, depth=len(words), init=words)
        port = rom.read_port()
        address = Signal(range(len(words)))
        low = Signal(7)
        below, above = Signal(), Signal()
        below_value, above_value = Signal(signed(16)), Signal(signed(16))
        above_is_w = Signal()
        m.d.comb += port.en.eq(1)
        with m.Switch(self.function):
            with m.Case(Function.EXP2):
                m.d.comb += [
                    address.eq(bases["exp2"] + u11[EXP2_LG:]),
                    low.eq(u11[:EXP2_LG]),
                ]
            for name in self.functions:
                table = ACTIVATIONS[name]
                shifted = Signal(signed(18), name=f"shifted_{name}")
                m.d.comb += shifted.eq(w[11] - table.lo)
                with m.Case(Function[name.upper()]):
                    m.d.comb += [
                        address.eq(
                            bases[name] + shifted[table.lg :][: (table.segments - 1).bit_length()]
                        ),
                        low.eq(shifted[: table.lg]),
                        below.eq(w[11] < table.lo),
                        above.eq(w[11] >= table.hi),
                        below_value.eq(table.below),
                        above_value.eq(table.above or 0),
                        above_is_w.eq(table.above is None),
                    ]
        m.d.comb += port.addr.eq(address)
        exp2 = self.function == Function.EXP2
        value12 = Signal(signed(ROM_VALUE))
        slope12 = Signal(signed(ROM_SLOPE))
        m.d.comb += Cat(value12, slope12).eq(port.data)
        low12 = register("low12", 7, low)
        product13 = register("product13", signed(ROM_SLOPE + 8), slope12 * low12)
        value13 = register("value13", signed(ROM_VALUE), value12)
        lg4 = (product13 + 8) >> EXP2_LG
        lg7 = (product13 + 64) >> 7
        value14 = register("value14", signed(ROM_VALUE + 1), value13 + Mux(exp2, lg4, lg7))
        flags = [below, above, above_is_w]
        for stage in (12, 13, 14):
            flags = [
                register(f"{name}_{stage}", 1, flag)
                for name, flag in zip(("below", "above", "above_is_w"), flags, strict=True)
            ]
        below14, above14, above_is_w14 = flags
        decayed = Signal(ROM_VALUE + 1)
        e8 = Signal(9)
        m.d.comb += [
            decayed.eq(value14[:ROM_VALUE] >> octave[14]),
            e8.eq(Mux(beyond[14], 0, (decayed + 128) >> 8)),
        ]
        g14 = Signal(signed(16))
        with m.If(exp2):
            m.d.comb += g14.eq(Mux(e8[8], 255, e8[:8]))
        with m.Elif((self.function == Function.NONE) | (above14 & above_is_w14)):
            m.d.comb += g14.eq(w[14])
        with m.Elif(above14):
            m.d.comb += g14.eq(above_value)
        with m.Elif(below14):
            m.d.comb += g14.eq(below_value)
        with m.Else():
            m.d.comb += g14.eq(value14)
        g = delay("g", register("g_15", signed(16), g14), 15, 20)

        # 15 … 21: the channel's multiplier, residual, affine, smoothing.
        residual = self.post == Post.RESIDUAL
        signed_channel = Mux(affine, channel.as_signed(), channel)
        factor15 = Signal(signed(17))
        m.d.comb += factor15.eq(signed_channel)
        product16 = register(
            "product16",
            signed(33),
            Mux(residual, operand[STAGE_CHANNEL], g[15]) * factor15,
        )
        product17 = register("product17", signed(33), product16)
        shift17 = Mux(residual, self.shift1, 0)
        parts18 = register("parts18", signed(34), rsh_parts(product17, shift17))
        addend = Signal(signed(BASE_BITS))
        with m.If(residual):
            m.d.comb += addend.eq(base[18])
        with m.Elif(affine):
            m.d.comb += addend.eq(bias_word)
        sum_bits = BASE_BITS + 2
        sum19 = register("sum19", signed(sum_bits), addend + (parts18 >> 1) + parts18[0])
        parts20 = register("parts20", signed(sum_bits + 1), rsh_parts(sum19, self.shift2))
        # What is written is chosen before the last stage: saturation fills that one.
        y = register(
            "y21",
            signed(sum_bits),
            Mux(self.post == Post.NONE, g[20], (parts20 >> 1) + parts20[0]),
        )
        out22 = Signal(signed(17), reset_less=True)
        over, under = Signal(), Signal()
        m.d.comb += [over.eq(y > SYM16_MAX), under.eq(y < -SYM16_MAX)]

        def symmetric(value: Value, bits: int) -> Value:
            """The value where y is in range; of the bounds ±0x7F7F both bytes are ±127."""
            bound = SYM16_MAX & ((1 << (bits - 1)) - 1)
            return Mux(over, bound, Mux(under, -bound, value[:bits].as_signed()))

        with m.Switch(self.out):
            with m.Case(OutFormat.S8):
                m.d.sync += out22.eq(saturate(y, 8))
            with m.Case(OutFormat.U8):
                m.d.sync += out22.eq(Mux(y < 0, 0, Mux(y[8:].any(), 255, y[:8])))
            with m.Case(OutFormat.SYM16):
                m.d.sync += out22.eq(symmetric(y, 16))
            with m.Case(OutFormat.HIGH):
                m.d.sync += out22.eq(symmetric((y[:16].as_signed() + 128) >> 8, 8))
            with m.Case(OutFormat.LOW):
                m.d.sync += out22.eq(symmetric(y, 8))
            with m.Case(OutFormat.WRAP16):
                m.d.sync += out22.eq(base[21][:16].as_signed())
            with m.Default():
                m.d.sync += out22.eq(saturate(y, 16))
        m.d.comb += [
            self.result.eq(register("out23", signed(17), Mux(self.keep, out22, 0))),
            self.maximum.eq(register("base_23", signed(MAXIMUM_BITS), base[STAGE_MASK])),
        ]
        return m
