"""STORE: from scratchpad reads to AXI writes."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.commands import Fault
from hw.config import Config
from hw.dma.activity import ActivityMonitor
from hw.dma.axi import DATA_ID, RESP_ERROR, AddressChannel, ResponseChannel, WriteChannel
from hw.dma.buffers import Fifo
from hw.dma.bursts import BurstGenerator
from hw.dma.lanes import lanes_from, lanes_to, log2, rotated
from hw.dma.records import Activity, FaultRecord, Transfer, sp_address_bits
from hw.manifest import SP_READ_LATENCY

_WORDS = 8
"""Words asked for and not yet used: the read latency, the FIFO's two cycles, and some slack."""
_RUNS = 4
"""Runs whose words are yet to be read."""


class _Edges(data.StructLayout):
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


class _Run(data.StructLayout):
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
                **_groups_of_last(config),
                "half": 1,
                "odd": 1,
                "edges": _Edges(config),
            }
        )


def _groups_of_last(config: Config) -> dict[str, int]:
    # A field of no bits would be a wire [-1:0] in Verilog.
    bits = log2(config.word_bytes) - log2(config.axi_bytes)
    return {"groups1": bits} if bits > 0 else {}


class _Tag(data.StructLayout):
    """What goes with a word: `last` of its run, and the run's fields."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "last": 1,
                **_groups_of_last(config),
                "half": 1,
                "odd": 1,
                "edges": _Edges(config),
            }
        )


class _Word(data.StructLayout):
    """A scratchpad word and its tag."""

    def __init__(self, config: Config) -> None:
        super().__init__({"data": 8 * config.word_bytes, "tag": _Tag(config)})


class _Group(data.StructLayout):
    """D bytes of a run, from a multiple of D behind its start; the rest of the last is junk."""

    def __init__(self, config: Config) -> None:
        super().__init__({"data": config.axi_data_width, "last": 1, "edges": _Edges(config)})


class _Beat(data.StructLayout):
    """A beat of a run."""

    def __init__(self, config: Config) -> None:
        super().__init__({"data": config.axi_data_width, "strobe": config.axi_bytes})


class _ChunkReader(wiring.Component):
    """Reads the chunks of runs, a word a cycle.

    Attributes
    ----------
    i : stream of _Run
    sp_read : stream of word addresses
    sp_read_data : the word, SP_READ_LATENCY cycles after `sp_read` was granted
    o : stream of _Word
    """

    i: Any
    sp_read: Any
    sp_read_data: Signal
    o: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(_Run(config))),
                "sp_read": Out(stream.Signature(sp_address_bits(config))),
                "sp_read_data": In(8 * config.word_bytes),
                "o": Out(stream.Signature(_Word(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.words = words = Fifo(_Word(config), _WORDS)
        wiring.connect(m, words.o, wiring.flipped(self.o))

        valid = Signal()
        run = Signal(_Run(config), reset_less=True, name="run")
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

        tag = Signal(_Tag(config), name="tag")
        m.d.comb += tag.last.eq(ends)
        for name in (*_groups_of_last(config), "half", "odd", "edges"):
            m.d.comb += tag[name].eq(run[name])
        arrived = granted
        for stage in range(SP_READ_LATENCY):
            arrives = Signal(name=f"arrives{stage}")
            delayed = Signal(_Tag(config), name=f"tag{stage}", reset_less=True)
            m.d.sync += [arrives.eq(arrived), delayed.eq(tag)]
            arrived, tag = arrives, delayed
        m.d.comb += [
            words.i.valid.eq(arrived),
            words.i.payload.data.eq(self.sp_read_data),
            words.i.payload.tag.eq(tag),
        ]
        return m


class _Regroup(wiring.Component):
    """From words to groups of D bytes: a group, or a word, a cycle, whichever is smaller.

    Attributes
    ----------
    i : stream of _Word
    o : stream of _Group
    """

    i: Any
    o: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {"i": In(stream.Signature(_Word(config))), "o": Out(stream.Signature(_Group(config)))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        group_bytes, panel = config.axi_bytes, config.panel
        word, tag = self.i.payload.data, self.i.payload.tag
        valid = Signal()
        last = Signal(reset_less=True)
        edges = Signal(_Edges(config), reset_less=True, name="edges")
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


class _Unalign(wiring.Component):
    """Turns groups of runs into beats with strobes: a beat a cycle.

    Attributes
    ----------
    i : stream of _Group
    o : stream of _Beat
    """

    i: Any
    o: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {"i": In(stream.Signature(_Group(config))), "o": Out(stream.Signature(_Beat(config)))}
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


class _Response(data.StructLayout):
    """A burst whose response is awaited, or a transfer that moves nothing (`empty`)."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "final": 1,
                "empty": 1,
                "beat": config.axi_addr_width - log2(config.axi_bytes),
                "index": 32,
            }
        )


