"""The row engine: the division or reciprocal square root of one row, bit by bit."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.memories.row_table import EXPONENT_BITS, F1_BITS, F2_BITS, FACTOR_BITS
from tilewright.hw.tables import RSQRT, RSQRT_FIRST, RSQRT_LG

DEN_BITS = 20
V_BITS = 60
N_BITS = 13
EPS_BITS = 40
S1_BITS = 29


def bit_length(m: Module, value: Value, name: str) -> Signal:
    """Position of the highest one, plus one; 0 for 0."""
    result = Signal(range(len(value) + 1), name=name)
    for index in range(len(value)):
        with m.If(value[index]):
            m.d.comb += result.eq(index + 1)
    return result


class RowEngine(Cell):
    """DIVIDE or RSQRT of one row.

    DIVIDE: `n = bitlen(den)`, `R = floor(2^(n+15) / den)` by restoring division of the normalised
    denominator, 17 quotient bits, 20 cycles. RSQRT: `V = max(N·S2 − S1² + eps, 1)` by shift and
    add, then `p = V·2^(16−2k)` by shifts of two, then the table; 80 cycles at most.

    Attributes
    ----------
    start : the statistics are there; only while `idle`
    rsqrt, n, eps, rms : the command's, stable until `done`
    f1, f2 : statistics of the row
    idle, done : `factor` and `exponent` are there until `take`
    """

    cell_name = "tilewright_row_engine"

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "rsqrt": In(1),
                "n": In(N_BITS),
                "eps": In(EPS_BITS),
                "rms": In(1),
                "f1": In(F1_BITS),
                "f2": In(F2_BITS),
                "idle": Out(1),
                "done": Out(1),
                "take": In(1),
                "factor": Out(FACTOR_BITS),
                "exponent": Out(EXPONENT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(5)

        # Shared by both.
        value = Signal(V_BITS, reset_less=True)
        addend = Signal(V_BITS, reset_less=True)
        bits = Signal(S1_BITS, reset_less=True)  # multiplier, lowest bit first
        factor = Signal(FACTOR_BITS, reset_less=True)
        exponent = Signal(EXPONENT_BITS, reset_less=True)
        m.d.comb += [self.factor.eq(factor), self.exponent.eq(exponent)]

        # DIVIDE: remainder and normalised denominator.
        den = value[:DEN_BITS]
        den_length = bit_length(m, den, "den_length")
        denominator = Signal(DEN_BITS, reset_less=True)
        remainder = Signal(DEN_BITS + 1, reset_less=True)
        difference = Signal(DEN_BITS + 2)
        m.d.comb += difference.eq(remainder - denominator)
        fits = ~difference[-1]

        # RSQRT: table on p = value's top 18 bits once a one stands in its top two.
        s1 = self.f1.as_signed()
        magnitude1 = Signal(F1_BITS + 1, reset_less=True)
        top = value[V_BITS - 4 - 18 : V_BITS - 4]
        words = [
            (here & 0x1FFFF) | ((there - here) & 0x7FF) << 17
            for here, there in zip(RSQRT[:-1].tolist(), RSQRT[1:].tolist(), strict=True)
        ]
        m.submodules.rom = rom = Memory(shape=28, depth=len(words), init=words)
        port = rom.read_port()
        m.d.comb += [
            port.en.eq(1),
            port.addr.eq(top[RSQRT_LG:] - RSQRT_FIRST),
        ]
        table_value = port.data[:17]
        table_slope = port.data[17:].as_signed()
        low = Signal(RSQRT_LG, reset_less=True)
        product = Signal(22, reset_less=True)

        with m.FSM(name="engine_fsm") as fsm:
            m.d.comb += [self.idle.eq(fsm.ongoing("IDLE")), self.done.eq(fsm.ongoing("DONE"))]

            with m.State("IDLE"):
                m.d.sync += [
                    count.eq(0),
                    factor.eq(0),
                    value.eq(Mux(self.rsqrt, self.eps, self.f2)),
                    addend.eq(self.f2),
                    bits.eq(self.n),
                    magnitude1.eq(Mux(self.rms, 0, Mux(s1 < 0, -s1, s1))),
                ]
                with m.If(self.start):
                    with m.If(self.rsqrt):
                        m.next = "SCALE"
                    with m.Else():
                        m.next = "LENGTH"

            with m.State("LENGTH"):
                m.d.sync += exponent.eq(den_length)
                m.next = "ALIGN"
                with m.If(den == 0):
                    m.next = "DONE"
            with m.State("ALIGN"):
                m.d.sync += [
                    denominator.eq(den << (DEN_BITS - exponent).as_unsigned()[:5]),
                    remainder.eq(1 << (DEN_BITS - 1)),
                ]
                m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.sync += [
                    factor.eq(Cat(fits, factor)),
                    remainder.eq(Mux(fits, difference, remainder) << 1),
                    count.eq(count + 1),
                ]
                with m.If(count == FACTOR_BITS - 1):
                    m.next = "DONE"

            with m.State("SCALE"):
                with m.If(bits[0]):
                    m.d.sync += value.eq(value + addend)
                m.d.sync += [addend.eq(addend << 1), bits.eq(bits >> 1)]
                with m.If(bits[1:] == 0):
                    m.d.sync += [addend.eq(magnitude1), bits.eq(magnitude1)]
                    m.next = "SQUARE"
            with m.State("SQUARE"):
                with m.If(bits[0]):
                    m.d.sync += value.eq(value - addend)
                m.d.sync += [addend.eq(addend << 1), bits.eq(bits >> 1)]
                with m.If(bits[1:] == 0):
                    m.next = "CLAMP"
            with m.State("CLAMP"):
                # V below 2^56 stands in bits 55 … 0; k counts down from 27 while shifts of two
                # bring its leading one into bits 55, 54. What is 0 there would do so for ever.
                m.d.sync += exponent.eq(27)
                with m.If(value[-1] | ~value[: V_BITS - 4].any()):
                    m.d.sync += value.eq(1)
                m.next = "NORMALISE"
            with m.State("NORMALISE"):
                with m.If(value[V_BITS - 6 : V_BITS - 4].any()):
                    m.d.sync += low.eq(top[:RSQRT_LG])
                    m.next = "INTERPOLATE"
                with m.Elif(~value[V_BITS - 14 : V_BITS - 4].any()):
                    m.d.sync += [value.eq(value << 8), exponent.eq(exponent - 4)]
                with m.Else():
                    m.d.sync += [value.eq(value << 2), exponent.eq(exponent - 1)]
            with m.State("INTERPOLATE"):
                m.d.sync += product.eq(table_slope * low)
                m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += factor.eq(
                    table_value + ((product.as_signed() + (1 << (RSQRT_LG - 1))) >> RSQRT_LG)
                )
                m.next = "DONE"

            with m.State("DONE"):
                with m.If(self.take):
                    m.next = "IDLE"
        return m
