"""Registers that hold what a unit does next, filled word by word."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import In, Out

from tilewright.hw import words
from tilewright.hw.cells import Cell
from tilewright.hw.commands import COMMAND_LAYOUTS, Field, Opcode
from tilewright.hw.config import Config
from tilewright.hw.dma.records import Transfer
from tilewright.hw.layouts import INDEX_BITS, command_layout
from tilewright.hw.words import WORD_BITS, WORDS

_INDEX_AT = words.IDENTITY * WORD_BITS + 8
_BUS = {"valid": In(1), "number": In(range(WORDS)), "word": In(WORD_BITS)}


def _hold(m: Module, cell: Cell) -> Value:
    """The bits of the words that came last; those nobody reads vanish."""
    held = []
    for number in range(words.IDENTITY, WORDS):
        word = Signal(WORD_BITS, name=f"word_{number}", reset_less=True)
        with m.If(cell.valid & (cell.number == number)):
            m.d.sync += word.eq(cell.word)
        held.append(word)
    return Cat(Signal(words.IDENTITY * WORD_BITS), *held)


def _slice(held: Value, field: Field) -> Value:
    return held[field.offset : field.offset + field.width]


class CommandHolder(Cell):
    """A unit's next command.

    Attributes
    ----------
    valid, number, word : a word for it
    a member an opcode, by its name : fields as in `command_layout`
    is_last : it is of the last opcode
    """

    def __init__(self, name: str, opcodes: tuple[Opcode, ...]) -> None:
        self.opcodes = opcodes
        self.cell_name = f"tilewright_hold_{name}"
        super().__init__(
            {
                **_BUS,
                **{code.name.lower(): Out(command_layout(code).size) for code in opcodes},
                "is_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = _hold(m, self)
        for code in self.opcodes:
            fields = [_slice(held, field) for field in COMMAND_LAYOUTS[code].values()]
            m.d.comb += getattr(self, code.name.lower()).eq(Cat(fields))
        opcode = held[_INDEX_AT - 8 : _INDEX_AT]
        m.d.comb += self.is_last.eq(opcode == self.opcodes[-1])
        return m


class TransferHolder(Cell):
    """A unit's next transfer.

    Attributes
    ----------
    valid, number, word : a word for it
    transfer : `Transfer`
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_hold_transfer"
        super().__init__({**_BUS, "transfer": Out(Transfer(config).size)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.config.axi_addr_width
        held = _hold(m, self)
        transfer = Signal(Transfer(self.config))

        def pair(low: int, high: int) -> Value:
            return Cat(held.word_select(low, WORD_BITS), held.word_select(high, WORD_BITS))

        beyond = words.BEYOND_WORD * WORD_BITS + words.BEYOND_BIT
        own = {
            "address": pair(words.ADDRESS_LO, words.ADDRESS_HI)[:width],
            "overflow": held[beyond],
            "base": pair(words.BASE_LO, words.BASE_HI)[:width],
            "limit": pair(words.LIMIT_LO, words.LIMIT_HI)[: width + 1],
            "index": held[_INDEX_AT : _INDEX_AT + INDEX_BITS],
        }
        for name, _ in Transfer(self.config):
            value = own.get(name)
            if value is None:
                value = _slice(held, COMMAND_LAYOUTS[Opcode.LOAD][name])
            m.d.comb += getattr(transfer, name).eq(value)
        m.d.comb += self.transfer.eq(transfer)
        return m
