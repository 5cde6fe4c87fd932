"""One bank of block RAM with a registered output."""

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place

_MOST_BITS = 1 << 20
"""Of one memory, if its mask allows. Amaranth and Yosys spell out every bit a memory begins with,
10 s for 4 Mibit; four memories beside one another are one module, and as many block RAMs."""


class Bank(Cell):
    """One read and one write port, two cycles of read latency, parts of a word written by a mask.

    Reading a word in the cycle it is written gives either content: who needs the new one waits a
    cycle. (`no_rw_check`: without it Yosys adds collision logic, 151 LUTs and 268 flip-flops for
    128 × 1024 on ECP5.)

    Attributes
    ----------
    read_address : word, sampled every cycle
    read_data : word, two cycles later
    write_mask : a bit each `granularity` bits; 0 writes nothing
    write_address, write_data
    """

    def __init__(self, *, width: int, depth: int, granularity: int) -> None:
        self.cell_name = f"tilewright_bank_{width}x{depth}_g{granularity}"
        self.width, self.depth, self.granularity = width, depth, granularity
        address = (depth - 1).bit_length()
        super().__init__(
            {
                "read_address": In(address),
                "read_data": Out(width),
                "write_mask": In(width // granularity),
                "write_address": In(address),
                "write_data": In(width),
            }
        )
        part = max(granularity, _MOST_BITS // depth)
        self.part = Bank(width=part, depth=depth, granularity=granularity) if width > part else None

    def cells(self) -> list[Cell]:
        return [self.part] if self.part else []

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.part:
            for index in range(self.width // self.part.width):
                bits = self.part.width
                place(
                    m,
                    f"part_{index}",
                    self.part,
                    read_address=self.read_address,
                    read_data=self.read_data.word_select(index, bits),
                    write_mask=self.write_mask.word_select(index, bits // self.granularity),
                    write_address=self.write_address,
                    write_data=self.write_data.word_select(index, bits),
                )
            return m
        m.submodules.memory = memory = Memory(
            shape=self.width, depth=self.depth, init=[], attrs={"no_rw_check": 1}
        )
        read = memory.read_port()
        write = memory.write_port(
            granularity=None if self.granularity == self.width else self.granularity
        )
        output = Signal(self.width, reset_less=True)
        m.d.comb += [
            read.addr.eq(self.read_address),
            read.en.eq(1),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write_mask),
            self.read_data.eq(output),
        ]
        m.d.sync += output.eq(read.data)
        return m
