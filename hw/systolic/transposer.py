"""A rotator over small RAMs that turns columns of a tile into rows."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.config import Config
from tilewright.hw.lanes import rotated


class Transposer(Cell):
    """Takes a tile column by column, gives it row by row, two tiles in memory.

    Element (r, c) lies in RAM (r + c) mod W at address c, so that a column goes to different
    RAMs at one address and a row comes from different RAMs. One column in, one row out a cycle.

    Attributes
    ----------
    write : take `column` (R bytes) as column `write_column` of buffer `write_buffer`
    read_row, read_buffer : sampled every cycle
    row : C bytes, one cycle later
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_transposer"
        super().__init__(
            {
                "write": In(1),
                "write_buffer": In(1),
                "write_column": In((config.columns - 1).bit_length()),
                "column": In(8 * config.rows),
                "read_buffer": In(1),
                "read_row": In((config.rows - 1).bit_length()),
                "row": Out(8 * config.columns),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        panel = self.config.panel
        bits = (panel - 1).bit_length()
        column_bits = len(self.write_column)
        by = Signal(bits)
        widened = Signal(8 * panel)
        m.d.comb += [by.eq(self.write_column), widened.eq(self.column)]
        turned = rotated(m, widened, by, left=True, name="turn_in")
        # RAM j holds an element of column c only where r = (j - c) mod W is below R.
        row1 = Signal(bits, reset_less=True)
        m.d.sync += row1.eq(self.read_row)
        outputs = []
        for index in range(panel):
            m.submodules[f"ram_{index}"] = memory = Memory(
                shape=8, depth=2 * self.config.columns, init=[]
            )
            write, read = memory.write_port(), memory.read_port()
            address = Signal(bits, name=f"address_{index}")
            row = Signal(bits, name=f"row_{index}")
            m.d.comb += [
                address.eq(index - self.read_row),
                row.eq(index - self.write_column),
                write.addr.eq(Cat(self.write_column, self.write_buffer)),
                write.data.eq(turned.word_select(index, 8)),
                write.en.eq(self.write & (row < self.config.rows)),
                read.addr.eq(Cat(address[:column_bits], self.read_buffer)),
                read.en.eq(1),
            ]
            outputs.append(read.data)
        gathered = Signal(8 * panel)
        m.d.comb += [
            gathered.eq(Cat(outputs)),
            self.row.eq(rotated(m, gathered, row1, name="turn_out")),
        ]
        return m
