"""Queues and tokens: from resolved words to commands that start when their tokens are there."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import SEMAPHORES, TOKEN_MAX, Fault, Opcode, Unit
from tilewright.hw.config import Config
from tilewright.hw.control.front_end import QUEUES
from tilewright.hw.layouts import INDEX_BITS
from tilewright.hw.words import IDENTITY, POSTS, WAITS, WORD_BITS, WORDS, last_word

UNITS = len(QUEUES)
_ORDER = (Unit.LOAD, Unit.STORE, Unit.MATMUL, Unit.VECTOR)
"""Who is named first when nothing moves."""
_LAST_WORDS = {
    Unit.LOAD: last_word(Opcode.LOAD),
    Unit.MATMUL: last_word(Opcode.MATMUL),
    Unit.VECTOR: max(last_word(Opcode.VECTOR), last_word(Opcode.ROW)),
    Unit.STORE: last_word(Opcode.STORE),
}


class Issue(Cell):
    """Commands of all units in one memory, `config.queue_places` a unit, until their posts are out.

    Of the oldest command a unit has not taken, the words go to the unit's register, one a cycle,
    one unit at a time; meanwhile its waits are served. Tokens stand in a memory too: every cycle
    another unit has its turn, one slot of the posts of its oldest finished command or else one
    slot of its waits; slots behind the last one in use are passed over.

    Attributes
    ----------
    word, number, unit, word_valid : a resolved word and its place
    commit : pulse, the command of the unit is whole
    room : a bit a unit
    bus_unit : a bit a unit; bus_number, bus_word : a word for the register of that unit
    command_valid, command_ready : a bit a unit; its register holds a command that may start
    done : a bit a unit, pulse; its oldest command is done
    retired : a bit a unit, pulse; a command's posts are out
    empty : no unit has a command
    waiting : a bit a unit, its next command waits for tokens
    took : pulse, tokens were taken
    halt : start nothing
    bites : the watchdog does; completed : commands of the run that are
    fault, fault_code, fault_unit, fault_index : high until reset
    """

    def __init__(self, config: Config) -> None:
        self.places = config.queue_places
        self.cell_name = "tilewright_issue"
        super().__init__(
            {
                "word": In(WORD_BITS),
                "number": In(range(WORDS)),
                "unit": In(range(UNITS)),
                "word_valid": In(1),
                "commit": In(1),
                "room": Out(UNITS),
                "bus_unit": Out(UNITS),
                "bus_number": Out(range(WORDS)),
                "bus_word": Out(WORD_BITS),
                "command_valid": Out(UNITS),
                "command_ready": In(UNITS),
                "done": In(UNITS),
                "retired": Out(UNITS),
                "empty": Out(1),
                "waiting": Out(UNITS),
                "took": Out(1),
                "halt": In(1),
                "bites": In(1),
                "completed": In(INDEX_BITS),
                "fault": Out(1),
                "fault_code": Out(4),
                "fault_unit": Out(3),
                "fault_index": Out(INDEX_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Of a unit's places: where the next command goes, which one the unit takes next, and the
        # oldest whose posts are not out.
        tails, heads, oldest = (
            Array(Signal(range(self.places), name=f"{name}_{unit.name.lower()}") for unit in QUEUES)
            for name in ("tail", "head", "oldest")
        )
        queued, held = Signal(UNITS), Signal(UNITS)
        m.d.comb += [
            queued.eq(Cat(a != b for a, b in zip(heads, tails, strict=True))),
            held.eq(Cat(a != b for a, b in zip(heads, oldest, strict=True))),
            self.room.eq(Cat((a + 1)[: len(a)] != b for a, b in zip(tails, oldest, strict=True))),
            self.empty.eq(~(queued | held).any()),
        ]
        with m.If(self.commit):
            m.d.sync += tails[self.unit].eq(tails[self.unit] + 1)

        full, waited = Signal(UNITS), Signal(UNITS)
        m.d.comb += self.command_valid.eq(Mux(self.halt, 0, full & waited))
        taken = self.command_valid & self.command_ready
        for unit, head in enumerate(heads):
            with m.If(taken[unit]):
                m.d.sync += head.eq(head + 1)

        place = Cat(tails[self.unit], self.unit)
        self._send(m, heads, queued, full, taken, place)
        self._tokens(m, heads, oldest, queued, held, waited, taken, place)
        return m

    def _send(
        self,
        m: Module,
        heads: Array,
        queued: Signal,
        full: Signal,
        taken: Value,
        place: Value,
    ) -> None:
        """Words of the next command to the register of its unit."""
        m.submodules.words = words = Memory(
            shape=WORD_BITS, depth=UNITS * self.places * WORDS, init=[], attrs={"no_rw_check": 1}
        )
        write, read = words.write_port(), words.read_port()
        sending = Signal()
        claimed = Signal(UNITS)
        unit = Signal(range(UNITS), reset_less=True)
        number = Signal(range(WORDS), reset_less=True)
        last = Signal()
        m.d.comb += [
            write.addr.eq(Cat(self.number, place)),
            write.data.eq(self.word),
            write.en.eq(self.word_valid),
            read.addr.eq(Cat(number, heads[unit], unit)),
            read.en.eq(1),
            last.eq(Array(_LAST_WORDS[name] for name in QUEUES)[unit] == number),
        ]
        wanted = queued & ~claimed
        with m.If(sending):
            m.d.sync += [number.eq(number + 1), sending.eq(~last)]
        with m.Else():
            m.d.sync += [number.eq(IDENTITY), sending.eq(wanted.any())]
            for name in reversed((Unit.MATMUL, Unit.VECTOR, Unit.LOAD, Unit.STORE)):
                with m.If(wanted[name]):
                    m.d.sync += unit.eq(name)
        # A word's way: read, on the bus, in the register.
        unit1, unit2 = Signal(UNITS), Signal(UNITS)
        last1, last2 = Signal(), Signal()
        number1 = Signal.like(number)
        m.d.sync += [
            unit1.eq(Mux(sending, 1 << unit, 0)),
            last1.eq(last),
            number1.eq(number),
            unit2.eq(unit1),
            last2.eq(last1),
            self.bus_number.eq(number1),
            self.bus_word.eq(read.data),
        ]
        m.d.comb += self.bus_unit.eq(unit2)
        m.d.sync += [
            claimed.eq((claimed | Mux(sending, 1 << unit, 0)) & ~taken),
            full.eq((full | Mux(last2, unit2, 0)) & ~taken),
        ]

    def _tokens(
        self,
        m: Module,
        heads: Array,
        oldest: Array,
        queued: Signal,
        held: Signal,
        waited: Signal,
        taken: Value,
        place: Value,
    ) -> None:
        """Waits and posts, a slot a cycle; a unit's turn comes every UNITS cycles."""
        m.submodules.slots = slots = Memory(
            shape=WORD_BITS, depth=UNITS * self.places * 4, init=[], attrs={"no_rw_check": 1}
        )
        write, read = slots.write_port(), slots.read_port()
        m.submodules.semaphores = semaphores = Memory(
            shape=range(TOKEN_MAX + 1), depth=SEMAPHORES, init=[]
        )
        token_write = semaphores.write_port()
        token_read = semaphores.read_port(domain="comb")

        # All semaphores are 0 when a run starts.
        clearing = Signal(init=1)
        cleared = Signal(range(SEMAPHORES))
        with m.If(clearing):
            m.d.sync += [cleared.eq(cleared + 1), clearing.eq(~cleared.all())]

        finished = Array(
            Signal(range(self.places), name=f"finished_{unit.name.lower()}") for unit in QUEUES
        )
        steps = {
            name: Array(Signal(2, name=f"{name}_step_{unit.name.lower()}") for unit in QUEUES)
            for name in ("wait", "post")
        }
        looking, looks = Signal(), Signal()
        look_unit = Signal(range(UNITS), reset_less=True)
        look_place = Signal(range(self.places), reset_less=True)

        # First cycle: what a unit has to do.
        turn = Signal(range(UNITS))
        posts, works = Signal(), Signal()
        step = Signal(2)
        at = Signal(range(self.places))
        m.d.sync += turn.eq(turn + 1)
        m.d.comb += [
            posts.eq(finished[turn] != 0),
            works.eq(
                (posts | ((queued & ~waited).bit_select(turn, 1) & ~self.halt))
                & ~clearing
                & ~looking
            ),
            step.eq(Mux(posts, steps["post"][turn], steps["wait"][turn])),
            at.eq(Mux(posts, oldest[turn], heads[turn])),
            write.addr.eq(Cat(self.number[:2], place)),
            write.data.eq(self.word),
            write.en.eq(self.word_valid & (self.number <= IDENTITY)),
            read.en.eq(1),
            read.addr.eq(
                Mux(
                    looking,
                    Cat(Const(IDENTITY, 2), look_place, look_unit),
                    Cat(Mux(posts, Const(POSTS, 2), Const(WAITS, 2)), at, turn),
                )
            ),
        ]
        # Second: the slot.
        works1, posts1, step1 = Signal(), Signal(), Signal(2)
        turn1, at1 = Signal.like(turn), Signal.like(at)
        works2, posts2, more2 = Signal(), Signal(), Signal()
        turn2, at2 = Signal.like(turn), Signal.like(at)
        slot = Signal(8, reset_less=True)
        later = Cat((read.data >> 8 * (place + 1)) != 0 for place in range(4))
        m.d.sync += [
            works1.eq(works),
            posts1.eq(posts),
            step1.eq(step),
            turn1.eq(turn),
            at1.eq(at),
            works2.eq(works1),
            posts2.eq(posts1),
            turn2.eq(turn1),
            at2.eq(at1),
            slot.eq(read.data.word_select(step1, 8)),
            more2.eq(later.bit_select(step1, 1)),
        ]
        # Third: the tokens.
        total = Signal(range(-TOKEN_MAX - 1, 2 * TOKEN_MAX))
        met, goes, over = Signal(), Signal(), Signal()
        m.d.comb += [
            token_read.addr.eq(slot[:4]),
            total.eq(Mux(posts2, token_read.data + slot[4:], token_read.data - slot[4:])),
            met.eq(posts2 | (total >= 0)),
            goes.eq(works2 & met),
            over.eq(works2 & posts2 & (total > TOKEN_MAX)),
            token_write.addr.eq(Mux(clearing, cleared, slot[:4])),
            token_write.data.eq(Mux(clearing, 0, total)),
            token_write.en.eq(clearing | goes),
            self.took.eq(goes & ~posts2),
            self.retired.eq(Mux(goes & posts2 & ~more2, 1 << turn2, 0)),
        ]
        for unit in range(UNITS):
            mine = works2 & (turn2 == unit)
            done = mine & met & ~more2
            with m.If(mine & posts2):
                m.d.sync += steps["post"][unit].eq(Mux(more2, steps["post"][unit] + 1, 0))
                with m.If(~more2):
                    m.d.sync += oldest[unit].eq(oldest[unit] + 1)
            with m.If(mine & ~posts2):
                m.d.sync += self.waiting[unit].eq(~met)
                with m.If(met):
                    m.d.sync += steps["wait"][unit].eq(Mux(more2, steps["wait"][unit] + 1, 0))
            with m.If(taken[unit]):
                m.d.sync += waited[unit].eq(0)
            with m.Elif(done & ~posts2):
                m.d.sync += waited[unit].eq(1)
            m.d.sync += finished[unit].eq(finished[unit] + self.done[unit] - (done & posts2))

        # A fault: whose index stands in the memory.
        code, owner = Signal(4, reset_less=True), Signal(3, reset_less=True)
        fault = Signal()
        index = Signal(INDEX_BITS, reset_less=True)
        with m.If(~looking & ~fault & over):
            m.d.sync += [
                looking.eq(1),
                code.eq(Fault.TOKEN_OVERFLOW),
                owner.eq(turn2),
                look_unit.eq(turn2),
                look_place.eq(at2),
            ]
        with m.Elif(~looking & ~fault & self.bites):
            m.d.sync += [
                looking.eq(1),
                code.eq(Fault.WATCHDOG),
                owner.eq(Unit.FETCH),
            ]
            for flags, places in ((self.waiting, heads), (held, oldest)):
                for unit in reversed(_ORDER):
                    with m.If(flags[unit]):
                        m.d.sync += [
                            owner.eq(unit),
                            look_unit.eq(unit),
                            look_place.eq(places[unit]),
                        ]
        m.d.sync += looks.eq(looking)
        with m.If(looks & looking):
            m.d.sync += [
                looking.eq(0),
                fault.eq(1),
                index.eq(Mux(owner == Unit.FETCH, self.completed, read.data[8:])),
            ]
        m.d.comb += [
            self.fault.eq(fault),
            self.fault_code.eq(code),
            self.fault_unit.eq(owner),
            self.fault_index.eq(index),
        ]
