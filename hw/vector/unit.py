"""The VECTOR unit: sequencer, lanes, output, statistics and the row unit."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.commands import BYTE_OUTS, Mul, Opcode, Post, Pre
from tilewright.hw.commands import Out as OutFormat
from tilewright.hw.config import Config
from tilewright.hw.layouts import command_layout
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.hw.memories.row_table import (
    EXPONENT_BITS,
    F1_BITS,
    F2_BITS,
    FACTOR_BITS,
    SCALE_LATENCY,
    TOP_BITS,
)
from tilewright.hw.tables import INVERSE_MANTISSA
from tilewright.hw.vector import lane as stages
from tilewright.hw.vector.lane import LANE_LATENCY, Lane
from tilewright.hw.vector.row_unit import RowUnit
from tilewright.hw.vector.statistics import Statistics, statistics_latency

TO_LANE = SP_READ_LATENCY + 1
"""Cycles from an item's issue to stage 0 of the lanes."""
LEAST_GROUP = 3
"""Least cycles from a row to its next group, for the read-modify-write of row statistics."""
COUNTERS_AHEAD = 3
"""Cycles the output's counters run ahead of the lanes' results, to make masks and addresses."""


def delayed(m: Module, name: str, value: Value, cycles: int, reset_less: bool = True) -> Value:
    """The value some cycles later."""
    for cycle in range(cycles):
        later = Signal(value.shape(), name=f"{name}_{cycle}", reset_less=reset_less)
        m.d.sync += later.eq(value)
        value = later
    return value


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The command under way.

    Attributes
    ----------
    command : VECTOR's fields, held
    incoming : those at the port
    start : a command is taken, of either kind
    running : VECTOR, from its start to `done`
    generating : items are left to make
    item_valid : one is there to issue
    """

    command: Any
    incoming: Any
    start: Signal
    running: Signal
    generating: Signal
    item_valid: Signal


@dataclass(frozen=True, kw_only=True)
class _Issue:
    """The item at its issue.

    Attributes
    ----------
    item : its fields
    any : an item goes
    row : it is a part of a row
    value : the last part
    last : the command's last item
    nothing : a command without items was started in the cycle before
    """

    item: Any
    any: Signal
    row: Signal
    value: Signal
    last: Signal
    nothing: Signal


@dataclass(frozen=True, kw_only=True)
class _Output:
    """What the lanes' results need.

    Attributes
    ----------
    wide : the command writes 16 bits an element
    keep : valid columns, at the lanes' last stage
    keep_later : those a cycle later, with the results
    valid : there are results
    at : their place, group and rows
    """

    wide: Signal
    keep: Signal
    keep_later: Value
    valid: Value
    at: Any


class VectorUnit(Cell):
    """Runs VECTOR and ROW commands, one at a time; the pipeline drains between them.

    Groups of L columns outer, rows inner, one item a cycle; the channel parameters a group needs
    go ahead of its rows as items of their own.

    Attributes
    ----------
    command, row_command : resolved VECTOR command, ROW command
    is_row : it is the latter that counts
    command_valid, command_ready : one is there, it is taken
    done : pulse, the last write is visible
    acc_read_* : accumulator reader; sp_read_*, sp_write_* : scratchpad (writes never refused)
    the row table's ports
    busy, stall_operand, stall_row, draining : what the unit does in this cycle
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_vector"
        self.lane = Lane(functions=config.functions)
        self.row_unit = RowUnit(config)
        self.stat_bits = (config.stat_rows - 1).bit_length()
        self.scale_bits = (config.scale_rows - 1).bit_length()
        self.statistics = Statistics(
            lanes=config.lanes, stat_bits=self.stat_bits, scale_bits=self.scale_bits
        )
        word = 8 * config.word_bytes
        sp_address = (config.sp_words - 1).bit_length()
        super().__init__(
            {
                "command": In(command_layout(Opcode.VECTOR).size),
                "row_command": In(command_layout(Opcode.ROW).size),
                "is_row": In(1),
                "command_valid": In(1),
                "command_ready": Out(1),
                "done": Out(1),
                "acc_read_valid": Out(1),
                "acc_read_ready": In(1),
                "acc_read_address": Out((config.acc_words - 1).bit_length()),
                "acc_read_data": In(32 * config.columns),
                "sp_read_valid": Out(1),
                "sp_read_ready": In(1),
                "sp_read_address": Out(sp_address),
                "sp_read_data": In(word),
                "sp_write_valid": Out(1),
                "sp_write_address": Out(sp_address),
                "sp_write_data": Out(word),
                "sp_write_mask": Out(config.word_bytes // config.lanes),
                "scale_address": Out(self.scale_bits),
                "scale_m": In(2),
                "scale_e": In(4),
                "early_stat": Out(self.stat_bits),
                "early_f1": In(signed(F1_BITS)),
                "early_factor": In(FACTOR_BITS),
                "early_exponent": In(EXPONENT_BITS),
                "early_top": In(signed(TOP_BITS)),
                "update_scale": Out(self.scale_bits),
                "update_stat": Out(self.stat_bits),
                "f1": In(signed(F1_BITS)),
                "f2": In(F2_BITS),
                "magnitude": In(16),
                "write_scale": Out(1),
                "write_scale_address": Out(self.scale_bits),
                "write_magnitude": Out(16),
                "write_f1": Out(1),
                "write_f2": Out(1),
                "write_factor": Out(1),
                "write_stat_address": Out(self.stat_bits),
                "write_f1_data": Out(signed(F1_BITS)),
                "write_f2_data": Out(F2_BITS),
                "write_factor_data": Out(FACTOR_BITS),
                "write_exponent_data": Out(EXPONENT_BITS),
                "busy": Out(1),
                "stall_operand": Out(1),
                "stall_row": Out(1),
                "draining": Out(1),
            }
        )

    def cells(self) -> list[Cell]:
        return [self.lane, self.row_unit, self.statistics]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = command_layout(Opcode.VECTOR)
        command = Signal(layout, reset_less=True)
        incoming = data.View(layout, self.command)

        # One command at a time.
        running = Signal()
        generating = Signal()
        item_valid = Signal()
        row_mode = Signal()  # the row unit has the ports: `row_active` and one cycle more
        row_active, row_was_active = Signal(), Signal()
        start = Signal()
        m.d.comb += [
            self.command_ready.eq(~running & ~row_mode),
            start.eq(self.command_valid & self.command_ready),
        ]
        m.d.sync += row_was_active.eq(row_active)
        with m.If(start & self.is_row):
            m.d.sync += row_mode.eq(1)
        with m.Elif(~row_active):
            m.d.sync += row_mode.eq(0)
        run = _Run(
            command=command,
            incoming=incoming,
            start=start,
            running=running,
            generating=generating,
            item_valid=item_valid,
        )

        issue = self._sequence(m, run)
        inputs = {
            **self._operands(m, issue),
            **self._row_values(m, run, issue),
            **self._parameters(m, run, issue),
        }
        output = self._follow(m, run, issue)
        results, maxima = self._lanes(m, run, inputs, output)
        write = self._write(m, run, results, output)
        statistics = self._statistics(m, run, results, maxima, output)
        row_unit = self._row_unit(m, run, row_active)
        self._share(m, run, issue, row_mode, write, statistics, row_unit)

        # The end: the last item has left statistics and its word is visible to readers.
        drain = TO_LANE + LANE_LATENCY + statistics_latency(self.config.lanes) + 2
        ended = Signal(drain)
        m.d.sync += ended.eq(Cat(issue.last, ended)[:drain])
        vector_done = ended[-1] | issue.nothing
        with m.If(vector_done):
            m.d.sync += running.eq(0)
        m.d.comb += [
            self.done.eq(vector_done | (row_was_active & ~row_active)),
            self.busy.eq(issue.row),
            self.stall_operand.eq((generating | item_valid) & ~issue.row),
            self.stall_row.eq(row_mode),
            self.draining.eq(running & ~generating & ~item_valid),
        ]
        return m

    def _sequence(self, m: Module, run: _Run) -> _Issue:
        """Make items, each a cycle before its issue: parameters of a group, then its rows."""
        config = self.config
        lanes, panel, columns = config.lanes, config.panel, config.columns
        command, incoming = run.command, run.incoming
        needs = Signal(5)
        affine = incoming.post == Post.AFFINE
        channel_mul = incoming.mul == Mul.CHANNEL
        incoming_needs = Signal(5)
        m.d.comb += incoming_needs.eq(
            Cat(
                channel_mul,
                channel_mul,
                incoming.bias | affine,
                incoming.bias | affine,
                incoming.post != Post.NONE,
            )
        )
        left = Signal(5)  # parameters of the group still to issue
        row = Signal(16)
        group = Signal(range(max(2, panel // lanes)))  # in its panel
        tile_group = Signal(range(max(2, columns // lanes)))  # in its accumulator tile
        panels_left = Signal(16)
        least = Signal(range(LEAST_GROUP))
        in_panel = Signal(16, reset_less=True)
        par_panel = Signal(16, reset_less=True)
        acc_tile = Signal(16, reset_less=True)
        acc_region = Signal(16, reset_less=True)  # of this part

        parameter = Signal()
        number = Signal(range(5))
        m.d.comb += parameter.eq(left.any())
        for index in reversed(range(5)):
            with m.If(left[index]):
                m.d.comb += number.eq(index)
        from_sp = command.source == 1
        part = Signal(range(3))
        last_part = from_sp | (part == command.parts)
        last_row = row + 1 == command.m
        last_group_of_panel = group == panel // lanes - 1
        last_group_of_tile = tile_group == columns // lanes - 1
        last_group = last_group_of_panel & (panels_left == 1)
        item = Signal(
            data.StructLayout(
                {
                    "parameter": 1,
                    "number": 3,
                    "needs_acc": 1,
                    "needs_sp": 1,
                    "row": 16,
                    "first_row": 1,
                    "last_row": 1,
                    "more": 1,
                    "last_part": 1,
                    "last": 1,
                    "group": len(group),
                    "tile_group": len(tile_group),
                    "sp_address": len(self.sp_read_address),
                    "acc_address": len(self.acc_read_address),
                }
            ),
            reset_less=True,
        )

        # Issue.
        # A group's last row waits for the statistics of a first row: its own group's, or of a
        # single row the group before.
        pace = Signal()
        m.d.comb += pace.eq(item.parameter | ~item.last_row | ~item.last_part | (least == 0))
        # Both grants, or none; an item that waits for one keeps the other's port.
        acc_free = ~item.needs_acc | self.acc_read_ready
        sp_free = ~item.needs_sp | self.sp_read_ready
        issue = Signal()
        issue_row = Signal()  # a part of a row
        issue_value = Signal()  # the last one
        last_issue = Signal()
        advance = Signal()
        m.d.comb += [
            issue.eq(run.item_valid & pace & acc_free & sp_free),
            self.acc_read_valid.eq(issue & item.needs_acc),
            issue_row.eq(issue & ~item.parameter),
            issue_value.eq(issue_row & item.last_part),
            last_issue.eq(issue & item.last),
            advance.eq(run.generating & (~run.item_valid | issue)),
        ]
        with m.If(least != 0):
            m.d.sync += least.eq(least - 1)
        with m.If(issue_value & item.first_row):
            m.d.sync += least.eq(LEAST_GROUP - 1)
        with m.If(issue):
            m.d.sync += run.item_valid.eq(0)
        with m.If(advance):
            m.d.sync += [
                run.item_valid.eq(1),
                item.parameter.eq(parameter),
                item.number.eq(number),
                item.needs_acc.eq(~parameter & ~from_sp),
                item.needs_sp.eq(parameter | from_sp | (command.post == Post.RESIDUAL)),
                item.row.eq(row),
                item.first_row.eq(row == 0),
                item.last_row.eq(last_row),
                item.more.eq(part != 0),
                item.last_part.eq(last_part),
                item.last.eq(~parameter & last_part & last_row & last_group),
                item.group.eq(group),
                item.tile_group.eq(tile_group),
                item.sp_address.eq(Mux(parameter, par_panel + number, in_panel + row)),
                item.acc_address.eq(acc_region + row),
            ]
        with m.If(advance & parameter):
            m.d.sync += left.eq(left & (left - 1)[:5])
        next_tile = (acc_tile + command.acc_stride)[:16]
        with m.If(advance & ~parameter & ~last_part):
            m.d.sync += [part.eq(part + 1), acc_region.eq(acc_region + command.acc_part)]
        with m.If(advance & ~parameter & last_part):
            m.d.sync += [part.eq(0), acc_region.eq(acc_tile)]
            with m.If(~last_row):
                m.d.sync += row.eq(row + 1)
            with m.Else():
                m.d.sync += [row.eq(0), left.eq(needs)]
                with m.If(last_group_of_tile):
                    m.d.sync += [
                        tile_group.eq(0),
                        acc_tile.eq(next_tile),
                        acc_region.eq(next_tile),
                    ]
                with m.Else():
                    m.d.sync += tile_group.eq(tile_group + 1)
                with m.If(last_group_of_panel):
                    m.d.sync += [
                        group.eq(0),
                        panels_left.eq(panels_left - 1),
                        in_panel.eq(in_panel + command.in_stride),
                        par_panel.eq(par_panel + command.par_stride),
                    ]
                with m.Else():
                    m.d.sync += group.eq(group + 1)
                with m.If(last_group):
                    m.d.sync += run.generating.eq(0)

        empty = (incoming.m == 0) | (incoming.panels == 0)
        nothing = Signal()  # an empty command was started
        m.d.sync += nothing.eq(run.start & ~self.is_row & empty)
        with m.If(run.start & ~self.is_row):
            m.d.sync += [
                command.eq(incoming),
                run.running.eq(1),
                run.generating.eq(~empty),
                needs.eq(incoming_needs),
                left.eq(incoming_needs),
                row.eq(0),
                group.eq(0),
                tile_group.eq(0),
                panels_left.eq(incoming.panels),
                least.eq(0),
                in_panel.eq(incoming.in_addr),
                par_panel.eq(incoming.par_addr),
                acc_tile.eq(incoming.acc_addr),
                acc_region.eq(incoming.acc_addr),
                part.eq(0),
            ]
        return _Issue(
            item=item,
            any=issue,
            row=issue_row,
            value=issue_value,
            last=last_issue,
            nothing=nothing,
        )

    def _operands(self, m: Module, issue: _Issue) -> dict[str, Value]:
        """The group's lanes of the words, at stage 0 of the lanes."""
        lanes = self.config.lanes
        group_at_word = delayed(m, "group_at_word", issue.item.group, SP_READ_LATENCY)
        tile_at_word = delayed(m, "tile_at_word", issue.item.tile_group, SP_READ_LATENCY)
        operands = Signal(16 * lanes, reset_less=True)
        accs = Signal(32 * lanes, reset_less=True)
        m.d.sync += [
            operands.eq(self.sp_read_data.word_select(group_at_word, 16 * lanes)),
            accs.eq(self.acc_read_data.word_select(tile_at_word, 32 * lanes)),
        ]

        take_acc = delayed(m, "take_acc", issue.row, TO_LANE, reset_less=False)
        more = delayed(m, "more", issue.item.more, TO_LANE)
        return {"accs": accs, "operands": operands, "take_acc": take_acc, "more": more}

    def _row_values(self, m: Module, run: _Run, issue: _Issue) -> dict[str, Value]:
        """What lanes take of a row, each value at the stage that uses it."""
        command = run.command
        m.d.comb += self.scale_address.eq(command.scale_in + issue.item.row)
        stat_row = (command.stat + issue.item.row)[: self.stat_bits]
        m.d.comb += self.early_stat.eq(
            delayed(m, "early_stat", stat_row, TO_LANE + stages.STAGE_F1 - 2)
        )
        f1 = Signal(signed(F1_BITS), reset_less=True)
        m.d.sync += f1.eq(Mux(command.pre == Pre.TOP_MINUS, self.early_top, self.early_f1))
        pre_multiplier = Signal(16, reset_less=True)
        with m.Switch(self.scale_m):
            for mantissa, value in INVERSE_MANTISSA.items():
                with m.Case(mantissa - 4):
                    m.d.sync += pre_multiplier.eq(value)
        with m.If(command.pre == Pre.CENTER):
            m.d.sync += pre_multiplier.eq(command.imm)
        assert SCALE_LATENCY + 1 == TO_LANE + stages.STAGE_PRE
        scale_e = delayed(
            m, "scale_e", self.scale_e, TO_LANE + stages.STAGE_SHIFT - SCALE_LATENCY - 1
        )
        factor = delayed(
            m, "factor", self.early_factor, stages.STAGE_MULTIPLIER - stages.STAGE_F1 + 1
        )
        exponent = delayed(m, "exponent", self.early_exponent, stages.STAGE_SHIFT - stages.STAGE_F1)
        row_shift = Signal(6, reset_less=True)
        with m.Switch(command.mul):
            with m.Case(Mul.CHANNEL):
                m.d.sync += row_shift.eq(Mux(command.pre == Pre.ROW_SCALE, scale_e, 8))
            with m.Case(Mul.ROW):
                m.d.sync += row_shift.eq(exponent + command.shift)
            with m.Default():
                m.d.sync += row_shift.eq(command.shift)
        return {
            "pre_multiplier": pre_multiplier,
            "f1": f1,
            "row_multiplier": Mux(command.mul == Mul.ROW, factor, command.imm),
            "row_shift": row_shift,
        }

    def _parameters(self, m: Module, run: _Run, issue: _Issue) -> dict[str, Value]:
        """When lanes pick up parameter items on their way down."""
        command = run.command

        def taken(name: str, index: int, stage: int) -> Value:
            first = Signal(name=f"issue_{name}")
            m.d.comb += first.eq(issue.any & issue.item.parameter & (issue.item.number == index))
            return delayed(m, f"take_{name}", first, TO_LANE + stage, reset_less=False)

        take = {
            "take_multiplier": taken("multiplier", 0, stages.STAGE_MULTIPLIER),
            "take_shift": taken("shift", 1, stages.STAGE_SHIFT),
            "take_channel": taken("channel", 4, stages.STAGE_CHANNEL),
        }
        for name, index in (("bias_low", 2), ("bias_high", 3)):
            early = taken(name, index, stages.STAGE_BIAS)
            late = delayed(
                m, f"take_{name}_late", early, stages.STAGE_AFFINE - stages.STAGE_BIAS, False
            )
            take[f"take_{name}"] = Mux(command.post == Post.AFFINE, late, early)
        return take

    def _follow(self, m: Module, run: _Run, issue: _Issue) -> _Output:
        """Counters of the output's own follow the items."""
        config = self.config
        lanes, panel = config.lanes, config.panel
        command, incoming = run.command, run.incoming
        arrives = delayed(
            m, "arrives", issue.value, TO_LANE + LANE_LATENCY - COUNTERS_AHEAD, reset_less=False
        )
        out_row = Signal(16)
        out_group = Signal(range(max(2, panel // lanes)))
        out_column = Signal(17)
        out_panel = Signal(16, reset_less=True)
        out_first = Signal()
        with m.If(run.start):
            m.d.sync += [
                out_row.eq(0),
                out_group.eq(0),
                out_column.eq(0),
                out_panel.eq(incoming.out_addr),
                out_first.eq(1),
            ]
        with m.Elif(arrives):
            m.d.sync += out_row.eq(out_row + 1)
            with m.If(out_row + 1 == command.m):
                m.d.sync += [
                    out_row.eq(0),
                    out_first.eq(0),
                    # Beyond every `valid` it stays there.
                    out_column.eq(Mux(out_column[16], out_column, out_column + lanes)),
                    out_group.eq(out_group + 1),
                ]
                with m.If(out_group == panel // lanes - 1):
                    m.d.sync += [out_group.eq(0), out_panel.eq(out_panel + command.out_stride)]

        wide_out = Signal()
        m.d.comb += wide_out.eq(~Cat(command.out == form for form in BYTE_OUTS).any())
        limit = Signal(17, reset_less=True)
        causal_limit = command.row0 + out_row + 1
        m.d.sync += limit.eq(
            Mux(
                command.causal & (causal_limit < command.valid),
                causal_limit,
                command.valid,
            )
        )
        column1 = delayed(m, "column1", out_column, 1)
        keep = Signal(lanes)
        left_columns = Signal(signed(19))
        m.d.comb += left_columns.eq(limit - column1)
        m.d.sync += keep.eq(Cat(left_columns > index for index in range(lanes)))
        keep3 = delayed(m, "keep3", keep, 1)

        info_layout = data.StructLayout(
            {
                "address": len(self.sp_write_address),
                "half": 1,
                "group": len(out_group),
                "start": 1,
                "stat": self.stat_bits,
                "scale": self.scale_bits,
            }
        )
        info = Signal(info_layout)
        m.d.comb += [
            info.address.eq(out_panel + Mux(wide_out, out_row, out_row >> 1)),
            info.half.eq(out_row[0]),
            info.group.eq(out_group),
            info.start.eq(out_first & command.first),
            info.stat.eq(command.stat + out_row),
            info.scale.eq(command.scale_out + out_row),
        ]
        at_result = data.View(info_layout, delayed(m, "info", info.as_value(), COUNTERS_AHEAD))
        result_valid = delayed(m, "result_valid", arrives, COUNTERS_AHEAD, reset_less=False)
        return _Output(wide=wide_out, keep=keep, keep_later=keep3, valid=result_valid, at=at_result)

    def _lanes(
        self, m: Module, run: _Run, inputs: dict[str, Value], output: _Output
    ) -> tuple[list[Signal], list[Signal]]:
        """Place the lanes; their results and maxima."""
        inputs = dict(inputs)
        accs, operands = inputs.pop("accs"), inputs.pop("operands")
        results, maxima = [], []
        for index in range(self.config.lanes):
            result = Signal(signed(17), name=f"result_{index}")
            maximum = Signal(signed(stages.MAXIMUM_BITS), name=f"maximum_{index}")
            place(
                m,
                f"lane_{index}",
                self.lane,
                acc=accs.word_select(index, 32),
                operand=operands.word_select(index, 16),
                **inputs,
                **{
                    name: getattr(run.command, name)
                    for name in (
                        "source",
                        "pre",
                        "mul",
                        "bias",
                        "function",
                        "post",
                        "out",
                        "shift1",
                        "shift2",
                    )
                },
                keep=output.keep[index],
                result=result,
                maximum=maximum,
            )
            results.append(result)
            maxima.append(maximum)
        return results, maxima

    def _write(
        self, m: Module, run: _Run, results: list[Signal], output: _Output
    ) -> dict[str, Signal]:
        """The output word: the group's bytes repeated over the word, the mask picks the place."""
        config = self.config
        halves = Cat(result[:16] for result in results)
        bytes_ = Cat(result[:8] for result in results)
        chunks = config.word_bytes // config.lanes
        word = Signal(8 * config.word_bytes, reset_less=True)
        mask = Signal(chunks, reset_less=True)
        address = Signal(len(self.sp_write_address), reset_less=True)
        writes = Signal()
        m.d.sync += [
            word.eq(Mux(output.wide, halves.replicate(chunks // 2), bytes_.replicate(chunks))),
            mask.eq(
                Mux(
                    output.wide,
                    0b11 << (output.at.group << 1),
                    1 << (output.at.group + Mux(output.at.half, chunks // 2, 0)),
                )
            ),
            address.eq(output.at.address),
            writes.eq(output.valid & (run.command.out != OutFormat.NONE)),
        ]
        return {"valid": writes, "address": address, "data": word, "mask": mask}

    def _statistics(
        self, m: Module, run: _Run, results: list[Signal], maxima: list[Signal], output: _Output
    ) -> dict[str, Signal]:
        """Place the statistics; their outputs."""
        command = run.command
        stat = {
            name: Signal(member.shape, name=f"statistics_{name}")
            for name, member in self.statistics.signature.members.items()
            if member.flow == Out
        }
        place(
            m,
            "statistics",
            self.statistics,
            valid=output.valid,
            results=Cat(results),
            maxima=Cat(maxima),
            keep=output.keep_later,
            start=output.at.start,
            stat_op=command.stat_op,
            magnitude=command.magnitude,
            stat_address=output.at.stat,
            scale_address=output.at.scale,
            f1=self.f1,
            f2=self.f2,
            stored_magnitude=self.magnitude,
            **stat,
        )
        return stat

    def _row_unit(self, m: Module, run: _Run, row_active: Signal) -> dict[str, Signal]:
        """Place the row unit; its outputs but `active`."""
        unit = {
            name: Signal(member.shape, name=f"row_unit_{name}")
            for name, member in self.row_unit.signature.members.items()
            if member.flow == Out and name != "active"
        }
        place(
            m,
            "row_unit",
            self.row_unit,
            command=self.row_command,
            start=run.start & self.is_row,
            active=row_active,
            f1=self.f1,
            f2=self.f2,
            magnitude=self.magnitude,
            read_ready=self.sp_read_ready,
            read_data=self.sp_read_data,
            **unit,
        )
        return unit

    def _share(
        self,
        m: Module,
        run: _Run,
        issue: _Issue,
        row_mode: Signal,
        write: dict[str, Signal],
        stat: dict[str, Signal],
        unit: dict[str, Signal],
    ) -> None:
        """VECTOR and the row unit share the ports to the row table and the scratchpad."""
        item = issue.item
        m.d.comb += [
            self.update_scale.eq(
                Mux(row_mode, unit["scale_address"], stat["update_scale"]),
            ),
            self.update_stat.eq(Mux(row_mode, unit["stat_address"], stat["update_stat"])),
            self.write_scale.eq(stat["write_scale"] | unit["write_scale"]),
            self.write_scale_address.eq(
                Mux(row_mode, unit["scale_address"], stat["write_scale_address"])
            ),
            self.write_magnitude.eq(
                Mux(row_mode, unit["write_magnitude"], stat["write_magnitude"])
            ),
            self.write_f1.eq(stat["write_f1"]),
            self.write_f2.eq(stat["write_f2"]),
            self.write_factor.eq(unit["write_factor"]),
            self.write_stat_address.eq(
                Mux(row_mode, unit["write_stat_address"], stat["write_stat_address"])
            ),
            self.write_f1_data.eq(stat["write_f1_data"]),
            self.write_f2_data.eq(stat["write_f2_data"]),
            self.write_factor_data.eq(unit["factor"]),
            self.write_exponent_data.eq(unit["exponent"]),
            self.acc_read_address.eq(item.acc_address),
            self.sp_read_valid.eq((run.item_valid & item.needs_sp) | unit["read_valid"]),
            self.sp_read_address.eq(Mux(row_mode, unit["read_address"], item.sp_address)),
            self.sp_write_valid.eq(write["valid"] | unit["write_valid"]),
            self.sp_write_address.eq(Mux(row_mode, unit["write_address"], write["address"])),
            self.sp_write_data.eq(Mux(row_mode, unit["write_data"], write["data"])),
            self.sp_write_mask.eq(Mux(row_mode, ~0, write["mask"])),
        ]
