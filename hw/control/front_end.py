"""The front end: checks fetched commands word by word, resolves them, hands them to the queues."""

from collections.abc import Iterator

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import (
    COMMAND_LAYOUTS,
    UNIT_OF_OPCODE,
    Fault,
    Field,
    Function,
    Opcode,
    Post,
    Unit,
)
from tilewright.hw.config import ACTIVATION_FUNCTIONS, Config
from tilewright.hw.layouts import INDEX_BITS
from tilewright.hw.registers import REGISTERS, RESOLVE_BITS
from tilewright.hw.words import (
    ADDRESS_HI,
    ADDRESS_LO,
    BASE_HI,
    BASE_LO,
    BEYOND_BIT,
    BEYOND_WORD,
    IDENTITY,
    LIMIT_HI,
    LIMIT_LO,
    POSTS,
    WAITS,
    WORD_BITS,
    WORDS,
    is_count,
    last_word,
    takes_two,
)

QUEUES = (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)
TRANSFERS = (Opcode.LOAD, Opcode.STORE)
CLASSES = tuple(COMMAND_LAYOUTS)
"""Opcodes by the number they have here; one more is the program itself, a transfer of region 0."""
PROGRAM = len(CLASSES)


def _register(name: str) -> int:
    return REGISTERS[name].address >> 2


