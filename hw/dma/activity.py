"""What an engine does, cycle by cycle."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.dma.records import Activity


class ActivityMonitor(wiring.Component):
    """Counts the transfers within an engine and names what it does.

    Parameters
    ----------
    limit : int
        Most transfers within the engine.

    Attributes
    ----------
    start, done : u1
        A transfer enters, leaves.
    moved : u1
        A beat moved.
    blocked : u1
        The engine waits for the scratchpad port.
    o : Activity
        Of the cycle before.
    """

    start: Signal
    done: Signal
    moved: Signal
    blocked: Signal
    o: Any

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            {"start": In(1), "done": In(1), "moved": In(1), "blocked": In(1), "o": Out(Activity())}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(range(self.limit + 1))
        o = Signal(Activity(), name="activity")
        with m.If(self.start & ~self.done):
            m.d.sync += count.eq(count + 1)
        with m.Elif(self.done & ~self.start):
            m.d.sync += count.eq(count - 1)
        some = Signal()
        m.d.comb += some.eq(count != 0)
        m.d.sync += [
            o.busy.eq(some & self.moved),
            o.wait_port.eq(some & ~self.moved & self.blocked),
            o.wait_memory.eq(some & ~self.moved & ~self.blocked),
        ]
        m.d.comb += self.o.eq(o)
        return m
