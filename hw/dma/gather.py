"""The data of STORE, stage by stage: words of the scratchpad, groups of D bytes, beats.

W: columns of a panel; D: bytes of a beat.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.config import Config
from tilewright.hw.dma.buffers import Fifo
from tilewright.hw.dma.records import sp_address_bits
from tilewright.hw.lanes import lanes_from, lanes_to, log2, rotated
from tilewright.hw.manifest import SP_READ_LATENCY

_WORDS = 8
"""Words asked for and not yet used: the read latency, the FIFO's two cycles, and some slack."""


def groups_of_last(config: Config) -> dict[str, int]:
    """The field `groups1` of `Run`, none where it has no bits: Verilog has no such wire."""
    bits = log2(config.word_bytes) - log2(config.axi_bytes)
    return {"groups1": bits} if bits > 0 else {}


class Edges(data.StructLayout):
    """Where a run lies in its beats.

    Attributes
    ----------
    offset, end : u(log2 D)
        Lane of its first and of its last byte.
    carry : u1
        It occupies one beat more than groups of D bytes.
    """

    def __init__(self, config: Config) -> None:
        lanes = log2(config.axi_bytes)
        super().__init__({"offset": lanes, "end": lanes, "carry": 1})


class Run(data.StructLayout):
    """A run to be read; fields as in `Burst`.

    Attributes
    ----------
    chunks1 : chunks − 1
    groups1 : groups of D bytes in the last chunk − 1 (only where D <= W)
    """

    def __init__(self, config: Config) -> None:
        address = sp_address_bits(config)
        super().__init__(
            {
                "sp": address,
                "sp_chunk": address,
                "chunks1": 32 - log2(config.panel),
                **groups_of_last(config),
                "half": 1,
                "odd": 1,
                "edges": Edges(config),
            }
        )


