"""STORE: from scratchpad reads to AXI writes."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.commands import Fault
from tilewright.hw.config import Config
from tilewright.hw.dma.activity import ActivityMonitor
from tilewright.hw.dma.axi import DATA_ID, RESP_ERROR, AddressChannel, ResponseChannel, WriteChannel
from tilewright.hw.dma.buffers import Fifo
from tilewright.hw.dma.bursts import BurstGenerator
from tilewright.hw.dma.faults import fault_record
from tilewright.hw.dma.gather import ChunkReader, Regroup, Run, Unalign, groups_of_last
from tilewright.hw.dma.records import Activity, FaultRecord, Transfer, sp_address_bits
from tilewright.hw.lanes import log2

_RUNS = 4
"""Runs whose words are yet to be read."""


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
        m.submodules.runs = runs = Fifo(Run(config), _RUNS)
        m.submodules.lengths = lengths = Fifo(8, config.axi_outstanding)
        m.submodules.responses = responses = Fifo(_Response(config), config.axi_outstanding)
        m.submodules.reader = reader = ChunkReader(config)
        m.submodules.regroup = regroup = Regroup(config)
        m.submodules.unalign = unalign = Unalign(config)
        wiring.connect(m, wiring.flipped(self.i), bursts.i)
        wiring.connect(m, runs.o, reader.i)
        wiring.connect(m, reader.sp_read, wiring.flipped(self.sp_read))
        wiring.connect(m, reader.o, regroup.i)
        wiring.connect(m, regroup.o, unalign.i)
        response = responses.o.payload
        responds = Signal()
        failed = Signal()
        fault = fault_record(
            m,
            config,
            bursts,
            slverr=Fault.WRITE_SLVERR,
            decerr=Fault.WRITE_DECERR,
            error=failed,
            resp=self.b.payload.resp,
            burst=response,
            settled=~responses.some,
            enable=~self.drain,
        )
        m.d.comb += [reader.sp_read_data.eq(self.sp_read_data), self.fault.eq(fault)]

        # A burst goes to AW, to the queue of W's lengths and to that of responses at once, the
        # first of a run to the reader also.
        burst = bursts.o.payload
        aw_valid = Signal()
        aw = Signal(AddressChannel(config), reset_less=True, name="aw_payload")
        in_flight = Signal(range(config.axi_outstanding + 1))
        room = Signal(init=1)
        issues = Signal()
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
        for name, bits in groups_of_last(config).items():
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

        m.submodules.monitor = monitor = ActivityMonitor(config.axi_outstanding + 8)
        m.d.comb += [
            monitor.start.eq(self.i.valid & self.i.ready),
            monitor.done.eq(self.done),
            monitor.moved.eq(self.w.valid & self.w.ready),
            monitor.blocked.eq(~self.w.valid & self.sp_read.valid & ~self.sp_read.ready),
            self.activity.eq(monitor.o),
        ]
        return m
