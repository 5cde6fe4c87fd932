"""The data of LOAD, stage by stage: beats, groups of D bytes, words of the scratchpad.

W: columns of a panel; D: bytes of a beat.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.config import Config
from tilewright.hw.dma.axi import RESP_ERROR, ReadChannel
from tilewright.hw.dma.records import SpWrite, sp_address_bits
from tilewright.hw.lanes import lanes_from, lanes_to, log2, rotated


class Place(data.StructLayout):
    """Where the chunks of a run go; fields as in `Burst`."""

    def __init__(self, config: Config) -> None:
        address = sp_address_bits(config)
        super().__init__({"sp": address, "sp_chunk": address, "half": 1, "odd": 1})


class Descriptor(data.StructLayout):
    """What the data side knows of a burst; fields as in `Burst`, and `tail`, the lane of the last
    byte in the last group of the run.
    """

    def __init__(self, config: Config) -> None:
        lanes = log2(config.axi_bytes)
        super().__init__(
            {
                "first": 1,
                "last": 1,
                "final": 1,
                "empty": 1,
                "offset": lanes,
                "carry": 1,
                "tail": lanes,
                "place": Place(config),
                "beat": config.axi_addr_width - lanes,
                "index": 32,
            }
        )


class Group(data.StructLayout):
    """D bytes of a run, from a multiple of D behind its start; bytes behind its end are zero.

    Attributes
    ----------
    data : D bytes
    first, last : u1
        Of the run.
    tail : u(log2 D)
        Last lane in use.
    final : u1
        With `last`: the transfer ends. Always set with `empty`.
    empty : u1
        No group, but a transfer that moves nothing.
    place : Place, of the run
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "data": config.axi_data_width,
                "first": 1,
                "last": 1,
                "tail": log2(config.axi_bytes),
                "final": 1,
                "empty": 1,
                "place": Place(config),
            }
        )


