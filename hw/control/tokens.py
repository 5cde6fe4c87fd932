"""Token counters: the units' means of synchronisation."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from hw.cells import Cell
from hw.commands import SEMAPHORES, TOKEN_MAX


class Semaphores(Cell):
    """SEMAPHORES counters that `units` units take from and post to, each one slot a cycle.

    A semaphore has one waiting unit: of units that ask for the same one in a cycle, only one may
    take. A post is there for a wait two cycles later.

    Attributes
    ----------
    wait_semaphore, wait_count : 4 bits a unit, what it asks for; 0 while it asks for nothing
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

        # Whether a unit takes is known last in a cycle: what is left in either case is made before.
        overflow = Signal(self.units)
        m.d.sync += overflow.eq(0)
        m.d.comb += self.overflow.eq(overflow)
        for number, counter in enumerate(counters):
            sums: list[Value] = []
            posts, takes = [], []
            wanted: Value | int = 0
            for unit in range(self.units):
                hit = self.post[unit] & (self.post_semaphore.word_select(unit, 4) == number)
                sums.append(Mux(hit, self.post_count.word_select(unit, 4), 0))
                posts.append(hit)
                count = self.wait_count.word_select(unit, 4)
                asks = (self.wait_semaphore.word_select(unit, 4) == number) & count.any()
                wanted = wanted | Mux(asks, count, 0)
                takes.append(self.take[unit] & asks)
            while len(sums) > 1:
                sums = [sum(sums[i : i + 2][1:], sums[i]) for i in range(0, len(sums), 2)]
            posted = Signal(8, name=f"posted_{number}")
            posters = Signal(self.units, name=f"posters_{number}")
            m.d.sync += [
                posted.eq(Mux(self.clear, 0, sums[0])),
                posters.eq(Mux(self.clear, 0, Cat(posts))),
            ]
            taken = Cat(takes).any()
            nexts, beyonds = [], []
            for name, value in (
                ("kept", counter + posted),
                ("less", counter + posted - wanted),
            ):
                total = Signal(10, name=f"{name}_{number}")
                m.d.comb += total.eq(value)
                beyond = total > TOKEN_MAX
                nexts.append(Mux(beyond, TOKEN_MAX, total[: len(counter)]))
                beyonds.append(beyond)
            m.d.sync += counter.eq(Mux(self.clear, 0, Mux(taken, nexts[1], nexts[0])))
            with m.If(Mux(taken, beyonds[1], beyonds[0])):
                for unit in range(self.units):
                    with m.If(posters[unit]):
                        m.d.sync += overflow[unit].eq(1)
        return m
