"""The MATMUL unit: passes over tiles, from scratchpad rows to accumulator words."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.commands import Opcode, XMode
from tilewright.hw.config import Config
from tilewright.hw.layouts import command_layout
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.hw.memories.accumulator import WRITE_LATENCY
from tilewright.hw.systolic.array import SystolicArray, array_latency
from tilewright.hw.systolic.feeder import FEEDER_LATENCY, Feeder
from tilewright.hw.systolic.loader import SHIFT_LATENCY, WeightLoader
from tilewright.hw.systolic.walk import TileWalk

ISSUE_TO_ARRAY = SP_READ_LATENCY + FEEDER_LATENCY
"""Cycles from a row's scratchpad request to its activations at the array."""


class MatmulUnit(Cell):
    """Runs MATMUL commands; tile follows tile, and command follows command, without a bubble.

    A pass lasts max(m, R) cycles, and more only where a row would meet an accumulator word whose
    read-modify-write is under way. The unit takes a command when loader and feeder both can.

    Attributes
    ----------
    command, command_valid, command_ready : resolved command
    done : pulse, the command's last word is written and visible
    feeder_read_*, loader_read_* : scratchpad readers (the feeder is never refused)
    scale_address, scale_m, scale_e : row table, (m, e) SCALE_LATENCY behind the address
    sums, sum_* : to the accumulators
    busy, stall_weights, stall_hazard, draining : what the unit does in this cycle
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_matmul"
        self.array = SystolicArray(config)
        self.feeder = Feeder(config)
        self.loader = WeightLoader(config, feeder_latency=ISSUE_TO_ARRAY)
        sp_address = (config.sp_words - 1).bit_length()
        word = 8 * config.word_bytes
        super().__init__(
            {
                "command": In(command_layout(Opcode.MATMUL).size),
                "command_valid": In(1),
                "command_ready": Out(1),
                "done": Out(1),
                "feeder_read_valid": Out(1),
                "feeder_read_address": Out(sp_address),
                "feeder_read_data": In(word),
                "loader_read_valid": Out(1),
                "loader_read_ready": In(1),
                "loader_read_address": Out(sp_address),
                "loader_read_data": In(word),
                "scale_address": Out((config.scale_rows - 1).bit_length()),
                "scale_m": In(2),
                "scale_e": In(4),
                "sums": Out(config.psum_bits * config.columns),
                "sum_valid": Out(1),
                "sum_accumulate": Out(1),
                "sum_address": Out((config.acc_words - 1).bit_length()),
                "sum_top": Out(1),
                "sum_top_first": Out(1),
                "sum_top_left": Out(config.columns.bit_length()),
                "sum_top_stat": Out((config.stat_rows - 1).bit_length()),
                "busy": Out(1),
                "stall_weights": Out(1),
                "stall_hazard": Out(1),
                "draining": Out(1),
            }
        )

    def cells(self) -> list[Cell]:
        return [self.array, self.feeder, self.loader]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        layout = command_layout(Opcode.MATMUL)
        subs = config.panel // config.rows
        sub_bits = len(self.feeder.sub)
        command = Signal(layout, reset_less=True)
        incoming = data.View(layout, self.command)

        # A command goes to loader and feeder in the same cycle.
        loader_ready = Signal()
        feeder_ready = Signal()
        taken = Signal()
        m.d.comb += [
            self.command_ready.eq(loader_ready & feeder_ready),
            taken.eq(self.command_valid & self.command_ready),
        ]

        # The feeder holds a second command, so that the loader may prefetch its weights.
        active = Signal()
        waiting = Signal()
        following = Signal(layout, reset_less=True)
        finish = Signal()  # the last row of the command is issued, or there is none
        m.d.comb += feeder_ready.eq(~waiting)

        walk = TileWalk(m, kt=command.kt, nt=command.nt, k_outer=command.k_outer, prefix="pass")
        row = Signal(16)
        sub = Signal(sub_bits)
        panel_address = Signal(16, reset_less=True)
        acc_tile = Signal(16, reset_less=True)
        # This row's word in the panel and in the accumulators: registers, as who reads the
        # scratchpad behind the feeder waits for its address, and the hazard for the other.
        row_address = Signal(16, reset_less=True)
        acc_row = Signal(16, reset_less=True)
        column = Signal(17, reset_less=True)  # the tile's first
        tile_ready = Signal()
        ready = Signal()
        hazard = Signal()
        empty = Signal()
        bytes_mode = Signal()

        # A register, as a grant of the scratchpad waits for it.
        first_row = Signal(reset_less=True)
        last_row = row + 1 == command.m
        wants = Signal()
        issue = Signal()
        m.d.comb += [
            wants.eq(active & ~empty & (~first_row | ready)),
            issue.eq(wants & ~hazard),
            finish.eq(active & (empty | (issue & last_row & walk.last))),
            self.busy.eq(issue),
            self.stall_weights.eq(active & ~empty & first_row & ~ready),
            self.stall_hazard.eq(wants & hazard),
        ]
        with m.If(tile_ready):
            m.d.sync += ready.eq(1)
        with m.Elif(issue & first_row):
            m.d.sync += ready.eq(0)
        with m.If(issue):
            m.d.sync += [
                row.eq(row + 1),
                first_row.eq(0),
                row_address.eq(row_address + (~bytes_mode | row[0])),
                acc_row.eq(acc_row + 1),
            ]
            with m.If(last_row):
                next_panel = Signal.like(panel_address)
                next_tile = Signal.like(acc_tile)
                m.d.comb += [next_panel.eq(panel_address), next_tile.eq(acc_tile)]
                m.d.sync += [
                    row.eq(0),
                    first_row.eq(1),
                    panel_address.eq(next_panel),
                    row_address.eq(next_panel),
                    acc_tile.eq(next_tile),
                    acc_row.eq(next_tile),
                ]
                walk.advance(m)
                with m.If(walk.k_reset):
                    m.d.sync += sub.eq(0)
                    m.d.comb += next_panel.eq(command.x_addr)
                with m.Elif(walk.k_step):
                    with m.If(sub == subs - 1):
                        m.d.sync += sub.eq(0)
                        m.d.comb += next_panel.eq(panel_address + command.x_stride)
                    with m.Else():
                        m.d.sync += sub.eq(sub + 1)
                with m.If(walk.n_reset):
                    m.d.sync += column.eq(0)
                    m.d.comb += next_tile.eq(command.acc_addr)
                with m.Elif(walk.n_step):
                    # Beyond every `valid` it stays there.
                    m.d.sync += column.eq(Mux(column[16], column, column + config.columns))
                    m.d.comb += next_tile.eq(acc_tile + command.acc_stride)

        def start(source: data.View) -> list:
            return [
                command.eq(source),
                empty.eq((source.m == 0) | (source.kt == 0) | (source.nt == 0)),
                bytes_mode.eq((source.mode == XMode.S8) | (source.mode == XMode.U8)),
                row.eq(0),
                first_row.eq(1),
                sub.eq(0),
                panel_address.eq(source.x_addr),
                row_address.eq(source.x_addr),
                acc_tile.eq(source.acc_addr),
                acc_row.eq(source.acc_addr),
                column.eq(0),
            ]

        with m.If(~active | finish):
            with m.If(waiting):
                m.d.sync += [*start(following), active.eq(1), waiting.eq(0)]
            with m.Else():
                m.d.sync += [*start(incoming), active.eq(taken)]
        with m.Elif(taken):
            m.d.sync += [following.eq(incoming), waiting.eq(1)]

        m.d.comb += [
            # A row held by a hazard keeps its port: the other readers' grants need not wait for it.
            self.feeder_read_valid.eq(wants),
            self.feeder_read_address.eq(row_address),
            self.scale_address.eq(command.scale + row),
        ]

        # What the feeder needs to know of a row travels beside its word.
        note_shape = data.StructLayout({"sub": sub_bits, "half": 1, "mode": 3})
        note = Signal(note_shape)
        m.d.comb += [note.sub.eq(sub), note.half.eq(row[0]), note.mode.eq(command.mode)]
        at_word = note.as_value()
        for stage in range(SP_READ_LATENCY):
            later = Signal(note_shape.size, name=f"note_{stage}", reset_less=True)
            m.d.sync += later.eq(at_word)
            at_word = later
        word_note = data.View(note_shape, at_word)
        activations = Signal(9 * config.rows)
        place(
            m,
            "feeder",
            self.feeder,
            word=self.feeder_read_data,
            sub=word_note.sub,
            half=word_note.half,
            mode=word_note.mode,
            m=self.scale_m,
            e=self.scale_e,
            a=activations,
        )

        swaps = Signal(ISSUE_TO_ARRAY)
        m.d.sync += swaps.eq(Cat(issue & first_row, swaps))
        load_rows = Signal(config.rows)
        weights = Signal(config.weight_bits * config.columns)
        place(
            m,
            "loader",
            self.loader,
            command=self.command,
            command_valid=taken,
            command_ready=loader_ready,
            read_valid=self.loader_read_valid,
            read_ready=self.loader_read_ready,
            read_address=self.loader_read_address,
            read_data=self.loader_read_data,
            swap_soon=swaps[ISSUE_TO_ARRAY - SHIFT_LATENCY - 1],
            tile_ready=tile_ready,
            load_rows=load_rows,
            w=weights,
        )
        place(
            m,
            "array",
            self.array,
            a=activations,
            swap=swaps[-1],
            load_rows=load_rows,
            w=weights,
            p=self.sums,
        )

        # Control of a row's sums, from its issue to column 0 of the accumulators.
        control_shape = data.StructLayout(
            {
                "accumulate": 1,
                "address": len(self.sum_address),
                "top": 1,
                "top_first": 1,
                "top_stat": len(self.sum_top_stat),
            }
        )
        control = Signal(control_shape)
        m.d.comb += [
            control.accumulate.eq(command.accumulate | (walk.k != 0)),
            control.address.eq(acc_row),
            control.top.eq(command.row_max & (walk.k + 1 == command.kt)),
            control.top_first.eq(walk.n == 0),
            control.top_stat.eq(command.stat + row),
        ]
        # Columns of this tile that count in the row's maximum, in two steps.
        causal_limit = command.row0 + row + 1
        limit = Signal(17, reset_less=True)
        tile_column = Signal(17, reset_less=True)
        top_left = Signal.like(self.sum_top_left, reset_less=True)
        beyond = Signal(signed(18))
        m.d.comb += beyond.eq(limit - tile_column)
        m.d.sync += [
            limit.eq(
                Mux(command.causal & (causal_limit < command.valid), causal_limit, command.valid)
            ),
            tile_column.eq(column),
            top_left.eq(
                Mux(beyond < 0, 0, Mux(beyond > config.columns, config.columns, beyond[:17]))
            ),
        ]
        # A word may come again WRITE_LATENCY + 1 cycles later at the earliest. That concerns short
        # passes, tiles that overlap, and commands whose tiles lie across each other.
        earlier_valid, earlier_address = issue, control.address
        clashes = []
        for stage in range(WRITE_LATENCY):
            valid_later = Signal(name=f"written_valid_{stage}")
            address_later = Signal(len(self.sum_address), name=f"written_{stage}", reset_less=True)
            m.d.sync += [valid_later.eq(earlier_valid), address_later.eq(earlier_address)]
            earlier_valid, earlier_address = valid_later, address_later
            clashes.append(valid_later & (address_later == control.address))
        m.d.comb += hazard.eq(control.accumulate & Cat(clashes).any())
        delay = ISSUE_TO_ARRAY + array_latency(config.rows)
        left_line = Signal(len(top_left) * (delay - 2), reset_less=True)
        m.d.sync += left_line.eq(Cat(top_left, left_line)[: len(left_line)])
        size = control_shape.size
        line = Signal(size * delay, reset_less=True)
        valid_line = Signal(delay)
        m.d.sync += [
            line.eq(Cat(control, line)[: size * delay]),
            valid_line.eq(Cat(issue, valid_line)[:delay]),
        ]
        at_column0 = data.View(control_shape, line[-size:])
        m.d.comb += [
            self.sum_valid.eq(valid_line[-1]),
            self.sum_accumulate.eq(at_column0.accumulate),
            self.sum_address.eq(at_column0.address),
            self.sum_top.eq(at_column0.top),
            self.sum_top_first.eq(at_column0.top_first),
            self.sum_top_stat.eq(at_column0.top_stat),
            self.sum_top_left.eq(left_line[-len(top_left) :]),
        ]
        # The command is done when its last row has passed the last column and is written.
        done_line = Signal(delay + config.columns + WRITE_LATENCY)
        m.d.sync += done_line.eq(Cat(finish, done_line)[: len(done_line)])
        m.d.comb += [self.done.eq(done_line[-1]), self.draining.eq(done_line.any())]
        return m
