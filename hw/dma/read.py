"""LOAD: from AXI reads to scratchpad writes."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.commands import Fault
from tilewright.hw.config import Config
from tilewright.hw.dma.activity import ActivityMonitor
from tilewright.hw.dma.axi import DATA_ID, AddressChannel, ReadChannel
from tilewright.hw.dma.buffers import Fifo
from tilewright.hw.dma.bursts import BurstGenerator
from tilewright.hw.dma.faults import fault_record
from tilewright.hw.dma.records import Activity, FaultRecord, SpWrite, Transfer
from tilewright.hw.dma.scatter import ChunkWriter, Descriptor, Realign
from tilewright.hw.lanes import log2


class ReadEngine(wiring.Component):
    """Brings transfers from memory to the scratchpad.

    The address side runs ahead of the data side, across transfers too, by `axi_outstanding` bursts
    and a transfer. A beat a cycle; an unaligned run may take one cycle more than it has beats.
    Bytes of a beat outside the run are read (never beyond the beat) and dropped. On an error
    response, or a run outside the window, the engine stops for good (until reset) and swallows
    what still comes on `r`. Transfers before the one at fault are done, if the port lets them,
    within a few cycles.

    Attributes
    ----------
    i : stream of Transfer
    ar : stream of AddressChannel
    r : stream of ReadChannel
        Responses to `ar` only.
    sp_write : stream of SpWrite
    done : u1
        A pulse for each transfer, in order, in the cycle after its last write was accepted.
    fault : FaultRecord
    activity : Activity
        Of the cycle before. A beat moves on `r`.
    """

    i: Any
    ar: Any
    r: Any
    sp_write: Any
    done: Signal
    fault: Any
    activity: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(Transfer(config))),
                "ar": Out(stream.Signature(AddressChannel(config))),
                "r": In(stream.Signature(ReadChannel(config))),
                "sp_write": Out(stream.Signature(SpWrite(config))),
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
        m.submodules.descriptors = fifo = Fifo(Descriptor(config), config.axi_outstanding)
        m.submodules.realign = realign = Realign(config)
        m.submodules.writer = writer = ChunkWriter(config)
        wiring.connect(m, wiring.flipped(self.i), bursts.i)
        wiring.connect(m, wiring.flipped(self.r), realign.r)
        wiring.connect(m, realign.o, writer.i)
        wiring.connect(m, writer.sp_write, wiring.flipped(self.sp_write))
        wiring.connect(m, fifo.o, realign.descriptor)

        burst = bursts.o.payload
        descriptor = fifo.i.payload
        m.d.comb += [
            self.ar.valid.eq(bursts.o.valid & fifo.i.ready & ~burst.empty),
            self.ar.payload.id.eq(DATA_ID),
            self.ar.payload.address.eq(Cat(Const(0, lanes), burst.beat)),
            self.ar.payload.length.eq(burst.length),
            bursts.o.ready.eq(fifo.i.ready & (burst.empty | self.ar.ready)),
            fifo.i.valid.eq(bursts.o.valid & (burst.empty | self.ar.ready)),
            descriptor.tail.eq(burst.length1[:lanes]),
            self.done.eq(writer.done),
        ]
        for name in ("first", "last", "final", "empty", "offset", "carry", "beat", "index"):
            m.d.comb += descriptor[name].eq(burst[name])
        for name in ("sp", "sp_chunk", "half", "odd"):
            m.d.comb += descriptor.place[name].eq(burst[name])

        fault = fault_record(
            m,
            config,
            bursts,
            slverr=Fault.READ_SLVERR,
            decerr=Fault.READ_DECERR,
            error=realign.error,
            resp=self.r.payload.resp,
            burst=fifo.o.payload,
            settled=~fifo.some,
        )
        m.d.comb += [realign.stop.eq(fault.valid), self.fault.eq(fault)]

        m.submodules.monitor = monitor = ActivityMonitor(config.axi_outstanding + 8)
        m.d.comb += [
            monitor.start.eq(self.i.valid & self.i.ready),
            monitor.done.eq(self.done),
            monitor.moved.eq(self.r.valid & self.r.ready),
            monitor.blocked.eq(self.r.valid | (self.sp_write.valid & ~self.sp_write.ready)),
            self.activity.eq(monitor.o),
        ]
        return m
