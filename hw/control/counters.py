"""Cycle counters: what every unit did, and why it did nothing."""

from amaranth.hdl import Const, Module, Signal, Value
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.registers import COUNTERS

COUNTER_BITS = 40
NAMES = [(unit, reason) for unit, reasons in COUNTERS.items() for reason in reasons]


class Counters(Cell):
    """One counter a unit and reason; in each cycle of a run exactly one of a unit's counts.

    Attributes
    ----------
    run : this cycle belongs to the run
    clear : all to 0
    flags : a bit a counter, in the order of `tilewright.hw.registers.COUNTERS`; of a unit's bits
    the first
        one set counts, the last reason (idle) when none is
    cycles : of the run
    select, value : counter number, its value (combinational)
    """

    def __init__(self) -> None:
        self.cell_name = "tilewright_counters"
        super().__init__(
            {
                "run": In(1),
                "clear": In(1),
                "flags": In(len(NAMES)),
                "cycles": Out(COUNTER_BITS),
                "select": In(range(len(NAMES))),
                "value": Out(COUNTER_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cycles = Signal(COUNTER_BITS)
        m.d.comb += self.cycles.eq(cycles)
        with m.If(self.run):
            m.d.sync += cycles.eq(cycles + 1)
        with m.If(self.clear):
            m.d.sync += cycles.eq(0)
        counters: list[Signal] = []
        for unit, reasons in COUNTERS.items():
            earlier: Value = Const(0)
            for reason in reasons:
                counter = Signal(COUNTER_BITS, name=f"{unit}_{reason}")
                flag = Const(1) if reason == reasons[-1] else self.flags[len(counters)]
                counters.append(counter)
                with m.If(flag & ~earlier & self.run):
                    m.d.sync += counter.eq(counter + 1)
                with m.If(self.clear):
                    m.d.sync += counter.eq(0)
                earlier = earlier | flag
        with m.Switch(self.select):
            for number, counter in enumerate(counters):
                with m.Case(number):
                    m.d.comb += self.value.eq(counter)
        return m
