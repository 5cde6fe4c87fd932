"""Token counters: the units' means of synchronisation."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import SEMAPHORES, TOKEN_MAX


class Semaphores(Cell):
    """SEMAPHORES counters that `units` units take from and post to, each one slot a cycle.

    A semaphore has one waiting unit, which does not ask for it again in the cycle after a take.
    A post is there for a wait two cycles later.

    Attributes
    ----------
    wait_semaphore, wait_count : 4 bits a unit, what it asks for
    wait_met : a bit a unit, that many are there
    take : a bit a unit, take them (only when met)
    post : a bit a unit; post_semaphore, post_count : 4 bits a unit
    overflow : a bit a unit, its post went beyond TOKEN_MAX, two cycles later
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

        # Takes and posts reach the counters a cycle late: who takes is known last in a cycle.
        take = Signal(self.units)
        take_semaphore = Signal(4 * self.units, reset_less=True)
        take_count = Signal(4 * self.units, reset_less=True)
        overflow = Signal(self.units)
        m.d.sync += [
            take.eq(Mux(self.clear, 0, self.take)),
            take_semaphore.eq(self.wait_semaphore),
            take_count.eq(self.wait_count),
            overflow.eq(0),
        ]
        m.d.comb += self.overflow.eq(overflow)
        for number, counter in enumerate(counters):
            sums: list[Value] = []
            posts: list[Value] = []
            taken: Value | int = 0
            for unit in range(self.units):
                hit = self.post[unit] & (self.post_semaphore.word_select(unit, 4) == number)
                sums.append(Mux(hit, self.post_count.word_select(unit, 4), 0))
                posts.append(hit)
                hit = take[unit] & (take_semaphore.word_select(unit, 4) == number)
                taken = taken | Mux(hit, take_count.word_select(unit, 4), 0)
            while len(sums) > 1:
                sums = [sum(sums[i : i + 2][1:], sums[i]) for i in range(0, len(sums), 2)]
            posted = Signal(8, name=f"posted_{number}")
            posters = Signal(self.units, name=f"posters_{number}")
            m.d.sync += [
                posted.eq(Mux(self.clear, 0, sums[0])),
                posters.eq(Mux(self.clear, 0, Cat(posts))),
            ]
            total = Signal(10, name=f"total_{number}")
            m.d.comb += total.eq(counter + posted - taken)
            beyond = total > TOKEN_MAX
            m.d.sync += counter.eq(Mux(self.clear, 0, Mux(beyond, TOKEN_MAX, total)))
            for unit in range(self.units):
                with m.If(posters[unit] & beyond):
                    m.d.sync += overflow[unit].eq(1)
        return m
