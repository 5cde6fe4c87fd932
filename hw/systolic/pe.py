"""The processing element and the row of processing elements."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place


class ProcessingElement(Cell):
    """Weight-stationary multiply-accumulate with a shadow weight.

    `p_o = p_i + a * w`, the product taken from the activation two cycles before `p_i`'s cycle:
    a_i at cycle t meets p_i at cycle t + 2 and gives p_o at t + 3, the places where FPGA
    multipliers have their registers.

    Parameters
    ----------
    weight_bits, psum_bits : int

    Attributes
    ----------
    a_i, a_o : s9, activation, handed to the right in one cycle
    swap_i, swap_o : 1, with `a_i`: the shadow weight becomes the weight of this activation
    load_i, load_o : 1, take `w_i` into the shadow; handed to the right in one cycle
    w_i, w_o : shadow weight of the element above, and this one's
    p_i, p_o : partial sums from above and to below
    """

    def __init__(self, *, weight_bits: int, psum_bits: int) -> None:
        self.cell_name = f"tilewright_pe_w{weight_bits}_p{psum_bits}"
        super().__init__(
            {
                "a_i": In(signed(9)),
                "a_o": Out(signed(9)),
                "swap_i": In(1),
                "swap_o": Out(1),
                "load_i": In(1),
                "load_o": Out(1),
                "w_i": In(signed(weight_bits)),
                "w_o": Out(signed(weight_bits)),
                "p_i": In(signed(psum_bits)),
                "p_o": Out(signed(psum_bits)),
            }
        )
        self.weight_bits = weight_bits
        self.psum_bits = psum_bits

    def elaborate(self, platform: object) -> Module:
        m = Module()
        activation = Signal(signed(9), reset_less=True)
        shadow = Signal(signed(self.weight_bits), reset_less=True)
        weight = Signal(signed(self.weight_bits), reset_less=True)
        product = Signal(signed(9 + self.weight_bits), reset_less=True)
        psum = Signal(signed(self.psum_bits), reset_less=True)
        swap = Signal()
        load = Signal()
        m.d.sync += [
            activation.eq(self.a_i),
            swap.eq(self.swap_i),
            load.eq(self.load_i),
            product.eq(activation * weight),
            psum.eq(self.p_i + product),
        ]
        with m.If(self.swap_i):
            m.d.sync += weight.eq(shadow)
        with m.If(self.load_i):
            m.d.sync += shadow.eq(self.w_i)
        m.d.comb += [
            self.a_o.eq(activation),
            self.swap_o.eq(swap),
            self.load_o.eq(load),
            self.w_o.eq(shadow),
            self.p_o.eq(psum),
        ]
        return m


class ProcessingRow(Cell):
    """C processing elements side by side.

    Attributes
    ----------
    a, swap, load : into the leftmost element
    w_i, w_o : C shadow weights from above, and this row's, to below
    p_i, p_o : C partial sums from above and to below
    """

    def __init__(self, *, columns: int, weight_bits: int, psum_bits: int) -> None:
        self.cell_name = f"tilewright_row_c{columns}_w{weight_bits}_p{psum_bits}"
        super().__init__(
            {
                "a": In(signed(9)),
                "swap": In(1),
                "load": In(1),
                "w_i": In(weight_bits * columns),
                "w_o": Out(weight_bits * columns),
                "p_i": In(psum_bits * columns),
                "p_o": Out(psum_bits * columns),
            }
        )
        self.columns = columns
        self.pe = ProcessingElement(weight_bits=weight_bits, psum_bits=psum_bits)

    def cells(self) -> list[Cell]:
        return [self.pe]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, psum_bits = self.pe.weight_bits, self.pe.psum_bits
        a, swap, load = self.a, self.swap, self.load
        weights, psums = [], []
        for column in range(self.columns):
            a_o = Signal(signed(9), name=f"a_{column}")
            swap_o = Signal(name=f"swap_{column}")
            load_o = Signal(name=f"load_{column}")
            w_o = Signal(bits, name=f"w_{column}")
            p_o = Signal(psum_bits, name=f"p_{column}")
            place(
                m,
                f"pe_{column}",
                self.pe,
                a_i=a,
                a_o=a_o,
                swap_i=swap,
                swap_o=swap_o,
                load_i=load,
                load_o=load_o,
                w_i=self.w_i.word_select(column, bits),
                w_o=w_o,
                p_i=self.p_i.word_select(column, psum_bits),
                p_o=p_o,
            )
            a, swap, load = a_o, swap_o, load_o
            weights.append(w_o)
            psums.append(p_o)
        m.d.comb += [self.w_o.eq(Cat(weights)), self.p_o.eq(Cat(psums))]
        return m
