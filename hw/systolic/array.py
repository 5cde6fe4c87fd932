"""The systolic array: rows of processing elements and their skews."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.config import Config
from tilewright.hw.systolic.pe import ProcessingRow


def array_latency(rows: int) -> int:
    """Cycles from row 0's activation to the column's sum at column 0 (column c: c more)."""
    return rows + 2


class SystolicArray(Cell):
    """R × C weight-stationary array with double-buffered weights.

    An activation row enters unskewed; lane r is delayed r cycles here. Sums leave skewed: column c
    of a row that entered at t is at `p` in cycle t + R + 2 + c; the accumulators take them so.

    Weight rows enter with `load`, the tile's last row (R − 1) first; row r of the array takes
    part from word r on (`load_rows[r]`), so that the next tile may follow right behind the swap
    wave: the
    first word may enter in the cycle of the swap at the earliest, and the swap in the cycle behind
    the last word.

    Attributes
    ----------
    a : R × s9, activation row (lane r in bits 9r …)
    swap : 1, with the first row of a pass: the tile in the shadow weights becomes active
    load_rows : R, rows that shift their shadow weights in this cycle
    w : C weights, row of the tile
    p : C partial sums, skewed
    """

    def __init__(self, config: Config) -> None:
        self.cell_name = "tilewright_array"
        self.config = config
        self.row = ProcessingRow(
            columns=config.columns, weight_bits=config.weight_bits, psum_bits=config.psum_bits
        )
        super().__init__(
            {
                "a": In(9 * config.rows),
                "swap": In(1),
                "load_rows": In(config.rows),
                "w": In(config.weight_bits * config.columns),
                "p": Out(config.psum_bits * config.columns),
            }
        )

    def cells(self) -> list[Cell]:
        return [self.row]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        bits = config.weight_bits

        # Column c of a weight row is delayed c cycles, as its column's load enables are.
        weights = []
        for column in range(config.columns):
            source = self.w.word_select(column, bits)
            if column:
                skew = Signal(bits * column, name=f"w_skew_{column}", reset_less=True)
                m.d.sync += skew.eq(Cat(source, skew)[: bits * column])
                source = skew[-bits:]
            weights.append(source)

        swap_skew = Signal(config.rows - 1)
        m.d.sync += swap_skew.eq(Cat(self.swap, swap_skew[:-1]))

        w, p = Cat(weights), 0
        for row in range(config.rows):
            lane = self.a.word_select(row, 9)
            if row:
                skew = Signal(9 * row, name=f"a_skew_{row}", reset_less=True)
                m.d.sync += skew.eq(Cat(lane, skew)[: 9 * row])
                lane = skew[-9:]
            w_o = Signal(bits * config.columns, name=f"w_row_{row}")
            p_o = Signal(config.psum_bits * config.columns, name=f"p_row_{row}")
            p_i = Signal(config.psum_bits * config.columns, name=f"p_in_{row}")
            m.d.comb += p_i.eq(p)
            place(
                m,
                f"row_{row}",
                self.row,
                a=lane,
                swap=swap_skew[row - 1] if row else self.swap,
                load=self.load_rows[row],
                w_i=w,
                w_o=w_o,
                p_i=p_i,
                p_o=p_o,
            )
            w, p = w_o, p_o
        m.d.comb += self.p.eq(p)
        return m
