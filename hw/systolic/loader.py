"""The weight loader: stationary tiles from the scratchpad into the shadow weights."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.commands import GROUP_ROWS, Opcode, WeightFormat
from tilewright.hw.config import Config
from tilewright.hw.layouts import command_layout
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.hw.systolic.transposer import Transposer
from tilewright.hw.systolic.walk import TileWalk

_ROWS_OF_S4 = 4
_K_MAX = 1 << 18  # rows of 4 bits that fill the largest scratchpad
SHIFT_LATENCY = 3
"""Cycles from the decision to start a tile to its first row at the array's edge."""


class WeightLoader(Cell):
    """Prefetches tiles and shifts them in, last row first, one row a cycle without a gap.

    Straight tiles are read two rows a word in falling order, or four of 4 bits behind their group
    scales; transposed ones two columns a word in rising order, through the transposer. A tile
    starts to shift when it is complete in the loader's own memory and the shadow weights are free
    or about to be (`swap_soon`, SHIFT_LATENCY cycles ahead of the swap at the array's edge).
    `tile_ready` pulses as soon as a row issued in the next cycle, `feeder_latency` cycles ahead of
    the array, meets the whole tile in its shadow.

    Attributes
    ----------
    command, command_valid, command_ready : resolved MATMUL commands
    read_* : scratchpad reader
    swap_soon : the swap reaches the array in SHIFT_LATENCY cycles
    tile_ready : pulse
    load_rows, w : to the array
    """

    def __init__(self, config: Config, *, feeder_latency: int) -> None:
        self.config = config
        self.feeder_latency = feeder_latency
        self.cell_name = "tilewright_weight_loader"
        self.transposer = Transposer(config)
        super().__init__(
            {
                "command": In(command_layout(Opcode.MATMUL).size),
                "command_valid": In(1),
                "command_ready": Out(1),
                "read_valid": Out(1),
                "read_ready": In(1),
                "read_address": Out((config.sp_words - 1).bit_length()),
                "read_data": In(8 * config.word_bytes),
                "swap_soon": In(1),
                "tile_ready": Out(1),
                "load_rows": Out(config.rows),
                "w": Out(config.weight_bits * config.columns),
            }
        )

    def cells(self) -> list[Cell]:
        return [self.transposer]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        rows, columns, panel = config.rows, config.columns, config.panel
        word_bits = 8 * config.word_bytes
        address_bits = len(self.read_address)
        sub_bits = max(1, (panel // min(rows, columns) - 1).bit_length())

        # Prefetch: one request a word, as many under way as the queue has room for.
        command = Signal(command_layout(Opcode.MATMUL), reset_less=True)
        incoming = data.View(command_layout(Opcode.MATMUL), self.command)
        active = Signal()
        transposed = command.transposed
        packed = Signal()  # 4-bit weights
        m.d.comb += packed.eq((command.weights == WeightFormat.S4) & ~transposed)
        incoming_packed = (incoming.weights == WeightFormat.S4) & ~incoming.transposed
        walk = TileWalk(m, kt=command.kt, nt=command.nt, k_outer=command.k_outer, prefix="prefetch")
        word = Signal(range(panel), reset_less=True)  # word of the tile
        base = Signal(address_bits, reset_less=True)  # the panel's
        offset = Signal(address_bits, reset_less=True)  # of the tile in its panel
        sub = Signal(sub_bits, reset_less=True)
        words = Signal(range(panel + 1))
        m.d.comb += words.eq(
            Mux(transposed, columns // 2, Mux(packed, rows // _ROWS_OF_S4, rows // 2))
        )
        # Group scales: four groups a word, as the weights' rows; a tile's come before its weights.
        groups = max(1, rows // GROUP_ROWS)  # of a tile
        group_next = Signal()
        group_base = Signal(address_bits, reset_less=True)
        k_row = Signal(range(_K_MAX + rows), reset_less=True)
        group_number = k_row[(GROUP_ROWS - 1).bit_length() :]
        depth = max(panel, 8)
        free = Signal(range(depth + 1), init=depth)
        moves, issued = Signal(), Signal()  # a request is made; one of weights
        # A request is made a cycle before it is shown: grants begin at registers.
        request, granted = Signal(), Signal()
        request_address = Signal(address_bits, reset_less=True)
        m.d.comb += [
            self.read_valid.eq(request),
            self.read_address.eq(request_address),
            granted.eq(request & self.read_ready),
            moves.eq(active & (free != 0) & (~request | self.read_ready)),
            issued.eq(moves & ~group_next),
        ]
        with m.If(moves):
            m.d.sync += [
                request.eq(1),
                request_address.eq(
                    Mux(
                        group_next,
                        group_base + group_number[2:],
                        base + offset + Mux(transposed, word, words - 1 - word),
                    )
                ),
                group_next.eq(0),
            ]
        with m.Elif(granted):
            m.d.sync += request.eq(0)
        tile_issued = Signal()
        m.d.comb += tile_issued.eq(issued & (word == words - 1))
        empty_command = (incoming.m == 0) | (incoming.kt == 0) | (incoming.nt == 0)
        # Not in the last tile's cycle: that would hang the dispatcher on this cycle's grants.
        m.d.comb += self.command_ready.eq(~active)
        with m.If(issued):
            m.d.sync += word.eq(word + 1)
        with m.If(tile_issued):
            m.d.sync += [word.eq(0), group_next.eq(packed)]
            walk.advance(m)
            # Straight: a panel holds W / C tiles along N and runs along K; transposed: W / R tiles
            # along K, and it runs along N.
            major_step = Mux(transposed, walk.k_step, walk.n_step)
            major_reset = Mux(transposed, walk.k_reset, walk.n_reset)
            minor_step = Mux(transposed, walk.n_step, walk.k_step)
            minor_reset = Mux(transposed, walk.n_reset, walk.k_reset)
            last_sub = Mux(transposed, panel // rows - 1, panel // columns - 1)
            with m.If(major_reset):
                m.d.sync += [
                    sub.eq(0),
                    base.eq(command.w_addr),
                    group_base.eq(command.group_addr),
                ]
            with m.Elif(major_step):
                with m.If(sub == last_sub):
                    m.d.sync += [
                        sub.eq(0),
                        base.eq(base + command.w_stride),
                        group_base.eq(group_base + command.group_stride),
                    ]
                with m.Else():
                    m.d.sync += sub.eq(sub + 1)
            with m.If(minor_reset):
                m.d.sync += [offset.eq(0), k_row.eq(0)]
            with m.Elif(minor_step):
                m.d.sync += [offset.eq(offset + words), k_row.eq(k_row + rows)]
            with m.If(walk.last):
                m.d.sync += active.eq(0)
        with m.If(self.command_valid & self.command_ready):
            m.d.sync += [
                command.eq(incoming),
                active.eq(~empty_command),
                word.eq(0),
                sub.eq(0),
                base.eq(incoming.w_addr),
                offset.eq(0),
                group_next.eq(incoming_packed),
                group_base.eq(incoming.group_addr),
                k_row.eq(0),
            ]

        # What comes back, with what is to be done with it.
        note_shape = data.StructLayout(
            {"sub": sub_bits, "transposed": 1, "last": 1, "packed": 1, "group": 1, "quarter": 2}
        )
        note = Signal(note_shape)
        m.d.comb += [
            note.sub.eq(sub),
            note.transposed.eq(transposed),
            note.last.eq(word == words - 1),
            note.packed.eq(packed),
            note.group.eq(group_next),
            note.quarter.eq(group_number[:2]),
        ]
        request_note = Signal(note_shape.size, reset_less=True)
        with m.If(moves):
            m.d.sync += request_note.eq(note.as_value())
        arrived, arrived_note = granted, request_note
        for stage in range(SP_READ_LATENCY):
            later = Signal(name=f"arrived_{stage}")
            later_note = Signal(note_shape.size, name=f"note_{stage}", reset_less=True)
            m.d.sync += [later.eq(arrived), later_note.eq(arrived_note)]
            arrived, arrived_note = later, later_note
        m.submodules.words = fifo = SyncFIFOBuffered(width=word_bits + note_shape.size, depth=depth)
        head = data.View(note_shape, fifo.r_data[word_bits:])
        head_word = fifo.r_data[:word_bits]
        came = data.View(note_shape, arrived_note)
        m.d.comb += [
            fifo.w_en.eq(arrived & ~came.group),
            fifo.w_data.eq(Cat(self.read_data, arrived_note)),
        ]
        # A tile's group scales wait beside the weights; there are never more tiles than words.
        group_bits = 4 * columns
        m.submodules.groups = group_fifo = SyncFIFOBuffered(
            width=groups * group_bits, depth=depth + 1
        )
        m.d.comb += [
            group_fifo.w_en.eq(arrived & came.group),
            group_fifo.w_data.eq(
                Cat(
                    self.read_data.word_select((came.quarter + index)[:2], 4 * panel).word_select(
                        came.sub, group_bits
                    )
                    for index in range(groups)
                )
            ),
        ]
        popped = Signal()
        m.d.comb += [popped.eq(fifo.r_en & fifo.r_rdy)]
        with m.If(issued & ~popped):
            m.d.sync += free.eq(free - 1)
        with m.Elif(popped & ~issued):
            m.d.sync += free.eq(free + 1)

        # Complete straight tiles in the queue; counted late enough for its output to keep up.
        stored = arrived & came.last & ~came.transposed & ~came.group
        stored1, stored2 = Signal(), Signal()
        m.d.sync += [stored1.eq(stored), stored2.eq(stored1)]
        tiles = Signal(range(depth + 1))
        take_straight = Signal()
        with m.If(stored2 & ~take_straight):
            m.d.sync += tiles.eq(tiles + 1)
        with m.Elif(take_straight & ~stored2):
            m.d.sync += tiles.eq(tiles - 1)

        # Into the transposer: a column a cycle while a buffer is free.
        full = Signal(2)
        write_buffer, read_buffer = Signal(), Signal()
        column = Signal(range(columns))
        writes = Signal()
        leaves = Signal()  # the last row of `read_buffer`, which is free then
        free_buffer = ~full.bit_select(write_buffer, 1) | (leaves & (write_buffer == read_buffer))
        m.d.comb += writes.eq(fifo.r_rdy & head.transposed & free_buffer)
        half = Signal(8 * panel)
        m.d.comb += half.eq(Mux(column[0], head_word[8 * panel :], head_word[: 8 * panel]))
        write1 = Signal()
        buffer1 = Signal(reset_less=True)
        column1 = Signal(range(columns), reset_less=True)
        data1 = Signal(8 * rows, reset_less=True)
        m.d.sync += [
            write1.eq(writes),
            buffer1.eq(write_buffer),
            column1.eq(column),
            data1.eq(half.word_select(head.sub, 8 * rows)),
        ]
        with m.If(writes):
            m.d.sync += column.eq(column + 1)
            with m.If(column == columns - 1):
                m.d.sync += [
                    column.eq(0),
                    full.bit_select(write_buffer, 1).eq(1),
                    write_buffer.eq(~write_buffer),
                ]

        # Shift a tile in: `row` counts the rows, R - 1 first.
        shifting = Signal()
        from_transposer = Signal(reset_less=True)
        row = Signal(range(rows), reset_less=True)
        shadow_free = Signal(init=1)
        free_now = shadow_free | self.swap_soon
        done = Signal()
        m.d.comb += done.eq(shifting & (row == rows - 1))
        # Transposed words under way or in the queue.
        turned = Signal(range(depth + 1))
        turned_in, turned_out = issued & transposed, popped & head.transposed
        with m.If(turned_in & ~turned_out):
            m.d.sync += turned.eq(turned + 1)
        with m.Elif(turned_out & ~turned_in):
            m.d.sync += turned.eq(turned - 1)
        # The next tile may start with the last row of the one before. Behind a transposed one that
        # leaves its buffer then; behind a straight one, whose last word is still the queue's head,
        # only where all words that follow are straight.
        m.d.comb += leaves.eq(done & from_transposer)
        next_buffer = read_buffer ^ leaves
        others = Signal(2)
        m.d.comb += others.eq(full & ~Mux(leaves, 1 << read_buffer, 0))
        start_transposed = others.bit_select(next_buffer, 1)
        next_straight = Mux(
            done & ~from_transposer,
            turned == 0,
            ~others.any() & (column == 0) & fifo.r_rdy & ~head.transposed,
        )
        start_straight = (tiles != 0) & next_straight
        can_start = Signal()
        m.d.comb += can_start.eq((~shifting | done) & free_now)
        start = Signal()
        m.d.comb += [
            start.eq(can_start & (start_transposed | start_straight)),
            take_straight.eq(can_start & start_straight & ~start_transposed),
        ]
        with m.If(self.swap_soon):
            m.d.sync += shadow_free.eq(1)
        with m.If(shifting):
            m.d.sync += row.eq(row + 1)
        with m.If(done):
            m.d.sync += shifting.eq(0)
            with m.If(from_transposer):
                m.d.sync += [
                    full.bit_select(read_buffer, 1).eq(0),
                    read_buffer.eq(~read_buffer),
                ]
        with m.If(start):
            m.d.sync += [
                shifting.eq(1),
                row.eq(0),
                from_transposer.eq(start_transposed),
                shadow_free.eq(0),
            ]
        straight_pop = shifting & ~from_transposer & row[0] & (row[1] | ~head.packed)
        m.d.comb += fifo.r_en.eq(straight_pop | (writes & (column[0] == 1)))

        transposer_row = Signal(8 * columns)
        place(
            m,
            "transposer",
            self.transposer,
            write=write1,
            write_buffer=buffer1,
            write_column=column1,
            column=data1,
            read_buffer=read_buffer,
            read_row=~row,  # rows − 1 − row
            row=transposer_row,
        )

        # Two registers to the array's edge: the straight row waits one cycle for the transposer's.
        straight1 = Signal(8 * columns, reset_less=True)
        shift1, shift2 = Signal(), Signal()
        transposed1 = Signal(reset_less=True)
        row1 = Signal(range(rows), reset_less=True)
        straight_half = Mux(row[0], head_word[: 8 * panel], head_word[8 * panel :])
        straight_quarter = head_word.word_select(~row[:2], 4 * panel)
        packed1 = Signal(reset_less=True)
        group1 = Signal(group_bits, reset_less=True)
        m.d.comb += group_fifo.r_en.eq(done & ~from_transposer & head.packed)
        row_group = ~row[(GROUP_ROWS - 1).bit_length() :] if groups > 1 else 0
        expanded = [
            straight1.word_select(index, 4).as_signed() * group1.word_select(index, 4)
            for index in range(columns)
        ]
        bytes2 = Signal(8 * columns, reset_less=True)
        m.d.sync += [
            straight1.eq(
                Mux(
                    head.packed,
                    straight_quarter.word_select(head.sub, 4 * columns),
                    straight_half.word_select(head.sub, 8 * columns),
                )
            ),
            packed1.eq(head.packed),
            group1.eq(group_fifo.r_data.word_select(row_group, group_bits)),
            shift1.eq(shifting),
            transposed1.eq(from_transposer),
            row1.eq(row),
            shift2.eq(shift1),
            bytes2.eq(
                Mux(
                    transposed1,
                    transposer_row,
                    Mux(packed1, Cat(value[:8] for value in expanded), straight1),
                )
            ),
        ]
        rows2 = Signal(rows)
        m.d.sync += rows2.eq(
            Mux(shift1, Cat(row1 >= index for index in range(rows)), 0),
        )
        m.d.comb += [
            self.load_rows.eq(rows2),
            self.w.eq(
                Cat(bytes2.word_select(index, 8)[: config.weight_bits] for index in range(columns))
            ),
        ]

        # Row j of the tile leaves at t + j (t: first cycle of `shifting`, one behind the decision)
        # and is in the shadow from cycle t + j + SHIFT_LATENCY on; a pass issued at cycle u swaps
        # at u + feeder_latency and sees `tile_ready` of cycle u - 1 at the latest.
        at = max(0, rows - 1 + SHIFT_LATENCY - self.feeder_latency - 1)
        m.d.comb += self.tile_ready.eq(shifting & (row == at))
        return m