class FrontEnd(Cell):
    """Resolves a word a cycle: of a count that names a scalar its value, of an offset the address.

    A word with two counts takes two cycles, as do the words of an offset. The order in which a
    command is checked decides the fault: opcode, enumerations, BEGIN and END in their places, hash,
    count, addresses. It counts as queued when its last word has been checked. Where the program
    lies is resolved as a transfer's address is.

    Attributes
    ----------
    start : pulse, resolve where the program lies; the cell is fresh from its reset
    count : 32, PROGRAM_COUNT
    command, index, last_command, command_valid, command_ready : from the fetch engine
    register, value : a word of the register file, a cycle later its content
    room : 4, queues that have room for a command
    word, number, unit : a resolved word (`tilewright.hw.words`), its place, its queue
    word_valid : to the queue; program_valid : to what holds the program's place
    commit : pulse with a command's last word; program_ready : pulse behind the program's
    begun, ended : BEGIN was legal, END was reached; high until reset
    began : pulse
    fault : high until reset; fault_code
    """

    def __init__(self, config: Config, *, digest: int) -> None:
        self.config = config
        self.digest = digest
        self.cell_name = "tilewright_front_end"
        super().__init__(
            {
                "start": In(1),
                "count": In(32),
                "command": In(WORDS * WORD_BITS),
                "index": In(32),
                "last_command": In(1),
                "command_valid": In(1),
                "command_ready": Out(1),
                "register": Out(RESOLVE_BITS),
                "value": In(WORD_BITS),
                "room": In(len(QUEUES)),
                "word": Out(WORD_BITS),
                "number": Out(range(WORDS)),
                "unit": Out(range(len(QUEUES))),
                "word_valid": Out(1),
                "program_valid": Out(1),
                "commit": Out(1),
                "program_ready": Out(1),
                "begun": Out(1),
                "ended": Out(1),
                "began": Out(1),
                "fault": Out(1),
                "fault_code": Out(4),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.config.axi_addr_width
        opcode = self.command[:8]

        # The command under way, its word and half.
        busy, active = Signal(), Signal()
        kind = Signal(range(PROGRAM + 1), reset_less=True)
        unit = Signal(range(len(QUEUES)), reset_less=True)
        known, queued = Signal(), Signal()
        number = Signal(range(WORDS), reset_less=True)
        second = Signal()
        faulted, begun, ended = Signal(), Signal(), Signal()
        decides = Signal()

        kind_now, unit_now = Signal.like(kind), Signal.like(unit)
        known_now, queued_now = Signal(), Signal()
        with m.Switch(opcode):
            for place, code in enumerate(CLASSES):
                with m.Case(code):
                    m.d.comb += [kind_now.eq(place), known_now.eq(1)]
                    if UNIT_OF_OPCODE[code] in QUEUES:
                        m.d.comb += [
                            unit_now.eq(QUEUES.index(UNIT_OF_OPCODE[code])),
                            queued_now.eq(1),
                        ]
            with m.Default():
                m.d.comb += kind_now.eq(CLASSES.index(Opcode.END))  # the shortest
        begins = Signal()
        m.d.comb += begins.eq(
            ~busy
            & ~self.commit
            & ~ended
            & ~faulted
            & self.command_valid
            & (~queued_now | self.room.bit_select(unit_now, 1))
        )
        region = Signal(3)
        scalar = Signal(4, reset_less=True)
        scalar_on = Signal(reset_less=True)
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1),
                active.eq(1),
                kind.eq(PROGRAM),
                number.eq(ADDRESS_LO),
                queued.eq(0),
                region.eq(0),
            ]
        with m.Elif(begins):
            m.d.sync += [
                busy.eq(1),
                active.eq(1),
                kind.eq(kind_now),
                unit.eq(unit_now),
                known.eq(known_now),
                queued.eq(queued_now),
                number.eq(0),
            ]

        # What stands in a word, by kind of command and place.
        transfer, double, final = Signal(), Signal(), Signal()
        counts = Signal(2)
        is_program = kind == PROGRAM
        with m.Switch(kind):
            for place, code in [*enumerate(CLASSES), (PROGRAM, Opcode.LOAD)]:
                with m.Case(place):
                    m.d.comb += transfer.eq(code in TRANSFERS)
                    m.d.comb += final.eq(number == last_word(code))
                    with m.Switch(number):
                        for at in range(WORDS):
                            flags = [is_count(code, at, half) for half in range(2)]
                            with m.Case(at):
                                m.d.comb += [counts.eq(Cat(*flags)), double.eq(takes_two(code, at))]
        with m.If(active):
            m.d.sync += second.eq(double & ~second)
            with m.If(~double | second):
                m.d.sync += number.eq(
                    Mux(is_program & (number == ADDRESS_HI), BEYOND_WORD, number + 1)
                )
                m.d.sync += active.eq(~final)

        words = [
            self.command[8 : 8 + WORD_BITS],
            self.command[8 + WORD_BITS : 8 + 2 * WORD_BITS],
            Cat(opcode, self.index[:INDEX_BITS]),
            *(self.command.word_select(at, WORD_BITS) for at in range(IDENTITY + 1, WORDS)),
        ]
        assert (WAITS, POSTS, IDENTITY) == (0, 1, 2)
        word = Signal(WORD_BITS)
        m.d.comb += word.eq(Array(words)[number])
        fields = COMMAND_LAYOUTS[Opcode.LOAD]
        with m.If(active & (number == fields["region"].offset // WORD_BITS)):
            m.d.sync += [
                signal.eq(_in_word(word, fields[name]))
                for name, signal in (
                    ("region", region),
                    ("scalar", scalar),
                    ("scalar_on", scalar_on),
                )
            ]

        # The register it takes.
        half = Signal()  # of the count
        count = Signal(16)
        uses = Signal()
        m.d.comb += [
            half.eq(second | ~counts[0]),
            count.eq(word.word_select(half, 16)),
            self.register.eq(_register("SCALAR0") | count[:4]),
            uses.eq(counts.bit_select(half, 1) & count[15]),
        ]
        window = _register("BASE0_LO") | region << 2
        adds = transfer & ((number == ADDRESS_LO) | (number == ADDRESS_HI))
        with m.If(transfer):
            with m.Switch(number):
                with m.Case(ADDRESS_LO):
                    m.d.comb += [
                        self.register.eq(
                            Mux(
                                second,
                                Mux(
                                    is_program,
                                    _register("PROGRAM_OFFSET"),
                                    _register("SCALAR0") | scalar,
                                ),
                                window,
                            )
                        ),
                        uses.eq(~second | is_program | scalar_on),
                    ]
                with m.Case(ADDRESS_HI):
                    m.d.comb += [self.register.eq(window | 1), uses.eq(~second)]
                for at, part in ((BASE_LO, 0), (BASE_HI, 1), (LIMIT_LO, 2), (LIMIT_HI, 3)):
                    with m.Case(at):
                        m.d.comb += [self.register.eq(window | part), uses.eq(1)]

        # Two stages behind: the register's content beside the word.
        step = data.StructLayout(
            {
                "valid": 1,
                "final": 1,
                "number": range(WORDS),
                "second": 1,
                "adds": 1,
                "uses": 1,
                "low": 1,
                "high": 1,
                "limit_low": 1,
                "limit_high": 1,
                "beyond": 1,
            }
        )
        step1, step2 = Signal(step), Signal(step)
        word1, word2 = Signal(WORD_BITS, reset_less=True), Signal(WORD_BITS, reset_less=True)
        m.d.sync += [
            step1.valid.eq(active),
            step1.final.eq(final & (~double | second)),
            step1.number.eq(number),
            step1.second.eq(second),
            step1.adds.eq(adds),
            step1.uses.eq(uses),
            step1.low.eq(uses & counts.any() & ~half),
            step1.high.eq(uses & counts.any() & half),
            step1.limit_low.eq(transfer & (number == LIMIT_LO)),
            step1.limit_high.eq(transfer & (number == LIMIT_HI)),
            step1.beyond.eq(transfer & (number == BEYOND_WORD)),
            step2.eq(step1),
            word1.eq(word),
            word2.eq(word1),
        ]
        with m.If(is_program | (transfer & (number >= BASE_LO))):
            m.d.sync += word1.eq(0)
        with m.If(step1.low):
            m.d.sync += word2[:16].eq(0)
        with m.If(step1.high):
            m.d.sync += word2[16:].eq(0)
        value2 = Signal(WORD_BITS, reset_less=True)
        far = Signal()  # the limit is beyond the address space
        m.d.sync += value2.eq(Cat(self.value[:16], Mux(step1.high, self.value, self.value[16:])))
        with m.If(~step1.uses | step1.high | far):
            m.d.sync += value2[:16].eq(0)
        with m.If(~step1.uses | step1.low | far):
            m.d.sync += value2[16:].eq(0)

        # The sum; a second one adds to the first.
        out = Signal(WORD_BITS, reset_less=True)
        carry, carry_later = Signal(), Signal()
        beyond = Signal()
        base = Signal(WORD_BITS)
        total = Signal(WORD_BITS + 1)
        first_sum = step2.second & step2.adds
        carries = step2.adds & (step2.number == ADDRESS_HI)
        m.d.comb += [
            base.eq(
                Cat(
                    Mux(step2.second, out[:16], word2[:16]),
                    Mux(first_sum, out[16:], word2[16:]),
                )
            ),
            total.eq(base + value2 + (carries & Mux(step2.second, carry_later, carry))),
        ]
        m.d.sync += out.eq(total)
        with m.If(step2.adds):
            with m.If(step2.second):
                m.d.sync += carry_later.eq(total[-1])
            with m.Else():
                m.d.sync += carry.eq(total[-1])
        with m.If(carries & step2.second):
            m.d.sync += beyond.eq(total[width - WORD_BITS :].any() | carry)
        with m.If(step2.beyond):
            m.d.sync += out[BEYOND_BIT].eq(beyond)
        if width < 2 * WORD_BITS:
            m.d.comb += far.eq(step2.limit_high & value2[width - WORD_BITS :].any())
            with m.If(far):
                m.d.sync += out[: width - WORD_BITS + 1].eq(1 << width - WORD_BITS)

        # Checks.
        checks = step1.valid & ~step1.second
        bad = {name: Signal(name=f"bad_{name}") for name in ("code", "hash", "count", "address")}
        with m.If(begins):
            m.d.sync += [flag.eq(0) for flag in bad.values()]
        with m.If(checks):
            for name, place, at, wrong in self._faults(word1):
                with m.If((kind == place) & (step1.number == at) & wrong):
                    m.d.sync += bad[name].eq(1)
        is_begin = kind == CLASSES.index(Opcode.BEGIN)
        is_end = known & (kind == CLASSES.index(Opcode.END))
        placed = (is_begin == ~begun) & (is_end == self.last_command)
        fault_code = Signal(4)
        code = Signal(4)
        for wrong, fault in reversed(
            (
                (~known, Fault.ILLEGAL_OPCODE),
                (bad["code"], Fault.ILLEGAL_FIELD),
                (~placed, Fault.PROGRAM_LENGTH),
                (bad["hash"], Fault.HASH_MISMATCH),
                (bad["count"], Fault.PROGRAM_LENGTH),
                (bad["address"], Fault.ILLEGAL_FIELD),
            )
        ):
            with m.If(wrong):
                m.d.comb += code.eq(fault)
        legal = Signal()
        m.d.comb += [
            decides.eq(step2.valid & step2.final & ~is_program),
            legal.eq(decides & (code == Fault.NONE)),
            self.command_ready.eq(legal),
            self.began.eq(legal & is_begin),
            self.begun.eq(begun),
            self.ended.eq(ended),
            self.fault.eq(faulted),
            self.fault_code.eq(fault_code),
        ]
        with m.If(step2.valid & step2.final):
            m.d.sync += busy.eq(0)
        with m.If(legal):
            m.d.sync += [begun.eq(1), ended.eq(is_end)]
        with m.Elif(decides):
            m.d.sync += [faulted.eq(1), fault_code.eq(code)]

        m.d.comb += [self.word.eq(out)]
        m.d.sync += [
            self.number.eq(step2.number),
            self.unit.eq(unit),
            self.word_valid.eq(step2.valid & queued),
            self.program_valid.eq(step2.valid & is_program),
            self.commit.eq(legal & queued),
            self.program_ready.eq(step2.valid & step2.final & is_program),
        ]
        return m

    def _faults(self, word: Value) -> Iterator[tuple[str, int, int, Value]]:
        """What is wrong with a word: kind of fault, of command, place, and condition."""
        config = self.config
        bounds = {
            "sp": config.sp_words,
            "acc": config.acc_words,
            "scale": config.scale_rows,
            "stat": config.stat_rows,
        }
        for place, opcode in enumerate(CLASSES):
            for field in COMMAND_LAYOUTS[opcode].values():
                at = field.offset // WORD_BITS
                if field.values is not None:
                    last = int(max(field.values))
                    if last < (1 << field.width) - 1:
                        yield "code", place, at, _in_word(word, field) > last
                bound = bounds.get(field.kind)
                if bound is not None and bound < 1 << field.width:
                    yield "address", place, at, _in_word(word, field) >= bound
        begin = CLASSES.index(Opcode.BEGIN)
        at = COMMAND_LAYOUTS[Opcode.BEGIN]["hash"].offset // WORD_BITS
        for half in range(2):
            part = self.digest >> WORD_BITS * half & (1 << WORD_BITS) - 1
            yield "hash", begin, at + half, word != part
        at = COMMAND_LAYOUTS[Opcode.BEGIN]["commands"].offset // WORD_BITS
        yield "count", begin, at, word != self.count
        vector = COMMAND_LAYOUTS[Opcode.VECTOR]
        place, at = CLASSES.index(Opcode.VECTOR), vector["function"].offset // WORD_BITS
        function = _in_word(word, vector["function"])
        held = [
            int(one)
            for one in Function
            if one.name.lower() in config.functions or one.name.lower() not in ACTIVATION_FUNCTIONS
        ]
        yield "address", place, at, ~Cat(function == one for one in held).any()
        affine = _in_word(word, vector["post"]) == Post.AFFINE
        yield "address", place, at, affine & _in_word(word, vector["bias"])


def _in_word(word: Value, field: Field) -> Value:
    """A field of the word that holds it whole."""
    low = field.offset % WORD_BITS
    assert low + field.width <= WORD_BITS, field
    return word[low : low + field.width]