class WriteEngine(wiring.Component):
    """Brings transfers from the scratchpad to memory.

    AW runs ahead of W by up to `axi_outstanding` bursts, across transfers too. The data of a burst
    is offered once its AW is offered, and waits for no AWREADY; AW waits for no WREADY. A beat a
    cycle, unaligned runs too, as far as a word a cycle suffices. On an error response or a run
    outside the window no further AW is issued (until reset); what AW announced is completed.

    Attributes
    ----------
    i : stream of Transfer
    aw, w : streams of AddressChannel, WriteChannel
    b : stream of ResponseChannel
    sp_read : stream of word addresses
    sp_read_data : the word, SP_READ_LATENCY cycles after `sp_read` was granted
    halt : u1
        Issue no new AW.
    drain : u1
        Issue no new AW; complete what was announced without data (strobes 0). To be held until
        the engine is reset.
    quiet : u1
        Nothing is outstanding on AW, W, B.
    done : u1
        A pulse for each transfer, in order, in the cycle after its last response.
    fault : FaultRecord
    activity : Activity
        Of the cycle before. A beat moves on `w`.
    """

    i: Any
    aw: Any
    w: Any
    b: Any
    sp_read: Any
    sp_read_data: Signal
    halt: Signal
    drain: Signal
    quiet: Signal
    done: Signal
    fault: Any
    activity: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(Transfer(config))),
                "aw": Out(stream.Signature(AddressChannel(config))),
                "w": Out(stream.Signature(WriteChannel(config))),
                "b": In(stream.Signature(ResponseChannel())),
                "sp_read": Out(stream.Signature(sp_address_bits(config))),
                "sp_read_data": In(8 * config.word_bytes),
                "halt": In(1),
                "drain": In(1),
                "quiet": Out(1),
                "done": Out(1),
                "fault": Out(FaultRecord(config)),
                "activity": Out(Activity()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        lanes = log2(config.axi_bytes)
        m.submodules.bursts = bursts = BurstGenerator(config)
        m.submodules.runs = runs = Fifo(_Run(config), _RUNS)
        m.submodules.lengths = lengths = Fifo(8, config.axi_outstanding)
        m.submodules.responses = responses = Fifo(_Response(config), config.axi_outstanding)
        m.submodules.reader = reader = _ChunkReader(config)
        m.submodules.regroup = regroup = _Regroup(config)
        m.submodules.unalign = unalign = _Unalign(config)
        wiring.connect(m, wiring.flipped(self.i), bursts.i)
        wiring.connect(m, runs.o, reader.i)
        wiring.connect(m, reader.sp_read, wiring.flipped(self.sp_read))
        wiring.connect(m, reader.o, regroup.i)
        wiring.connect(m, regroup.o, unalign.i)
        fault = Signal(FaultRecord(config), name="fault_record")
        m.d.comb += [reader.sp_read_data.eq(self.sp_read_data), self.fault.eq(fault)]

        # A burst goes to AW, to the queue of W's lengths and to that of responses at once, the
        # first of a run to the reader also.
        burst = bursts.o.payload
        aw_valid = Signal()
        aw = Signal(AddressChannel(config), reset_less=True, name="aw_payload")
        in_flight = Signal(range(config.axi_outstanding + 1))
        room = Signal(init=1)
        issues = Signal()
        responds = Signal()
        m.d.comb += [
            bursts.o.ready.eq(
                lengths.i.ready
                & responses.i.ready
                & runs.i.ready
                & ~self.halt
                & ~self.drain
                & ~fault.valid
                & (burst.empty | (room & (~aw_valid | self.aw.ready)))
            ),
            issues.eq(bursts.o.valid & bursts.o.ready & ~burst.empty),
            responds.eq(self.b.valid & self.b.ready),
            lengths.i.valid.eq(issues),
            lengths.i.payload.eq(burst.length),
            responses.i.valid.eq(bursts.o.valid & bursts.o.ready),
            runs.i.valid.eq(issues & burst.first),
            self.aw.valid.eq(aw_valid),
            self.aw.payload.eq(aw),
            self.quiet.eq((in_flight == 0) & ~self.w.valid & ~lengths.some),
        ]
        with m.If(issues):
            m.d.sync += [
                aw_valid.eq(1),
                aw.id.eq(DATA_ID),
                aw.address.eq(Cat(Const(0, lanes), burst.beat)),
                aw.length.eq(burst.length),
            ]
        with m.Elif(self.aw.ready):
            m.d.sync += aw_valid.eq(0)
        with m.If(issues & ~responds):
            m.d.sync += [
                in_flight.eq(in_flight + 1),
                room.eq(in_flight != config.axi_outstanding - 1),
            ]
        with m.Elif(responds & ~issues):
            m.d.sync += [in_flight.eq(in_flight - 1), room.eq(1)]
        for name in ("final", "empty", "beat", "index"):
            m.d.comb += responses.i.payload[name].eq(burst[name])
        run = runs.i.payload
        for name in ("sp", "sp_chunk", "half", "odd"):
            m.d.comb += run[name].eq(burst[name])
        panel_bits = log2(config.panel)
        m.d.comb += [
            run.chunks1.eq(
                Mux(burst.half, burst.length1[panel_bits:], burst.length1[panel_bits + 1 :])
            ),
            run.edges.offset.eq(burst.offset),
            run.edges.end.eq((burst.offset + burst.length1[:lanes])[:lanes]),
            run.edges.carry.eq(burst.carry),
        ]
        for name, bits in _groups_of_last(config).items():
            groups = burst.length1[lanes : lanes + bits]
            # Of a half chunk's groups the top bit is the chunk's.
            m.d.comb += run[name].eq(Mux(burst.half, groups[:-1], groups))

        # W: beats of the runs, cut into bursts; when draining, beats without data.
        w_valid = Signal()
        w = Signal(WriteChannel(config), reset_less=True, name="w_payload")
        w_count = Signal(8)
        w_free, w_takes = Signal(), Signal()
        m.d.comb += [
            self.w.valid.eq(w_valid),
            self.w.payload.eq(w),
            w_free.eq(~w_valid | self.w.ready),
            w_takes.eq(w_free & lengths.o.valid & (unalign.o.valid | self.drain)),
            unalign.o.ready.eq(w_free & lengths.o.valid),
            lengths.o.ready.eq(w_takes & (w_count == lengths.o.payload)),
        ]
        with m.If(w_free):
            m.d.sync += [
                w_valid.eq(w_takes),
                w.data.eq(unalign.o.payload.data),
                w.strobe.eq(Mux(self.drain, 0, unalign.o.payload.strobe)),
                w.last.eq(w_count == lengths.o.payload),
            ]
        with m.If(w_takes):
            m.d.sync += w_count.eq(Mux(lengths.o.ready, 0, w_count + 1))

        # B: in order, since all bursts have one ID.
        response = responses.o.payload
        failed = Signal()
        m.d.comb += [
            self.b.ready.eq(responses.o.valid & ~response.empty),
            responses.o.ready.eq(response.empty | self.b.valid),
            failed.eq(responds & (self.b.payload.resp >= RESP_ERROR)),
        ]
        m.d.sync += self.done.eq(
            responses.o.valid
            & responses.o.ready
            & response.final
            & ~failed
            & ~fault.valid
            & ~self.drain
        )
        with m.If(~fault.valid & ~self.drain):
            with m.If(failed):
                resp = self.b.payload.resp
                m.d.sync += [
                    fault.valid.eq(1),
                    fault.code.eq(Mux(resp[0], Fault.WRITE_DECERR, Fault.WRITE_SLVERR)),
                    fault.index.eq(response.index),
                    fault.address.eq(Cat(Const(0, lanes), response.beat)),
                ]
            with m.Elif(bursts.outside & ~responses.some):
                # Not before the runs in front of it had their responses.
                m.d.sync += [
                    fault.valid.eq(1),
                    fault.code.eq(Fault.WINDOW),
                    fault.index.eq(bursts.outside_index),
                    fault.address.eq(bursts.outside_address),
                ]

        m.submodules.monitor = monitor = ActivityMonitor(config.axi_outstanding + 8)
        m.d.comb += [
            monitor.start.eq(self.i.valid & self.i.ready),
            monitor.done.eq(self.done),
            monitor.moved.eq(self.w.valid & self.w.ready),
            monitor.blocked.eq(~self.w.valid & self.sp_read.valid & ~self.sp_read.ready),
            self.activity.eq(monitor.o),
        ]
        return m
