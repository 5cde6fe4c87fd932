"""Row statistics: reduction over the lanes and read-modify-write of the row table."""

from collections.abc import Callable

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import Stat
from tilewright.hw.memories.row_table import F1_BITS, F2_BITS
from tilewright.hw.vector.lane import MAXIMUM_BITS

LEVELS_A_STAGE = 2
SQUARE_BITS = 34


def tree_latency(lanes: int) -> int:
    """Registers of a reduction tree over `lanes`, one each LEVELS_A_STAGE levels."""
    return -(-(lanes - 1).bit_length() // LEVELS_A_STAGE)


def statistics_latency(lanes: int) -> int:
    """Cycles from the lanes' results to the end of the row table's write."""
    return 1 + tree_latency(lanes) + 3


class Statistics(Cell):
    """Largest magnitude, maximum, sum and sum of squares of a row, over L lanes a cycle.

    A row's item enters in one cycle with its rows' addresses; the row table is read, changed and
    written statistics_latency() cycles later. The same row may come again 3 cycles later.

    Attributes
    ----------
    valid : an item enters
    results : L × s17, invalid columns zero
    maxima : L × s44; keep : L, columns that count in the maximum
    start : statistics of this row start anew
    stat_op, magnitude : the command's
    stat_address, scale_address : rows of this item
    update_* : read addresses to the row table; f1, f2, stored_magnitude one cycle later
    write_* : row table writes
    """

    def __init__(self, *, lanes: int, stat_bits: int, scale_bits: int) -> None:
        self.lanes = lanes
        self.cell_name = "tilewright_statistics"
        super().__init__(
            {
                "valid": In(1),
                "results": In(17 * lanes),
                "maxima": In(MAXIMUM_BITS * lanes),
                "keep": In(lanes),
                "start": In(1),
                "stat_op": In(2),
                "magnitude": In(1),
                "stat_address": In(stat_bits),
                "scale_address": In(scale_bits),
                "update_stat": Out(stat_bits),
                "update_scale": Out(scale_bits),
                "f1": In(signed(F1_BITS)),
                "f2": In(F2_BITS),
                "stored_magnitude": In(16),
                "write_f1": Out(1),
                "write_f2": Out(1),
                "write_scale": Out(1),
                "write_stat_address": Out(stat_bits),
                "write_scale_address": Out(scale_bits),
                "write_f1_data": Out(signed(F1_BITS)),
                "write_f2_data": Out(F2_BITS),
                "write_magnitude": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def tree(name: str, values: list[Value], combine: Callable[[Value, Value], Value]) -> Value:
            level = 0
            while len(values) > 1:
                values = [
                    combine(values[i], values[i + 1]) if i + 1 < len(values) else values[i]
                    for i in range(0, len(values), 2)
                ]
                level += 1
                if level % LEVELS_A_STAGE == 0 or len(values) == 1:
                    registers = []
                    for index, value in enumerate(values):
                        signal = Signal(
                            value.shape(), name=f"{name}_{level}_{index}", reset_less=True
                        )
                        m.d.sync += signal.eq(value)
                        registers.append(signal)
                    values = registers
            return values[0]

        def larger(a: Value, b: Value) -> Value:
            result = Mux(a > b, a, b)
            return result if a.shape().signed else result.as_unsigned()

        magnitudes, sums, squares, maxima = [], [], [], []
        least = -(1 << (MAXIMUM_BITS - 1))
        for lane in range(self.lanes):
            value = self.results.word_select(lane, 17).as_signed()
            base = self.maxima.word_select(lane, MAXIMUM_BITS).as_signed()
            magnitude = Signal(16, name=f"magnitude_{lane}", reset_less=True)
            total = Signal(signed(17), name=f"value_{lane}", reset_less=True)
            square = Signal(SQUARE_BITS, name=f"square_{lane}", reset_less=True)
            maximum = Signal(signed(MAXIMUM_BITS), name=f"maximum_{lane}", reset_less=True)
            m.d.sync += [
                magnitude.eq(Mux(value < 0, -value, value)),
                total.eq(value),
                square.eq(value * value),
                maximum.eq(Mux(self.keep[lane], base, least)),
            ]
            magnitudes.append(magnitude)
            sums.append(total)
            squares.append(square)
            maxima.append(maximum)
        magnitude = tree("magnitude", magnitudes, larger)
        total = tree("sum", sums, lambda a, b: a + b)
        square = tree("square", squares, lambda a, b: a + b)
        maximum = tree("maximum", maxima, larger)

        # What travels beside the reduction: the row's addresses a cycle ahead of its sums.
        ahead = tree_latency(self.lanes)
        fields = Cat(self.valid, self.start, self.keep.any(), self.stat_address, self.scale_address)
        for stage in range(ahead):
            later = Signal(len(fields), name=f"row_{stage}")
            m.d.sync += later.eq(fields)
            fields = later

        def split(value: Value) -> list[Value]:
            stat, scale = len(self.stat_address), len(self.scale_address)
            return [value[0], value[1], value[2], value[3 : 3 + stat], value[3 + stat :][:scale]]

        read = Signal(len(fields))
        m.d.comb += read.eq(fields)
        _, _, _, stat, scale = split(read)
        m.d.comb += [self.update_stat.eq(stat), self.update_scale.eq(scale)]
        change = Signal(len(fields))
        m.d.sync += change.eq(read)
        valid, start, any_valid, stat, scale = split(change)

        f1 = Signal(signed(F1_BITS), reset_less=True)
        f2 = Signal(F2_BITS, reset_less=True)
        largest = Signal(16, reset_less=True)
        moments = self.stat_op == Stat.MOMENTS
        # Block RAM gives its word late in the cycle: what does without it is chosen apart, and
        # sums and comparisons take it as it comes.
        none = -(1 << (F1_BITS - 1))
        fresh1 = Mux(moments, total, Mux(any_valid, maximum, none))
        added2 = Mux(moments, square, total)
        m.d.sync += [
            f1.eq(
                Mux(
                    start,
                    fresh1,
                    Mux(
                        moments,
                        self.f1 + total,
                        Mux((maximum > self.f1) & any_valid, maximum, self.f1),
                    ),
                )
            ),
            f2.eq(Mux(start, added2, self.f2 + added2)),
            largest.eq(
                Mux(start | (magnitude > self.stored_magnitude), magnitude, self.stored_magnitude)
            ),
        ]
        write = Signal(3)
        m.d.sync += write.eq(
            Cat(
                valid & (moments | (self.stat_op == Stat.MAX)),
                valid & (moments | (self.stat_op == Stat.SUM)),
                valid & self.magnitude,
            )
        )
        for port, value in (
            (self.write_stat_address, stat),
            (self.write_scale_address, scale),
        ):
            register = Signal(len(value), name=f"{port.name}_register", reset_less=True)
            m.d.sync += register.eq(value)
            m.d.comb += port.eq(register)
        m.d.comb += [
            Cat(self.write_f1, self.write_f2, self.write_scale).eq(write),
            self.write_f1_data.eq(f1),
            self.write_f2_data.eq(f2),
            self.write_magnitude.eq(largest),
        ]
        return m
