"""The row unit: what is computed once a row (division, rsqrt), and scale rows in and out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.commands import Opcode, RowOp
from tilewright.hw.config import Config
from tilewright.hw.layouts import command_layout
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.hw.memories.row_table import EXPONENT_BITS, F1_BITS, F2_BITS, FACTOR_BITS
from tilewright.hw.vector.row_engine import EPS_BITS, N_BITS, RowEngine


class RowUnit(Cell):
    """DIVIDE, RSQRT, GET and PUT.

    Rows of DIVIDE and RSQRT go to `config.row_engines` engines in turn, at most one every other
    cycle, and come back in order. GET and PUT move a scale row a cycle.

    Attributes
    ----------
    command, start : resolved ROW command; start is a pulse while not active
    active : high until the command's last write is visible
    stat_address : row of the row table to read; f1, f2 one cycle later
    write_factor, write_stat_address, factor, exponent : result of a row
    scale_address : scale row; magnitude one cycle later
    write_scale, write_magnitude : scale row for scale_address
    read_valid, read_ready, read_address, read_data : scratchpad reader
    write_valid, write_address, write_data : scratchpad writer, never refused
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_row_unit"
        self.engine = RowEngine()
        address = (config.sp_words - 1).bit_length()
        stat = (config.stat_rows - 1).bit_length()
        super().__init__(
            {
                "command": In(command_layout(Opcode.ROW).size),
                "start": In(1),
                "active": Out(1),
                "stat_address": Out(stat),
                "f1": In(F1_BITS),
                "f2": In(F2_BITS),
                "write_factor": Out(1),
                "write_stat_address": Out(stat),
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

    def cells(self) -> list[Cell]:
        return [self.engine]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        panel = self.config.panel
        layout = command_layout(Opcode.ROW)
        command = Signal(layout, reset_less=True)
        incoming = data.View(layout, self.command)
        row = Signal(16)
        word_address = Signal(16, reset_less=True)
        word = Signal(8 * self.config.word_bytes, reset_less=True)
        lane = Signal(range(panel))
        count = Signal(2)
        through = Signal()  # PUT: all rows are in words
        last_row = row + 1 == command.m
        m.d.comb += [
            self.stat_address.eq(command.stat + row),
            self.scale_address.eq(command.scale + row),
            self.read_address.eq(word_address),
            self.write_address.eq(word_address),
            self.write_data.eq(word),
            self.write_magnitude.eq(word[:16]),
        ]

        # Engines, one after the other: `give` names the one for the next row, `fetch` the one whose
        # result is the next.
        engines = self.config.row_engines
        give, fetch = Signal(range(max(2, engines))), Signal(range(max(2, engines)))
        given_all = Signal()
        there = Signal()  # f1 and f2 of `row`
        written = Signal(16)
        working = Signal()
        idle, done = Signal(engines), Signal(engines)
        starts, takes = Signal(engines), Signal(engines)
        factors = Signal(FACTOR_BITS * engines)
        exponents = Signal(EXPONENT_BITS * engines)
        issue, result = Signal(), Signal()
        m.d.comb += [
            issue.eq(working & there & ~given_all & idle.bit_select(give, 1)),
            result.eq(working & done.bit_select(fetch, 1)),
            starts.eq(issue << give),
            takes.eq(result << fetch),
            self.factor.eq(factors.word_select(fetch, FACTOR_BITS)),
            self.exponent.eq(exponents.word_select(fetch, EXPONENT_BITS)),
            self.write_factor.eq(result),
            self.write_stat_address.eq(command.stat + written),
        ]
        for index in range(engines):
            place(
                m,
                f"engine_{index}",
                self.engine,
                start=starts[index],
                rsqrt=command.op == RowOp.RSQRT,
                n=command.n[:N_BITS],
                eps=command.eps[:EPS_BITS],
                rms=command.rms,
                f1=self.f1,
                f2=self.f2,
                idle=idle[index],
                done=done[index],
                take=takes[index],
                factor=factors.word_select(index, FACTOR_BITS),
                exponent=exponents.word_select(index, EXPONENT_BITS),
            )

        def turn(pointer: Signal) -> None:
            m.d.sync += pointer.eq(Mux(pointer == engines - 1, 0, pointer + 1))

        # States READ and STORE in registers of their own: other units' grants wait for them.
        reading, storing = Signal(), Signal()
        m.d.comb += [self.read_valid.eq(reading), self.write_valid.eq(storing)]
        with m.FSM(name="row_fsm") as fsm:
            m.d.comb += self.active.eq(~fsm.ongoing("IDLE"))

            with m.State("IDLE"):
                m.d.sync += [
                    command.eq(incoming),
                    row.eq(0),
                    written.eq(0),
                    lane.eq(0),
                    through.eq(0),
                    count.eq(0),
                    give.eq(0),
                    fetch.eq(0),
                    given_all.eq(0),
                    there.eq(0),
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
                        m.next = "ENGINES"

            # DIVIDE and RSQRT.
            with m.State("ENGINES"):
                m.d.comb += working.eq(1)
                m.d.sync += there.eq(~issue)
                with m.If(issue):
                    turn(give)
                    m.d.sync += [row.eq(row + 1), given_all.eq(last_row)]
                with m.If(result):
                    turn(fetch)
                    m.d.sync += written.eq(written + 1)
                    with m.If(written + 1 == command.m):
                        m.next = "SETTLE"

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
                m.d.sync += [word.eq(word >> 16), lane.eq(lane + 1), row.eq(row + 1)]
                with m.If(last_row):
                    m.next = "SETTLE"
                with m.Elif(lane == panel - 1):
                    m.d.sync += reading.eq(1)
                    m.next = "READ"

            # PUT: elements enter at the top of the word, zeros fill the last one.
            with m.State("PUT"):
                m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.sync += [
                    word.eq(Cat(word[16:], Mux(through, 0, self.magnitude))),
                    row.eq(row + 1),
                    lane.eq(lane + 1),
                    through.eq(through | last_row),
                ]
                m.next = "PUT"
                with m.If(lane == panel - 1):
                    m.d.sync += storing.eq(1)
                    m.next = "STORE"
            with m.State("STORE"):
                m.d.sync += [word_address.eq(word_address + 1), storing.eq(0)]
                m.next = "PUT"
                with m.If(through):
                    m.next = "SETTLE"

            # Until the last write is visible.
            with m.State("SETTLE"):
                m.next = "SETTLE2"
            with m.State("SETTLE2"):
                m.next = "IDLE"
        return m
