"""Accumulators: a column of banks per array column, written with the array's skew."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.config import Config

WRITE_LATENCY = 3
"""Cycles from a sum entering a column to the end of its write; a read granted behind it sees it."""
TOP_LATENCY = 4
"""A row's maximum is written C + TOP_LATENCY cycles behind its sum at column 0."""
LEAST = -(1 << 31)
"""Maximum of a row without a valid column."""


class AccumulatorColumn(Cell):
    """s32 accumulators of one array column, `banks` banks of block RAM.

    A sum enters with its control in one cycle; the control goes on to the column at the right in
    the next. Read-modify-write: address in cycle 0, stored word in cycle 2, new word written at
    the end of cycle 3; so the same word may come again 4 cycles later. `accumulate` = 0 overwrites.
    The vector unit reads `read_address` in any cycle in which its bank takes no sum: data 3 cycles
    later.

    On its way into the bank the new word meets the largest one of the columns at the left: a row's
    maximum travels with its skew, a comparison a column.

    Attributes
    ----------
    sum : s(psum_bits)
    valid_i, accumulate_i, address_i : control of the sum
    valid_o, accumulate_o, address_o : the same one cycle later
    read_address, read_data : the vector unit's port
    left_i, top_i : columns from this one on that count, and the maximum so far, 3 cycles behind the
        sum
    left_o, top_o : the same for the next column, one cycle later
    """

    def __init__(self, *, psum_bits: int, banks: int, depth: int, left_bits: int) -> None:
        self.cell_name = f"tilewright_accumulator_p{psum_bits}_{banks}x{depth}_l{left_bits}"
        self.psum_bits, self.banks, self.depth = psum_bits, banks, depth
        address = (banks * depth - 1).bit_length()
        super().__init__(
            {
                "sum": In(signed(psum_bits)),
                "valid_i": In(1),
                "accumulate_i": In(1),
                "address_i": In(address),
                "valid_o": Out(1),
                "accumulate_o": Out(1),
                "address_o": Out(address),
                "read_address": In(address),
                "read_data": Out(32),
                "left_i": In(left_bits),
                "left_o": Out(left_bits),
                "top_i": In(signed(32)),
                "top_o": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        address_bits = len(self.address_i)
        low = (self.depth - 1).bit_length()
        # Stage k holds the sum k cycles after it entered.
        valid = [self.valid_i] + [Signal(name=f"valid{k}") for k in (1, 2, 3)]
        accumulate = [self.accumulate_i] + [
            Signal(name=f"accumulate{k}", reset_less=True) for k in (1, 2)
        ]
        address = [self.address_i] + [
            Signal(address_bits, name=f"address{k}", reset_less=True) for k in (1, 2, 3)
        ]
        sums = [self.sum] + [
            Signal(signed(self.psum_bits), name=f"sum{k}", reset_less=True) for k in (1, 2)
        ]
        for stages in (valid, accumulate, address, sums):
            for before, after in pairwise(stages):
                m.d.sync += after.eq(before)
        m.d.comb += [
            self.valid_o.eq(valid[1]),
            self.accumulate_o.eq(accumulate[1]),
            self.address_o.eq(address[1]),
        ]
        total = Signal(signed(32), reset_less=True)
        stored = Signal(32)
        m.d.sync += total.eq(Mux(accumulate[2], stored.as_signed(), 0) + sums[2])

        counts = self.left_i != 0
        left = Signal.like(self.left_i, reset_less=True)
        top = Signal(signed(32), reset_less=True)
        m.d.sync += [
            left.eq(self.left_i - counts),
            top.eq(Mux(counts & (total > self.top_i), total, self.top_i)),
        ]
        m.d.comb += [self.left_o.eq(left), self.top_o.eq(top)]

        read_select = Signal(range(self.banks), reset_less=True)
        read_select2 = Signal(range(self.banks), reset_less=True)
        read_data = Signal(32, reset_less=True)
        m.d.sync += [read_select.eq(self.read_address[low:]), read_select2.eq(read_select)]
        outputs = []
        for bank in range(self.banks):
            m.submodules[f"bank{bank}"] = memory = Memory(
                shape=32, depth=self.depth, init=[], attrs={"no_rw_check": 1}
            )
            read, write = memory.read_port(), memory.write_port()
            output = Signal(32, name=f"output{bank}", reset_less=True)
            m.d.sync += output.eq(read.data)
            outputs.append(output)
            takes = valid[0] & (address[0][low:] == bank)
            m.d.comb += [
                read.en.eq(1),
                read.addr.eq(Mux(takes, address[0][:low], self.read_address[:low])),
                write.addr.eq(address[3][:low]),
                write.data.eq(total),
                write.en.eq(valid[3] & (address[3][low:] == bank)),
            ]
        for select, target, domain in (
            (address[2][low:], stored, m.d.comb),
            (read_select2, read_data, m.d.sync),
        ):
            with m.Switch(select):
                for bank in range(self.banks):
                    with m.Case(bank):
                        domain += target.eq(outputs[bank])
        m.d.comb += self.read_data.eq(read_data)
        return m


class Accumulators(Cell):
    """C accumulator columns, and the maximum of each row on its way in.

    The maximum of a row whose last sums enter with `top` is written to the row table C +
    TOP_LATENCY cycles behind the row's sum at column 0. The same row may come again 4 cycles later.

    Attributes
    ----------
    sums : C sums, skewed: column c's one cycle behind column c − 1's
    valid, accumulate, address : control of column 0's sum
    read_valid, read_ready, read_address : the vector unit's request; ready is low while a bank
        takes sums in any column
    read_data : C s32, three cycles after the grant
    top, top_first, top_left, top_stat : with a sum at column 0: its row's maximum is kept, begins
        anew, how many columns count, the row of the row table
    top_read, top_read_data : row of the row table to read; what it holds, one cycle later
    top_write, top_write_address, top_write_data : its new maximum
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_accumulators"
        self.column = AccumulatorColumn(
            psum_bits=config.psum_bits,
            banks=config.acc_banks,
            depth=config.acc_depth,
            left_bits=config.columns.bit_length(),
        )
        address = (config.acc_words - 1).bit_length()
        stat = (config.stat_rows - 1).bit_length()
        super().__init__(
            {
                "sums": In(config.psum_bits * config.columns),
                "valid": In(1),
                "accumulate": In(1),
                "address": In(address),
                "read_valid": In(1),
                "read_ready": Out(1),
                "read_address": In(address),
                "read_data": Out(32 * config.columns),
                "top": In(1),
                "top_first": In(1),
                "top_left": In(config.columns.bit_length()),
                "top_stat": In(stat),
                "top_read": Out(stat),
                "top_read_data": In(signed(32)),
                "top_write": Out(1),
                "top_write_address": Out(stat),
                "top_write_data": Out(signed(32)),
            }
        )

    def cells(self) -> list[Cell]:
        return [self.column]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        low = (config.acc_depth - 1).bit_length()
        # A bank is taken from a sum's entry at column 0 until it has passed column C − 1.
        taken = Signal(config.acc_banks)
        for bank in range(config.acc_banks):
            left = Signal(range(config.columns + 1), name=f"left{bank}")
            enters = self.valid & (self.address[low:] == bank)
            with m.If(enters):
                m.d.sync += left.eq(config.columns)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
            m.d.comb += taken[bank].eq(enters | (left != 0))
        m.d.comb += self.read_ready.eq(~taken.bit_select(self.read_address[low:], 1))

        valid, accumulate, address = self.valid, self.accumulate, self.address
        count: Value = self.top_left
        for stage in range(3):
            later = Signal.like(self.top_left, name=f"top_left{stage + 1}", reset_less=True)
            m.d.sync += later.eq(count)
            count = later
        top: Value = Const(LEAST, signed(32))
        data = []
        for index in range(config.columns):
            valid_o = Signal(name=f"valid_{index}")
            accumulate_o = Signal(name=f"accumulate_{index}")
            address_o = Signal(len(self.address), name=f"address_{index}")
            word = Signal(32, name=f"word_{index}")
            left_o = Signal.like(self.top_left, name=f"left_{index}")
            top_o = Signal(signed(32), name=f"top_{index}")
            place(
                m,
                f"column_{index}",
                self.column,
                sum=self.sums.word_select(index, config.psum_bits),
                valid_i=valid,
                accumulate_i=accumulate,
                address_i=address,
                valid_o=valid_o,
                accumulate_o=accumulate_o,
                address_o=address_o,
                read_address=self.read_address,
                read_data=word,
                left_i=count,
                left_o=left_o,
                top_i=top,
                top_o=top_o,
            )
            valid, accumulate, address = valid_o, accumulate_o, address_o
            count, top = left_o, top_o
            data.append(word)
        m.d.comb += self.read_data.eq(Cat(data))

        # The maximum leaves the last column; the row's address is read two cycles ahead of it, as
        # block RAM gives its word late in the cycle.
        notes: list[Value] = [Cat(self.valid & self.top, self.top_first, self.top_stat)]
        for stage in range(config.columns + TOP_LATENCY - 1):
            note = Signal(len(notes[-1]), name=f"top_note{stage}")
            m.d.sync += note.eq(notes[-1])
            notes.append(note)
        kept = Signal(signed(32), reset_less=True)
        writes = Signal()
        written = Signal.like(self.top_stat, reset_less=True)
        before = Signal(signed(32), reset_less=True)
        m.d.sync += [
            before.eq(Mux(notes[-2][1], LEAST, self.top_read_data)),
            kept.eq(Mux(top > before, top, before)),
            writes.eq(notes[-1][0]),
            written.eq(notes[-1][2:]),
        ]
        m.d.comb += [
            self.top_read.eq(notes[-3][2:]),
            self.top_write.eq(writes),
            self.top_write_address.eq(written),
            self.top_write_data.eq(kept),
        ]
        return m
