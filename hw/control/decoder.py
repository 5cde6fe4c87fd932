"""The decoder: checks fetched commands and routes them to the queues of their units."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import (
    COMMAND_LAYOUTS,
    UNIT_OF_OPCODE,
    Fault,
    Function,
    Opcode,
    Post,
    Unit,
)
from tilewright.hw.config import ACTIVATION_FUNCTIONS, Config
from tilewright.hw.layouts import field_of

QUEUES = (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)


class Decoder(Cell):
    """One command every other cycle: legal ones to their unit's queue, a fault for the others.

    The order in which a command is checked decides the fault: opcode, enumerations, BEGIN and END
    in their places, hash, count, addresses.

    Attributes
    ----------
    hash : 64, the machine's
    count : 32, PROGRAM_COUNT
    command, index, command_valid, command_ready : from the fetch engine
    raw, raw_index : the checked command; unit_valid : 4, to which queue; unit_ready : 4
    begun, ended : BEGIN was legal, END was reached; high until reset
    fault : pulse; fault_code
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_decoder"
        super().__init__(
            {
                "hash": In(64),
                "count": In(32),
                "command": In(512),
                "index": In(32),
                "command_valid": In(1),
                "command_ready": Out(1),
                "raw": Out(512),
                "raw_index": Out(32),
                "unit_valid": Out(len(QUEUES)),
                "unit_ready": In(len(QUEUES)),
                "begun": Out(1),
                "ended": Out(1),
                "fault": Out(1),
                "fault_code": Out(4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        raw = Signal(512, reset_less=True)
        index = Signal(32, reset_less=True)
        fresh = Signal()  # a command that is not checked yet
        checked = Signal()
        begun, ended = Signal(), Signal()
        opcode = raw[:8]

        bounds = {
            "sp": config.sp_words,
            "acc": config.acc_words,
            "scale": config.scale_rows,
            "stat": config.stat_rows,
        }
        known, enums_legal, addresses_legal = Signal(), Signal(), Signal()
        queue = Signal(len(QUEUES))
        m.d.comb += [enums_legal.eq(1), addresses_legal.eq(1)]
        functions = [
            int(function)
            for function in Function
            if function.name.lower() in config.functions
            or function.name.lower() not in ACTIVATION_FUNCTIONS
        ]
        with m.Switch(opcode):
            for code, layout in COMMAND_LAYOUTS.items():
                with m.Case(code):
                    m.d.comb += known.eq(1)
                    unit = UNIT_OF_OPCODE[code]
                    if unit in QUEUES:
                        m.d.comb += queue.eq(1 << QUEUES.index(unit))
                    enums, addresses = [], []
                    for name, field in layout.items():
                        value = field_of(raw, code, name)
                        if field.values is not None:
                            last = max(field.values)
                            if last < (1 << field.width) - 1:
                                enums.append(value <= int(last))
                        bound = bounds.get(field.kind)
                        if bound is not None and bound < 1 << field.width:
                            addresses.append(value < bound)
                    if code == Opcode.VECTOR:
                        function = field_of(raw, code, "function")
                        addresses.append(Cat(function == legal for legal in functions).any())
                        affine = field_of(raw, code, "post") == Post.AFFINE
                        addresses.append(~(affine & field_of(raw, code, "bias")))
                    if enums:
                        m.d.comb += enums_legal.eq(Cat(enums).all())
                    if addresses:
                        m.d.comb += addresses_legal.eq(Cat(addresses).all())
        first = index == 0
        last = index + 1 == self.count
        is_begin, is_end = opcode == Opcode.BEGIN, opcode == Opcode.END
        placed = (is_begin == first) & (is_end == last)
        hash_matches = field_of(raw, Opcode.BEGIN, "hash") == self.hash
        count_matches = field_of(raw, Opcode.BEGIN, "commands") == self.count
        code = Signal(4)
        m.d.comb += code.eq(
            Mux(
                ~known,
                Fault.ILLEGAL_OPCODE,
                Mux(
                    ~enums_legal,
                    Fault.ILLEGAL_FIELD,
                    Mux(
                        ~placed,
                        Fault.PROGRAM_LENGTH,
                        Mux(
                            is_begin & ~hash_matches,
                            Fault.HASH_MISMATCH,
                            Mux(
                                is_begin & ~count_matches,
                                Fault.PROGRAM_LENGTH,
                                Mux(~addresses_legal, Fault.ILLEGAL_FIELD, Fault.NONE),
                            ),
                        ),
                    ),
                ),
            )
        )
        fault_code = Signal(4)
        route = Signal(len(QUEUES))
        sent = Signal()
        m.d.comb += [
            self.unit_valid.eq(Mux(checked, route, 0)),
            sent.eq((self.unit_valid & self.unit_ready).any()),
            self.command_ready.eq(~fresh & (~checked | sent) & ~ended & (fault_code == 0)),
            self.raw.eq(raw),
            self.raw_index.eq(index),
            self.begun.eq(begun),
            self.ended.eq(ended),
            self.fault_code.eq(fault_code),
        ]
        with m.If(sent):
            m.d.sync += checked.eq(0)
        with m.If(self.command_valid & self.command_ready):
            m.d.sync += [raw.eq(self.command), index.eq(self.index), fresh.eq(1)]
        reported = Signal()
        with m.If(fresh):
            m.d.sync += [fresh.eq(0), fault_code.eq(code), route.eq(queue)]
            with m.If(code == Fault.NONE):
                m.d.sync += [checked.eq(queue.any()), begun.eq(1), ended.eq(is_end)]
        with m.If(fault_code != 0):
            m.d.sync += reported.eq(1)
        m.d.comb += self.fault.eq((fault_code != 0) & ~reported)
        return m
