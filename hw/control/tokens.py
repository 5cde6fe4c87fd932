"""Token counters: the units' means of synchronisation."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hw.cells import Cell
from hw.commands import SEMAPHORES, TOKEN_MAX


class Semaphores(Cell):
    """SEMAPHORES counters that `units` units take from and post to, each one slot a cycle.

    Attributes
    ----------
    wait_semaphore, wait_count : 4 bits a unit, what it asks for
    wait_met : a bit a unit, that many are there
    take : a bit a unit, take them (only when met)
    post : a bit a unit; post_semaphore, post_count : 4 bits a unit
    overflow : a bit a unit, its post went beyond TOKEN_MAX
    clear : all counters to 0
    """

    def __init__(self, *, units: int) -> None:
        self.units = units
        self.cell_name = "tilewright_semaphores"
        super().__init__(
            {
                "wait_semaphore": In(4 * units),
                "wait_count": In(4 * units),
                "wait_met": Out(units),
                "take": In(units),
                "post": In(units),
                "post_semaphore": In(4 * units),
                "post_count": In(4 * units),
                "overflow": Out(units),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counters = [Signal(range(TOKEN_MAX + 1), name=f"tokens_{i}") for i in range(SEMAPHORES)]

        for unit in range(self.units):
            asked = Signal(range(TOKEN_MAX + 1), name=f"asked_{unit}")
            with m.Switch(self.wait_semaphore.word_select(unit, 4)):
                for number, counter in enumerate(counters):
                    with m.Case(number):
                        m.d.comb += asked.eq(counter)
            m.d.comb += self.wait_met[unit].eq(asked >= self.wait_count.word_select(unit, 4))

        for number, counter in enumerate(counters):
            posted: Value | int = 0
            taken: Value | int = 0
            posts = []
            for unit in range(self.units):
                hit = self.post[unit] & (self.post_semaphore.word_select(unit, 4) == number)
                posted = posted + Mux(hit, self.post_count.word_select(unit, 4), 0)
                posts.append(hit)
                hit = self.take[unit] & (self.wait_semaphore.word_select(unit, 4) == number)
                taken = taken + Mux(hit, self.wait_count.word_select(unit, 4), 0)
            total = Signal(10, name=f"total_{number}")
            m.d.comb += total.eq(counter + posted - taken)
            beyond = total > TOKEN_MAX
            m.d.sync += counter.eq(Mux(self.clear, 0, Mux(beyond, TOKEN_MAX, total)))
            for unit, hit in enumerate(posts):
                with m.If(hit & beyond):
                    m.d.comb += self.overflow[unit].eq(1)
        return m