class Tag(data.StructLayout):
    """What goes with a word: `last` of its run, and the run's fields."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "last": 1,
                **groups_of_last(config),
                "half": 1,
                "odd": 1,
                "edges": Edges(config),
            }
        )


class Word(data.StructLayout):
    """A scratchpad word and its tag."""

    def __init__(self, config: Config) -> None:
        super().__init__({"data": 8 * config.word_bytes, "tag": Tag(config)})


class Group(data.StructLayout):
    """D bytes of a run, from a multiple of D behind its start; the rest of the last is junk."""

    def __init__(self, config: Config) -> None:
        super().__init__({"data": config.axi_data_width, "last": 1, "edges": Edges(config)})


class Beat(data.StructLayout):
    """A beat of a run."""

    def __init__(self, config: Config) -> None:
        super().__init__({"data": config.axi_data_width, "strobe": config.axi_bytes})


class ChunkReader(wiring.Component):
    """Reads the chunks of runs, a word a cycle.

    Attributes
    ----------
    i : stream of Run
    sp_read : stream of word addresses
    sp_read_data : the word, SP_READ_LATENCY cycles after `sp_read` was granted
    o : stream of Word
    """

    i: Any
    sp_read: Any
    sp_read_data: Signal
    o: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(Run(config))),
                "sp_read": Out(stream.Signature(sp_address_bits(config))),
                "sp_read_data": In(8 * config.word_bytes),
                "o": Out(stream.Signature(Word(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.words = words = Fifo(Word(config), _WORDS)
        wiring.connect(m, words.o, wiring.flipped(self.o))

        valid = Signal()
        run = Signal(Run(config), reset_less=True, name="run")
        credit = Signal(range(_WORDS + 1), init=_WORDS)
        credits_left = Signal(init=1)
        granted, taken, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            self.sp_read.valid.eq(valid & credits_left),
            self.sp_read.payload.eq(run.sp),
            granted.eq(self.sp_read.valid & self.sp_read.ready),
            taken.eq(words.o.valid & words.o.ready),
            ends.eq(run.chunks1 == 0),
            self.i.ready.eq(~valid | (granted & ends)),
        ]
        with m.If(granted & ~taken):
            m.d.sync += [credit.eq(credit - 1), credits_left.eq(credit != 1)]
        with m.Elif(taken & ~granted):
            m.d.sync += [credit.eq(credit + 1), credits_left.eq(1)]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), run.eq(self.i.payload)]
        with m.Elif(granted):
            m.d.sync += [run.sp.eq(run.sp + run.sp_chunk), run.chunks1.eq(run.chunks1 - 1)]

        tag = Signal(Tag(config), name="tag")
        m.d.comb += tag.last.eq(ends)
        for name in (*groups_of_last(config), "half", "odd", "edges"):
            m.d.comb += tag[name].eq(run[name])
        arrived = granted
        for stage in range(SP_READ_LATENCY):
            arrives = Signal(name=f"arrives{stage}")
            delayed = Signal(Tag(config), name=f"tag{stage}", reset_less=True)
            m.d.sync += [arrives.eq(arrived), delayed.eq(tag)]
            arrived, tag = arrives, delayed
        m.d.comb += [
            words.i.valid.eq(arrived),
            words.i.payload.data.eq(self.sp_read_data),
            words.i.payload.tag.eq(tag),
        ]
        return m


class Regroup(wiring.Component):
    """From words to groups of D bytes: a group, or a word, a cycle, whichever is smaller.

    Attributes
    ----------
    i : stream of Word
    o : stream of Group
    """

    i: Any
    o: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {"i": In(stream.Signature(Word(config))), "o": Out(stream.Signature(Group(config)))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        group_bytes, panel = config.axi_bytes, config.panel
        word, tag = self.i.payload.data, self.i.payload.tag
        valid = Signal()
        last = Signal(reset_less=True)
        edges = Signal(Edges(config), reset_less=True, name="edges")
        lower = Signal(8 * panel)
        m.d.comb += [
            lower.eq(Mux(tag.half & tag.odd, word[8 * panel :], word[: 8 * panel])),
            self.o.valid.eq(valid),
            self.o.payload.edges.eq(edges),
        ]
        with m.If(self.i.ready):
            m.d.sync += valid.eq(0)
            with m.If(self.i.valid):
                m.d.sync += edges.eq(tag.edges)

        if group_bytes <= panel:
            groups = 2 * panel // group_bytes
            rest = Signal(16 * panel, reset_less=True)
            left = Signal(range(groups), reset_less=True)
            m.d.comb += [
                self.i.ready.eq(~valid | (self.o.ready & (left == 0))),
                self.o.payload.data.eq(rest[: 8 * group_bytes]),
                self.o.payload.last.eq(last & (left == 0)),
            ]
            with m.If(self.i.ready):
                with m.If(self.i.valid):
                    m.d.sync += [
                        valid.eq(1),
                        rest.eq(Cat(lower, word[8 * panel :])),
                        left.eq(
                            Mux(
                                tag.last,
                                tag.groups1,
                                Mux(tag.half, groups // 2 - 1, groups - 1),
                            )
                        ),
                        last.eq(tag.last),
                    ]
            with m.Elif(self.o.ready):
                m.d.sync += [rest.eq(rest >> (8 * group_bytes)), left.eq(left - 1)]
        else:
            slots = group_bytes // panel
            group = Signal(8 * group_bytes, reset_less=True)
            slot = Signal(range(slots))
            full = Signal()
            m.d.comb += [
                self.i.ready.eq(~valid | self.o.ready),
                self.o.payload.data.eq(group),
                self.o.payload.last.eq(last),
                full.eq(tag.last | (slot == Mux(tag.half, slots - 1, slots - 2))),
            ]
            with m.If(self.i.ready & self.i.valid):
                m.d.sync += [
                    valid.eq(full),
                    last.eq(tag.last),
                    slot.eq(Mux(full, 0, slot + Mux(tag.half, 1, 2))),
                ]
                for s in range(slots):
                    part = group[8 * panel * s : 8 * panel * (s + 1)]
                    if s % 2 == 0:
                        with m.If(slot == s):
                            m.d.sync += part.eq(lower)
                    else:
                        with m.If(slot == Mux(tag.half, s, s - 1)):
                            m.d.sync += part.eq(Mux(tag.half, lower, word[8 * panel :]))
        return m


class Unalign(wiring.Component):
    """Turns groups of runs into beats with strobes: a beat a cycle.

    Attributes
    ----------
    i : stream of Group
    o : stream of Beat
    """

    i: Any
    o: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {"i": In(stream.Signature(Group(config))), "o": Out(stream.Signature(Beat(config)))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = self.config.axi_bytes
        ones = Const((1 << count) - 1, count)
        i = self.i.payload
        at_start = Signal(init=1)
        flush = Signal()
        valid = Signal()
        here = Signal(8 * count, reset_less=True)
        before = Signal(8 * count, reset_less=True)
        take_before = Signal(count, reset_less=True)
        strobe = Signal(count, reset_less=True)
        end = Signal(log2(count), reset_less=True)
        free = Signal()
        m.d.comb += [
            free.eq(~valid | self.o.ready),
            self.i.ready.eq(free & ~flush),
            self.o.valid.eq(valid),
            self.o.payload.strobe.eq(strobe),
        ]
        turned = rotated(m, i.data, i.edges.offset, left=True)
        with m.If(free):
            m.d.sync += valid.eq(0)
            with m.If(valid):
                m.d.sync += before.eq(here)
            with m.If(flush):
                m.d.sync += [flush.eq(0), valid.eq(1), strobe.eq(lanes_to(count, end))]
            with m.Elif(self.i.valid):
                m.d.sync += [
                    valid.eq(1),
                    here.eq(turned),
                    take_before.eq(~lanes_from(count, i.edges.offset)),
                    strobe.eq(
                        Mux(at_start, lanes_from(count, i.edges.offset), ones)
                        & Mux(i.last & ~i.edges.carry, lanes_to(count, i.edges.end), ones)
                    ),
                    end.eq(i.edges.end),
                    at_start.eq(i.last),
                    flush.eq(i.last & i.edges.carry),
                ]
        for lane in range(count):
            byte = slice(8 * lane, 8 * lane + 8)
            m.d.comb += self.o.payload.data[byte].eq(
                Mux(take_before[lane], before[byte], here[byte])
            )
        return m
