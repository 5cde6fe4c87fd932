"""The activation feeder: rows of a panel become s9 activations."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.commands import XMode
from tilewright.hw.config import Config

FEEDER_LATENCY = 4
"""Cycles from a word to its activations."""


class FeederLane(Cell):
    """One activation: `SAT8(RSH(x·m, e + 2))`, a byte as it is, or a balanced byte of x.

    Balanced bytes: x = 256·h + l, h = (x + 128) >> 8, l = ((x + 128) mod 256) − 128; h of
    x >= 32640 is 128, which the s9 port carries. Latency 4: select, multiply, shift, saturate.

    Attributes
    ----------
    x : s16, the element in modes SCALED, HIGH, LOW
    byte : 8, the element in modes S8, U8
    mode : XMode, with x and byte
    m : 2, row mantissa − 4, one cycle behind x
    e : 4, row exponent, two cycles behind x
    a : s9
    """

    cell_name = "tilewright_feeder_lane"

    def __init__(self) -> None:
        super().__init__(
            {
                "x": In(signed(16)),
                "byte": In(8),
                "mode": In(3),
                "m": In(2),
                "e": In(4),
                "a": Out(signed(9)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x1 = Signal(signed(16), reset_less=True)
        scaled1 = Signal(reset_less=True)
        with m.Switch(self.mode):
            with m.Case(XMode.S8):
                m.d.sync += x1.eq(self.byte.as_signed())
            with m.Case(XMode.U8):
                m.d.sync += x1.eq(self.byte)
            with m.Case(XMode.HIGH):
                m.d.sync += x1.eq((self.x + 128) >> 8)
            with m.Case(XMode.LOW):
                m.d.sync += x1.eq(self.x[:8].as_signed())
            with m.Default():
                m.d.sync += x1.eq(self.x)
        m.d.sync += scaled1.eq(self.mode == XMode.SCALED)
        # Unscaled values pass the multiplier as they are; the shift is by 0.
        product2 = Signal(signed(19), reset_less=True)
        scaled2 = Signal(reset_less=True)
        m.d.sync += [
            product2.eq(
                (x1 << 2) + Mux(self.m[1], x1 << 1, 0) + Mux(self.m[0], x1, 0),
            ),
            scaled2.eq(scaled1),
        ]
        with m.If(~scaled1):
            m.d.sync += product2.eq(x1)
        shifted3 = Signal(signed(19), reset_less=True)
        scaled3 = Signal(reset_less=True)
        shift = Signal(4)
        m.d.comb += shift.eq(Mux(scaled2, self.e + 2, 0))
        twice = Signal(signed(20))
        m.d.comb += twice.eq((product2 << 1) >> shift)
        m.d.sync += [shifted3.eq((twice >> 1) + twice[0]), scaled3.eq(scaled2)]
        a4 = Signal(signed(9), reset_less=True)
        with m.If(scaled3 & (shifted3 > 127)):
            m.d.sync += a4.eq(127)
        with m.Elif(scaled3 & (shifted3 < -128)):
            m.d.sync += a4.eq(-128)
        with m.Else():
            m.d.sync += a4.eq(shifted3)
        m.d.comb += self.a.eq(a4)
        return m


class Feeder(Cell):
    """R lanes behind the panel's lane selection.

    Attributes
    ----------
    word : scratchpad word
    sub : which R of the panel's W lanes
    half : which half-word in modes S8, U8
    mode : XMode
    m, e : the row's scale, one cycle behind the word (delayed further here)
    a : R × s9
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_feeder"
        self.lane = FeederLane()
        self.subs = config.panel // config.rows
        super().__init__(
            {
                "word": In(8 * config.word_bytes),
                "sub": In(max(1, (self.subs - 1).bit_length())),
                "half": In(1),
                "mode": In(3),
                "m": In(2),
                "e": In(4),
                "a": Out(9 * config.rows),
            }
        )

    def cells(self) -> list[Cell]:
        return [self.lane]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, panel = self.config.rows, self.config.panel
        e = Signal(4, reset_less=True)
        m.d.sync += e.eq(self.e)
        halves = Signal(16 * rows)
        bytes_ = Signal(8 * rows)
        m.d.comb += [
            halves.eq(self.word.word_select(self.sub, 16 * rows)),
            bytes_.eq(
                Mux(self.half, self.word[8 * panel :], self.word[: 8 * panel]).word_select(
                    self.sub, 8 * rows
                )
            ),
        ]
        lanes = []
        for row in range(rows):
            a = Signal(signed(9), name=f"a_{row}")
            place(
                m,
                f"lane_{row}",
                self.lane,
                x=halves.word_select(row, 16),
                byte=bytes_.word_select(row, 8),
                mode=self.mode,
                m=self.m,
                e=e,
                a=a,
            )
            lanes.append(a)
        m.d.comb += self.a.eq(Cat(lanes))
        return m
