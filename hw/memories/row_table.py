"""The row table: largest magnitudes (row scales) and row statistics."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.config import Config

F1_BITS = 44
F2_BITS = 48
FACTOR_BITS = 17
EXPONENT_BITS = 5
TOP_BITS = 32
SCALE_LATENCY = 4
"""Cycles from a scale row's address to its (m, e)."""
LARGEST_E = 9


class RowScale(Cell):
    """(m, e) of a largest magnitude: the pair with the largest m·2^-e, m in 4 … 7, for which
    RSH(a·m, e + 2) <= 127.

    RSH(a·m, e + 2) <= 127 is a·m < 510·2^e, so e is the number of octaves k with
    a > (255·2^k − 1)/2 (there m = 4 fails), and then m the largest of 7 … 4 that fits. Latency 3.

    Attributes
    ----------
    a : u16
    m : 2 bits, m − 4
    e : 4 bits
    """

    cell_name = "tilewright_row_scale"

    def __init__(self) -> None:
        super().__init__({"a": In(16), "m": Out(2), "e": Out(4)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a1 = Signal(16, reset_less=True)
        a2 = Signal(16, reset_less=True)
        e2 = Signal(4, reset_less=True)
        m.d.sync += [a1.eq(self.a), a2.eq(a1)]
        octaves = 0
        for k in range(LARGEST_E):
            octaves = octaves + (a1 > ((255 << k) - 1) // 2)
        m.d.sync += e2.eq(octaves)
        bound = Signal(range((510 << LARGEST_E) + 1))
        m.d.comb += bound.eq(510 << e2)
        m3 = Signal(2, reset_less=True)
        e3 = Signal(4, reset_less=True)
        m.d.sync += [
            e3.eq(e2),
            # Sums, not products: Yosys would spend multipliers on the constants.
            m3.eq(
                Mux(
                    (a2 << 3) - a2 < bound,
                    3,
                    Mux((a2 << 2) + (a2 << 1) < bound, 2, Mux((a2 << 2) + a2 < bound, 1, 0)),
                )
            ),
        ]
        m.d.comb += [self.m.eq(m3), self.e.eq(e3)]
        return m


class RowTable(Cell):
    """Scale rows and statistics rows.

    Reads are sampled every cycle. Scale rows: three readers (feeder, vector, update), one writer;
    f1: two readers (early, update), one writer; f2: one and one; factor and exponent: one and one;
    top, the maximum a MATMUL keeps: two readers (early, top) and a writer of its own.
    Plain reads have a latency of 1, `early_*` of 1 too; written values are visible to reads of the
    next cycle but one.

    Attributes
    ----------
    feeder_scale, vector_scale : address of a scale row; (m, e) SCALE_LATENCY later at *_m, *_e
    update_scale : address; `magnitude` 1 later
    early_stat : address; `early_f1`, `early_factor`, `early_exponent`, `early_top` 1 later
    update_stat : address; `f1`, `f2` 1 later
    top_read : address; `top_read_data` 1 later
    write_*, top_write* : strobes, addresses and data
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_row_table"
        scale = (config.scale_rows - 1).bit_length()
        stat = (config.stat_rows - 1).bit_length()
        self.scale_cell = RowScale()
        super().__init__(
            {
                "feeder_scale": In(scale),
                "feeder_m": Out(2),
                "feeder_e": Out(4),
                "vector_scale": In(scale),
                "vector_m": Out(2),
                "vector_e": Out(4),
                "update_scale": In(scale),
                "magnitude": Out(16),
                "write_scale": In(1),
                "write_scale_address": In(scale),
                "write_magnitude": In(16),
                "early_stat": In(stat),
                "early_f1": Out(signed(F1_BITS)),
                "early_factor": Out(FACTOR_BITS),
                "early_exponent": Out(EXPONENT_BITS),
                "early_top": Out(signed(TOP_BITS)),
                "top_read": In(stat),
                "top_read_data": Out(signed(TOP_BITS)),
                "top_write": In(1),
                "top_write_address": In(stat),
                "top_write_data": In(signed(TOP_BITS)),
                "update_stat": In(stat),
                "f1": Out(signed(F1_BITS)),
                "f2": Out(F2_BITS),
                "write_f1": In(1),
                "write_f2": In(1),
                "write_factor": In(1),
                "write_stat_address": In(stat),
                "write_f1_data": In(signed(F1_BITS)),
                "write_f2_data": In(F2_BITS),
                "write_factor_data": In(FACTOR_BITS),
                "write_exponent_data": In(EXPONENT_BITS),
            }
        )

    def cells(self) -> list[Cell]:
        return [self.scale_cell]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config

        def memory(name: str, width: int, depth: int) -> Memory:
            m.submodules[name] = result = Memory(
                shape=width, depth=depth, init=[], attrs={"no_rw_check": 1}
            )
            return result

        def read(mem: Memory, address: Signal, data: Signal) -> None:
            port = mem.read_port()
            m.d.comb += [port.en.eq(1), port.addr.eq(address), data.eq(port.data)]

        def write(mem: Memory, enable: Signal, address: Signal, data: Signal) -> None:
            port = mem.write_port()
            m.d.comb += [port.en.eq(enable), port.addr.eq(address), port.data.eq(data)]

        # One memory a reader, all written alike: block RAM has one read port beside the write port.
        for reader in ("feeder", "vector", "update"):
            mem = memory(f"scale_{reader}", 16, config.scale_rows)
            write(mem, self.write_scale, self.write_scale_address, self.write_magnitude)
            address = getattr(self, f"{reader}_scale")
            if reader == "update":
                read(mem, address, self.magnitude)
                continue
            magnitude = Signal(16, name=f"{reader}_magnitude")
            read(mem, address, magnitude)
            place(
                m,
                f"row_scale_{reader}",
                self.scale_cell,
                a=magnitude,
                m=getattr(self, f"{reader}_m"),
                e=getattr(self, f"{reader}_e"),
            )
        for reader, address, data in (
            ("early", self.early_stat, self.early_f1),
            ("update", self.update_stat, self.f1),
        ):
            mem = memory(f"f1_{reader}", F1_BITS, config.stat_rows)
            write(mem, self.write_f1, self.write_stat_address, self.write_f1_data)
            read(mem, address, data)
        for reader, address, data in (
            ("early", self.early_stat, self.early_top),
            ("top", self.top_read, self.top_read_data),
        ):
            mem = memory(f"top_{reader}", TOP_BITS, config.stat_rows)
            write(mem, self.top_write, self.top_write_address, self.top_write_data)
            read(mem, address, data)
        mem = memory("f2", F2_BITS, config.stat_rows)
        write(mem, self.write_f2, self.write_stat_address, self.write_f2_data)
        read(mem, self.update_stat, self.f2)
        mem = memory("factor", FACTOR_BITS, config.stat_rows)
        write(mem, self.write_factor, self.write_stat_address, self.write_factor_data)
        read(mem, self.early_stat, self.early_factor)
        mem = memory("exponent", EXPONENT_BITS, config.stat_rows)
        write(mem, self.write_factor, self.write_stat_address, self.write_exponent_data)
        read(mem, self.early_stat, self.early_exponent)
        return m