class Realign(wiring.Component):
    """Turns the beats of runs into groups.

    A rotator brings byte i of a group to lane i; a group is merged from two beats so turned. A
    beat a cycle, and a cycle more for a run whose last beat holds bytes of two groups.

    Attributes
    ----------
    descriptor : stream of Descriptor
    r : stream of ReadChannel
    o : stream of Group
    stop : u1
        No more groups: `r` is swallowed. To be held.
    error : u1
        The beat taken in this cycle has an error response.
    """

    descriptor: Any
    r: Any
    o: Any
    stop: Signal
    error: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "descriptor": In(stream.Signature(Descriptor(config))),
                "r": In(stream.Signature(ReadChannel(config))),
                "o": Out(stream.Signature(Group(config))),
                "stop": In(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = self.config.axi_bytes
        bits = log2(count)
        ones = Const((1 << count) - 1, count)
        d, beat = self.descriptor.payload, self.r.payload

        at_start = Signal(init=1)
        flush = Signal()
        valid = Signal()
        group = Signal()
        o = Signal(Group(self.config), reset_less=True, name="group_at")
        before = Signal(8 * count, reset_less=True)
        take = Signal(count, reset_less=True)
        keep = Signal(count, reset_less=True)
        run_tail = Signal(bits, reset_less=True)
        free, takes = Signal(), Signal()
        begins, ends, aligned, single, flushes, final_group = (
            Signal(name=name)
            for name in ("begins", "ends", "aligned", "single", "flushes", "final_group")
        )
        m.d.comb += [
            begins.eq(d.first & at_start),
            ends.eq(d.last & beat.last),
            aligned.eq(d.offset == 0),
            # The whole run in one beat: nothing to merge.
            single.eq(begins & ends),
            flushes.eq(ends & ~aligned & ~d.carry & ~single),
            final_group.eq(ends & ~flushes),
            free.eq(~valid | ~group | self.o.ready),
            takes.eq(self.r.valid & self.descriptor.valid & ~d.empty & ~flush & free & ~self.stop),
            self.r.ready.eq(self.stop | (self.descriptor.valid & ~d.empty & ~flush & free)),
            self.descriptor.ready.eq(
                free & ~flush & ~self.stop & (d.empty | (self.r.valid & beat.last))
            ),
            self.error.eq(takes & (beat.resp >= RESP_ERROR)),
        ]
        turned = rotated(m, beat.data, d.offset)
        with m.If(free):
            m.d.sync += valid.eq(0)
            with m.If(valid):
                m.d.sync += before.eq(o.data)
            with m.If(flush):
                m.d.sync += [
                    flush.eq(0),
                    valid.eq(1),
                    group.eq(1),
                    o.first.eq(0),
                    o.last.eq(1),
                    o.tail.eq(run_tail),
                    take.eq(0),
                    keep.eq(lanes_to(count, run_tail)),
                ]
            with m.Elif(self.descriptor.valid & d.empty & ~self.stop):
                m.d.sync += [valid.eq(1), group.eq(1), o.empty.eq(1), o.final.eq(1)]
            with m.Elif(takes):
                m.d.sync += [
                    valid.eq(~self.error),
                    group.eq(aligned | ~begins | single),
                    # The first beat may bring no group of its own.
                    o.first.eq(begins | (o.first & ~group)),
                    o.last.eq(final_group),
                    o.tail.eq(Mux(final_group, d.tail, count - 1)),
                    o.final.eq(d.final),
                    o.empty.eq(0),
                    o.place.eq(d.place),
                    o.data.eq(turned),
                    take.eq(Mux(aligned | single, ones, lanes_from(count, (-d.offset)[:bits]))),
                    keep.eq(Mux(final_group, lanes_to(count, d.tail), ones)),
                    run_tail.eq(d.tail),
                    at_start.eq(beat.last),
                    flush.eq(flushes & ~self.error),
                ]
        m.d.comb += [self.o.valid.eq(valid & group), self.o.payload.eq(o)]
        for lane in range(count):
            byte = slice(8 * lane, 8 * lane + 8)
            m.d.comb += self.o.payload.data[byte].eq(
                Mux(take[lane], o.data[byte], before[byte]) & keep[lane].replicate(8)
            )
        return m


class ChunkWriter(wiring.Component):
    """From groups of D bytes to chunks of 2W (or W) bytes, written to the scratchpad.

    A group a cycle where a chunk is no shorter than a group, else a chunk a cycle.

    Attributes
    ----------
    i : stream of Group
    sp_write : stream of SpWrite
    done : u1
        The transfer's last write was accepted in the cycle before.
    """

    i: Any
    sp_write: Any
    done: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(Group(config))),
                "sp_write": Out(stream.Signature(SpWrite(config))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        group_bytes, panel = config.axi_bytes, config.panel
        i = self.i.payload
        place = i.place
        free = Signal()
        enters = Signal()
        valid = Signal()
        final = Signal(reset_less=True)
        here = Signal(sp_address_bits(config), reset_less=True)
        following = Signal(sp_address_bits(config))
        mask = Signal(2, reset_less=True)
        m.d.comb += [
            # A transfer without data waits for the write before it, so that one is done at a time.
            self.i.ready.eq(Mux(i.empty, ~valid, free)),
            enters.eq(self.i.valid & free & ~i.empty),
            self.sp_write.valid.eq(valid),
            self.sp_write.payload.addr.eq(here),
            self.sp_write.payload.mask.eq(mask),
        ]
        m.d.sync += self.done.eq(
            (valid & self.sp_write.ready & final) | (self.i.valid & i.empty & ~valid)
        )

        if group_bytes <= panel:
            # Slots of a word fill up. A half chunk is written into both halves, and the mask picks.
            slots = 2 * panel // group_bytes
            word = Signal(16 * panel, reset_less=True)
            slot = Signal(range(slots))
            step = Signal(sp_address_bits(config), reset_less=True)
            full = Signal()
            m.d.comb += [
                free.eq(~valid | self.sp_write.ready),
                following.eq(Mux(i.first, place.sp, step)),
                full.eq(i.last | (slot == Mux(place.half, slots // 2 - 1, slots - 1))),
                self.sp_write.payload.data.eq(word),
            ]
            with m.If(free):
                m.d.sync += valid.eq(0)
            with m.If(enters):
                for s in range(slots):
                    part = word[8 * group_bytes * s : 8 * group_bytes * (s + 1)]
                    own = slot == s
                    if s >= slots // 2:
                        own = own | (place.half & (slot == s - slots // 2))
                    with m.If(own):
                        m.d.sync += part.eq(i.data)
                    with m.Elif(slot == 0):
                        m.d.sync += part.eq(0)
                m.d.sync += [
                    slot.eq(Mux(full, 0, slot + 1)),
                    valid.eq(full),
                    here.eq(following),
                    step.eq(Mux(full, following + place.sp_chunk, following)),
                    final.eq(i.last & i.final),
                    mask.eq(Mux(place.half, Cat(~i.place.odd, i.place.odd), 3)),
                ]
        else:
            # A group is shifted down by chunks.
            rest = Signal(8 * group_bytes, reset_less=True)
            chunks = group_bytes // panel
            left = Signal(range(chunks), reset_less=True)
            half = Signal(reset_less=True)
            chunk = Signal(sp_address_bits(config), reset_less=True)
            ends = Signal(reset_less=True)
            low = rest[: 16 * panel]
            m.d.comb += [
                free.eq(~valid | (self.sp_write.ready & (left == 0))),
                following.eq(here + chunk),
                final.eq(ends & (left == 0)),
                self.sp_write.payload.data.eq(
                    Cat(low[: 8 * panel], Mux(half, low[: 8 * panel], low[8 * panel :]))
                ),
            ]
            with m.If(free):
                m.d.sync += valid.eq(0)
            with m.If(enters):
                m.d.sync += [
                    valid.eq(1),
                    rest.eq(i.data),
                    left.eq(Mux(place.half, i.tail >> log2(panel), i.tail >> log2(2 * panel))),
                    half.eq(place.half),
                    here.eq(Mux(i.first, place.sp, following)),
                    chunk.eq(place.sp_chunk),
                    ends.eq(i.last & i.final),
                    mask.eq(Mux(place.half, Cat(~i.place.odd, i.place.odd), 3)),
                ]
            with m.Elif(valid & self.sp_write.ready & (left != 0)):
                m.d.sync += [
                    rest.eq(Mux(half, rest >> (8 * panel), rest >> (16 * panel))),
                    left.eq(left - 1),
                    here.eq(following),
                ]
        return m
