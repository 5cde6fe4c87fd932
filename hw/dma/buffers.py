"""Stream buffers of the DMA: a skid buffer and a FIFO of distributed memory."""

from typing import Any

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class Skid(wiring.Component):
    """Two places, so that neither `valid` nor `ready` passes through: both are flip-flops.

    Latency one cycle, one payload a cycle.

    Attributes
    ----------
    i, o : streams of `shape`
    """

    i: Any
    o: Any

    def __init__(self, shape: Any) -> None:
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = Shape.cast(self.shape).width
        valid = Signal()
        payload = Signal(width, reset_less=True)
        spare_valid = Signal()
        spare = Signal(width, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(~spare_valid),
            self.o.valid.eq(valid),
            self.o.payload.eq(payload),
        ]
        # The spare place follows the input, whether it is needed or not: no enable from `o.ready`.
        with m.If(~spare_valid):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(~valid | self.o.ready):
            m.d.sync += valid.eq(self.i.valid | spare_valid)
            m.d.sync += spare_valid.eq(0)
            with m.If(spare_valid):
                m.d.sync += payload.eq(spare)
            with m.Else():
                m.d.sync += payload.eq(self.i.payload)
        with m.Elif(self.i.valid):
            m.d.sync += spare_valid.eq(1)
        return m


class Fifo(wiring.Component):
    """A FIFO of distributed memory with a register behind it.

    `i.ready` and `o.valid` are functions of flip-flops alone. Latency two cycles when empty; one
    payload a cycle. Holds `depth` payloads and one more in the output register.

    Parameters
    ----------
    shape : ShapeLike
    depth : int
        Made 2 if less.

    Attributes
    ----------
    i, o : streams of `shape`
    some : u1
        It holds something.
    """

    i: Any
    o: Any
    some: Signal

    def __init__(self, shape: Any, depth: int) -> None:
        self.shape = shape
        self.depth = max(depth, 2)
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "some": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = Shape.cast(self.shape).width
        # Else Yosys makes a deep one and its register a block RAM, whose output is slow.
        m.submodules.memory = memory = Memory(
            shape=width, depth=self.depth, init=[], attrs={"ram_style": "distributed"}
        )
        write, read = memory.write_port(), memory.read_port(domain="comb")
        level = Signal(range(self.depth + 1))
        full = Signal()
        stored = Signal()
        head, tail = Signal(range(self.depth)), Signal(range(self.depth))
        valid = Signal()
        output = Signal(width, reset_less=True)
        push, pop = Signal(), Signal()

        def step(pointer: Signal) -> Any:
            if self.depth & (self.depth - 1) == 0:
                return pointer.eq(pointer + 1)
            with m.If(pointer == self.depth - 1):
                m.d.sync += pointer.eq(0)
            with m.Else():
                m.d.sync += pointer.eq(pointer + 1)
            return []

        m.d.comb += [
            self.i.ready.eq(~full),
            push.eq(self.i.valid & ~full),
            pop.eq(stored & (~valid | self.o.ready)),
            write.addr.eq(tail),
            write.data.eq(self.i.payload),
            write.en.eq(push),
            read.addr.eq(head),
            self.o.valid.eq(valid),
            self.o.payload.eq(output),
            self.some.eq(stored | valid),
        ]
        with m.If(push):
            m.d.sync += step(tail)
        with m.If(pop):
            m.d.sync += [step(head), output.eq(read.data)]
        with m.If(push & ~pop):
            m.d.sync += [level.eq(level + 1), full.eq(level == self.depth - 1), stored.eq(1)]
        with m.Elif(pop & ~push):
            m.d.sync += [level.eq(level - 1), full.eq(0), stored.eq(level != 1)]
        with m.If(pop):
            m.d.sync += valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += valid.eq(0)
        return m
