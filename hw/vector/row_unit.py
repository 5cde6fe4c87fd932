"""The row unit: one value a row, bit by bit (division, rsqrt), and scale rows in and out."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.cells import Cell
from hw.commands import Opcode, RowOp
from hw.config import Config
from hw.layouts import command_layout
from hw.manifest import SP_READ_LATENCY
from hw.memories.row_table import EXPONENT_BITS, F1_BITS, F2_BITS, FACTOR_BITS
from hw.tables import RSQRT, RSQRT_FIRST, RSQRT_LG

DEN_BITS = 20
V_BITS = 60
N_BITS = 13
S1_BITS = 29


def bit_length(m: Module, value: Value, name: str) -> Signal:
    """Position of the highest one, plus one; 0 for 0."""
    result = Signal(range(len(value) + 1), name=name)
    for index in range(len(value)):
        with m.If(value[index]):
            m.d.comb += result.eq(index + 1)
    return result


class RowUnit(Cell):
    """DIVIDE, RSQRT, GET and PUT, one row after the other.

    DIVIDE: `n = bitlen(den)`, `R = floor(2^(n+15) / den)` by restoring division of the normalised
    denominator, 17 quotient bits, 22 cycles a row. RSQRT: `V = max(N·S2 − S1² + eps, 1)` by shift
    and add, then `p = V·2^(16−2k)` by shifts of two, then the table; at most 80 cycles a row.
    GET and PUT move a scale row a cycle.

    Attributes
    ----------
    command, start : resolved ROW command; start is a pulse while not active
    active : high until the command's last write is visible
    stat_address, scale_address : rows of the row table; f1, f2, magnitude one cycle later
    write_factor, factor, exponent : result for stat_address
    write_scale, write_magnitude : scale row for scale_address
    read_valid, read_ready, read_address, read_data : scratchpad reader
    write_valid, write_address, write_data : scratchpad writer, never refused
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_row_unit"
        address = (config.sp_words - 1).bit_length()
        super().__init__(
            {
                "command": In(command_layout(Opcode.ROW).size),
                "start": In(1),
                "active": Out(1),
                "stat_address": Out((config.stat_rows - 1).bit_length()),
                "f1": In(F1_BITS),
                "f2": In(F2_BITS),
                "write_factor": Out(1),
                "factor": Out(FACTOR_BITS),
                "exponent": Out(EXPONENT_BITS),
                "scale_address": Out((config.scale_rows - 1).bit_length()),
                "magnitude": In(16),
                "write_scale": Out(1),
                "write_magnitude": Out(16),
                "read_valid": Out(1),
                "read_ready": In(1),
                "read_address": Out(address),
                "read_data": In(8 * config.word_bytes),
                "write_valid": Out(1),
                "write_address": Out(address),
                "write_data": Out(8 * config.word_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        panel = self.config.panel
        layout = command_layout(Opcode.ROW)
        command = Signal(layout)
        incoming = data.View(layout, self.command)
        row = Signal(16)
        word_address = Signal(16, reset_less=True)
        word = Signal(8 * self.config.word_bytes, reset_less=True)
        lane = Signal(range(panel))
        count = Signal(6)
        last_row = row + 1 == command.m
        m.d.comb += [
            self.stat_address.eq(command.stat + row),
            self.scale_address.eq(command.scale + row),
            self.read_address.eq(word_address),
            self.write_address.eq(word_address),
            self.write_data.eq(word),
            self.write_magnitude.eq(word[:16]),
        ]

        # Shared by DIVIDE and RSQRT.
        value = Signal(V_BITS, reset_less=True)
        addend = Signal(V_BITS, reset_less=True)
        bits = Signal(S1_BITS, reset_less=True)  # multiplier, lowest bit first
        factor = Signal(FACTOR_BITS, reset_less=True)
        exponent = Signal(EXPONENT_BITS, reset_less=True)
        m.d.comb += [self.factor.eq(factor), self.exponent.eq(exponent)]

        # DIVIDE: remainder and normalised denominator.
        den = value[:DEN_BITS]
        den_length = bit_length(m, den, "den_length")
        denominator = Signal(DEN_BITS, reset_less=True)
        remainder = Signal(DEN_BITS + 1, reset_less=True)
        difference = Signal(DEN_BITS + 2)
        m.d.comb += difference.eq(remainder - denominator)
        fits = ~difference[-1]

        # RSQRT: table on p = value's top 18 bits once a one stands in its top two.
        s1 = Mux(command.rms, 0, self.f1.as_signed())
        magnitude1 = Signal(F1_BITS + 1, reset_less=True)  # f1 stands from BEGIN on
        m.d.sync += magnitude1.eq(Mux(s1 < 0, -s1, s1))
        top = value[V_BITS - 4 - 18 : V_BITS - 4]
        words = [
            (here & 0x1FFFF) | ((there - here) & 0x7FF) << 17
            for here, there in zip(RSQRT[:-1].tolist(), RSQRT[1:].tolist(), strict=True)
        ]
        m.submodules.rom = rom = Memory(shape=28, depth=len(words), init=words)
        port = rom.read_port()
        m.d.comb += [
            port.en.eq(1),
            port.addr.eq(top[RSQRT_LG:] - RSQRT_FIRST),
        ]
        table_value = port.data[:17]
        table_slope = port.data[17:].as_signed()
        low = Signal(RSQRT_LG, reset_less=True)
        product = Signal(22, reset_less=True)

        # States READ and STORE in registers of their own: other units' grants wait for them.
        reading, storing = Signal(), Signal()
        m.d.comb += [self.read_valid.eq(reading), self.write_valid.eq(storing)]
        with m.FSM(name="row_fsm") as fsm:
            m.d.comb += self.active.eq(~fsm.ongoing("IDLE"))

            def next_row(here: str) -> None:
                m.d.sync += row.eq(row + 1)
                with m.If(last_row):
                    m.next = "SETTLE"
                with m.Else():
                    m.next = here

            with m.State("IDLE"):
                m.d.sync += [
                    command.eq(incoming),
                    row.eq(0),
                    lane.eq(0),
                    count.eq(0),
                    word_address.eq(incoming.sp_addr),
                ]
                with m.If(self.start):
                    with m.If(incoming.m == 0):
                        m.next = "SETTLE"
                    with m.Elif(incoming.op == RowOp.GET):
                        m.d.sync += reading.eq(1)
                        m.next = "READ"
                    with m.Elif(incoming.op == RowOp.PUT):
                        m.next = "PUT"
                    with m.Else():
                        m.next = "STATISTICS"

            # DIVIDE and RSQRT.
            with m.State("STATISTICS"):
                m.d.sync += count.eq(0)
                m.next = "BEGIN"
            with m.State("BEGIN"):
                with m.If(command.op == RowOp.DIVIDE):
                    m.d.sync += [value.eq(self.f2), factor.eq(0)]
                    m.next = "LENGTH"
                with m.Else():
                    m.d.sync += [
                        value.eq(command.eps[:40]),
                        addend.eq(self.f2),
                        bits.eq(command.n[:N_BITS]),
                    ]
                    m.next = "SCALE"
            with m.State("LENGTH"):
                m.d.sync += exponent.eq(den_length)
                m.next = "ALIGN"
                with m.If(den == 0):
                    m.next = "WRITE"
            with m.State("ALIGN"):
                m.d.sync += [
                    denominator.eq(den << (DEN_BITS - exponent).as_unsigned()[:5]),
                    remainder.eq(1 << (DEN_BITS - 1)),
                ]
                m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.sync += [
                    factor.eq(Cat(fits, factor)),
                    remainder.eq(Mux(fits, difference, remainder) << 1),
                    count.eq(count + 1),
                ]
                with m.If(count == FACTOR_BITS - 1):
                    m.next = "WRITE"
            with m.State("SCALE"):
                with m.If(bits[0]):
                    m.d.sync += value.eq(value + addend)
                m.d.sync += [addend.eq(addend << 1), bits.eq(bits >> 1)]
                with m.If(bits[1:] == 0):
                    m.d.sync += [addend.eq(magnitude1), bits.eq(magnitude1)]
                    m.next = "SQUARE"
            with m.State("SQUARE"):
                with m.If(bits[0]):
                    m.d.sync += value.eq(value - addend)
                m.d.sync += [addend.eq(addend << 1), bits.eq(bits >> 1)]
                with m.If(bits[1:] == 0):
                    m.next = "CLAMP"
            with m.State("CLAMP"):
                # V below 2^56 stands in bits 55 … 0; k counts down from 27 while shifts of two
                # bring its leading one into bits 55, 54.
                m.d.sync += exponent.eq(27)
                with m.If(value[-1] | (value == 0)):
                    m.d.sync += value.eq(1)
                m.next = "NORMALISE"
            with m.State("NORMALISE"):
                with m.If(value[V_BITS - 6 : V_BITS - 4].any()):
                    m.d.sync += low.eq(top[:RSQRT_LG])
                    m.next = "INTERPOLATE"
                with m.Elif(~value[V_BITS - 14 : V_BITS - 4].any()):
                    m.d.sync += [value.eq(value << 8), exponent.eq(exponent - 4)]
                with m.Else():
                    m.d.sync += [value.eq(value << 2), exponent.eq(exponent - 1)]
            with m.State("INTERPOLATE"):
                m.d.sync += product.eq(table_slope * low)
                m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += factor.eq(
                    table_value + ((product.as_signed() + (1 << (RSQRT_LG - 1))) >> RSQRT_LG)
                )
                m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.write_factor.eq(1)
                next_row("STATISTICS")

            # GET: a word, then its elements one by one.
            with m.State("READ"):
                m.d.sync += [count.eq(0), lane.eq(0)]
                with m.If(self.read_ready):
                    m.d.sync += reading.eq(0)
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.sync += count.eq(count + 1)
                with m.If(count == SP_READ_LATENCY - 1):
                    m.d.sync += [word.eq(self.read_data), word_address.eq(word_address + 1)]
                    m.next = "GET"
            with m.State("GET"):
                m.d.comb += self.write_scale.eq(1)
                m.d.sync += [word.eq(word >> 16), lane.eq(lane + 1)]
                next_row("GET")
                with m.If(~last_row & (lane == panel - 1)):
                    m.d.sync += reading.eq(1)
                    m.next = "READ"

            # PUT: elements enter at the top of the word, zeros fill the last one.
            with m.State("PUT"):
                m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.sync += [
                    word.eq(Cat(word[16:], Mux(row < command.m, self.magnitude, 0))),
                    row.eq(row + 1),
                    lane.eq(lane + 1),
                ]
                m.next = "PUT"
                with m.If(lane == panel - 1):
                    m.d.sync += storing.eq(1)
                    m.next = "STORE"
            with m.State("STORE"):
                m.d.sync += [word_address.eq(word_address + 1), storing.eq(0)]
                m.next = "PUT"
                with m.If(row >= command.m):
                    m.next = "SETTLE"

            # Until the last write is visible.
            with m.State("SETTLE"):
                m.d.sync += count.eq(0)
                m.next = "SETTLE2"
            with m.State("SETTLE2"):
                m.next = "IDLE"
        return m
