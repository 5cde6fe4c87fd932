"""Cycle counters: what every unit did, and why it did nothing."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.registers import COUNTERS

COUNTER_BITS = 40
NAMES = [(unit, reason) for unit, reasons in COUNTERS.items() for reason in reasons]
CYCLES = len(NAMES)
"""Number of the counter of all cycles, behind those of the reasons."""
LOW_BITS = 6
"""Bits that a counter has in registers. They must not wrap twice between two visits, and what they
count from the clear to the first one must fit in all but the last."""


class Counters(Cell):
    """One counter a unit and reason, and one of all cycles of the run.

    In each cycle of a run exactly one of a unit's counts. The low bits of a counter count in
    registers of their own. The others stand in a memory beside the last low bit as it was: a
    counter after the other is visited, and one adder carries what has wrapped.

    Attributes
    ----------
    run : this cycle belongs to the run
    clear : all to 0
    flags : a bit a counter but the last, in the order of `tilewright.hw.registers.COUNTERS`; of a
        unit's bits the first one set counts, the last reason (idle) when none is
    select : number of a counter, held while `read` is high
    read : a snapshot of it is wanted
    there : pulse, `value` holds it from this cycle on; within 30 cycles
    value : the last snapshot
    """

    def __init__(self) -> None:
        self.cell_name = "tilewright_counters"
        super().__init__(
            {
                "run": In(1),
                "clear": In(1),
                "flags": In(len(NAMES)),
                "select": In(range(CYCLES + 1)),
                "read": In(1),
                "there": Out(1),
                "value": Out(COUNTER_BITS),
            }
        )

    def _low_bits(self, m: Module) -> list[Signal]:
        """The counters' low bits, which count every cycle."""
        events: list[Value] = []
        for reasons in COUNTERS.values():
            earlier: Value = Const(0)
            for reason in reasons:
                flag = Const(1) if reason == reasons[-1] else self.flags[len(events)]
                events.append(flag & ~earlier)
                earlier = earlier | flag
        low = []
        for (unit, reason), event in zip([*NAMES, ("all", "cycles")], [*events, 1], strict=True):
            count = Signal(LOW_BITS, name=f"{unit}_{reason}")
            with m.If(event & self.run):
                m.d.sync += count.eq(count + 1)
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            low.append(count)
        return low

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = CYCLES + 1
        assert count + 2 < 1 << LOW_BITS - 1
        low = self._low_bits(m)

        # A visit takes three cycles: read, add, write.
        number = Signal(range(count))
        clearing = Signal(init=1)  # until all have been visited: the memory has no reset
        last = number == count - 1
        m.d.sync += number.eq(Mux(last | self.clear, 0, number + 1))
        with m.If(self.clear):
            m.d.sync += clearing.eq(1)
        with m.Elif(last):
            m.d.sync += clearing.eq(0)

        # No visit meets another of the same counter, so what a read beside a write gives is never
        # looked at.
        high_bits = COUNTER_BITS - LOW_BITS
        m.submodules.memory = memory = Memory(
            shape=high_bits + 1, depth=count, init=[], attrs={"no_rw_check": 1}
        )
        read, write = memory.read_port(), memory.write_port()
        number1, number2 = Signal.like(number), Signal.like(number)
        clears = Signal()
        low1 = Signal(LOW_BITS, reset_less=True)
        low2 = Signal(LOW_BITS, reset_less=True)
        high2 = Signal(high_bits)
        before = read.data[-1]
        m.d.comb += [
            read.addr.eq(number),
            read.en.eq(1),
            write.addr.eq(number2),
            write.data.eq(Cat(high2, low2[-1])),
            write.en.eq(1),
        ]
        m.d.sync += [
            number1.eq(number),
            number2.eq(number1),
            clears.eq(clearing),
            low1.eq(Array(low)[number]),
            low2.eq(low1),
            high2.eq(read.data[:-1] + (before & ~low1[-1])),
        ]
        with m.If(clears):
            m.d.sync += high2.eq(0)

        # A snapshot: not of a visit that began before it was asked for.
        asked = Signal(3)
        value = Signal(COUNTER_BITS, reset_less=True)
        there, taken = Signal(), Signal()
        m.d.comb += [
            taken.eq(asked[-1] & (number2 == self.select)),
            self.there.eq(there),
            self.value.eq(value),
        ]
        m.d.sync += [there.eq(taken), asked.eq(Mux(taken | ~self.read, 0, Cat(1, asked)))]
        with m.If(taken):
            m.d.sync += value.eq(Cat(low2, high2))
        return m
