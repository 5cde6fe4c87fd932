"""Assembly of the DMA."""

from typing import Any

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.config import Config
from tilewright.hw.dma.axi import FETCH_ID, AddressChannel, AxiSignature, ReadChannel
from tilewright.hw.dma.buffers import Skid
from tilewright.hw.dma.fetch import FetchEngine
from tilewright.hw.dma.read import ReadEngine
from tilewright.hw.dma.records import (
    Activity,
    Command,
    FaultRecord,
    FetchStart,
    SpWrite,
    Transfer,
    sp_address_bits,
)
from tilewright.hw.dma.write import WriteEngine


class ReadPort(wiring.Component):
    """Shares AR and R between the fetch, which comes first, and the read engine.

    Both channels are registered. At most `axi_outstanding` bursts are in flight.

    Attributes
    ----------
    fetch_ar, load_ar : streams of AddressChannel
    fetch_r, load_r : streams of ReadChannel
    ar, r : the bus
    halt : u1
        Issue no new AR.
    drain : u1
        Issue no new AR, swallow R. To be held until reset.
    quiet : u1
        Nothing is outstanding.
    """

    fetch_ar: Any
    load_ar: Any
    fetch_r: Any
    load_r: Any
    ar: Any
    r: Any
    halt: Signal
    drain: Signal
    quiet: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        address, read = AddressChannel(config), ReadChannel(config)
        super().__init__(
            {
                "fetch_ar": In(stream.Signature(address)),
                "load_ar": In(stream.Signature(address)),
                "fetch_r": Out(stream.Signature(read, always_ready=True)),
                "load_r": Out(stream.Signature(read)),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(read)),
                "halt": In(1),
                "drain": In(1),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        valid = Signal()
        payload = Signal(AddressChannel(config), reset_less=True, name="ar_payload")
        in_flight = Signal(range(config.axi_outstanding + 1))
        room = Signal(init=1)
        free, issues, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            free.eq(room & ~self.halt & ~self.drain & (~valid | self.ar.ready)),
            issues.eq(free & (self.fetch_ar.valid | self.load_ar.valid)),
            ends.eq(self.r.valid & self.r.ready & self.r.payload.last),
            self.fetch_ar.ready.eq(free),
            self.load_ar.ready.eq(free & ~self.fetch_ar.valid),
            self.ar.valid.eq(valid),
            self.ar.payload.eq(payload),
            self.quiet.eq(in_flight == 0),
        ]
        with m.If(issues):
            m.d.sync += [
                valid.eq(1),
                payload.eq(Mux(self.fetch_ar.valid, self.fetch_ar.payload, self.load_ar.payload)),
            ]
        with m.Elif(self.ar.ready):
            m.d.sync += valid.eq(0)
        with m.If(issues & ~ends):
            m.d.sync += [
                in_flight.eq(in_flight + 1),
                room.eq(in_flight != config.axi_outstanding - 1),
            ]
        with m.Elif(ends & ~issues):
            m.d.sync += [in_flight.eq(in_flight - 1), room.eq(1)]

        m.submodules.skid = skid = Skid(ReadChannel(config))
        wiring.connect(m, wiring.flipped(self.r), skid.i)
        fetches = skid.o.payload.id == FETCH_ID
        m.d.comb += [
            self.fetch_r.payload.eq(skid.o.payload),
            self.load_r.payload.eq(skid.o.payload),
            self.fetch_r.valid.eq(skid.o.valid & fetches & ~self.drain),
            self.load_r.valid.eq(skid.o.valid & ~fetches & ~self.drain),
            skid.o.ready.eq(self.drain | fetches | self.load_r.ready),
        ]
        return m


class Dma(wiring.Component):
    """Command fetch, LOAD and STORE on one AXI4 master.

    Every AXI output is a function of flip-flops alone, and so is every `valid`.

    Soft reset: from the cycle after `quiesce` on no burst is issued; those that were are completed
    (reads are dropped, writes get strobes of 0). When nothing is outstanding, everything is
    cleared and `quiet` is high, until the cycle after `quiesce` falls. One that falls earlier is
    seen through nevertheless. Streams into the DMA wait meanwhile; `sp_write`, `sp_read` and
    `command` may withdraw their `valid` at the clear.

    Attributes
    ----------
    fetch : stream of FetchStart
    command : stream of Command
    load, store : streams of Transfer
    load_done, store_done : u1
        A pulse for each transfer, in order: in the cycle after its last scratchpad write was
        accepted; in the cycle after its last write response.
    sp_write : stream of SpWrite
    sp_read : stream of word addresses
    sp_read_data : the word, SP_READ_LATENCY cycles after `sp_read` was granted
    fetch_fault, load_fault, store_fault : FaultRecord
        The engine at fault has stopped, until `quiesce`.
    load_activity, store_activity : Activity
        Of the cycle before.
    halt : u1
        Issue no new AR and AW.
    quiesce, quiet : u1
    axi : AxiSignature
    """

    fetch: Any
    command: Any
    load: Any
    store: Any
    load_done: Signal
    store_done: Signal
    sp_write: Any
    sp_read: Any
    sp_read_data: Signal
    fetch_fault: Any
    load_fault: Any
    store_fault: Any
    load_activity: Any
    store_activity: Any
    halt: Signal
    quiesce: Signal
    quiet: Signal
    axi: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "fetch": In(stream.Signature(FetchStart(config))),
                "command": Out(stream.Signature(Command())),
                "load": In(stream.Signature(Transfer(config))),
                "store": In(stream.Signature(Transfer(config))),
                "load_done": Out(1),
                "store_done": Out(1),
                "sp_write": Out(stream.Signature(SpWrite(config))),
                "sp_read": Out(stream.Signature(sp_address_bits(config))),
                "sp_read_data": In(8 * config.word_bytes),
                "fetch_fault": Out(FaultRecord(config)),
                "load_fault": Out(FaultRecord(config)),
                "store_fault": Out(FaultRecord(config)),
                "load_activity": Out(Activity()),
                "store_activity": Out(Activity()),
                "halt": In(1),
                "quiesce": In(1),
                "quiet": Out(1),
                "axi": Out(AxiSignature(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        drain = Signal()
        clear = Signal()
        fetch, load, store = FetchEngine(config), ReadEngine(config), WriteEngine(config)
        port = ReadPort(config)
        for name, part in (("fetch", fetch), ("load", load), ("store", store), ("port", port)):
            m.submodules[name] = ResetInserter({"sync": clear})(part)
        for a, b in (
            (fetch.o, wiring.flipped(self.command)),
            (load.sp_write, wiring.flipped(self.sp_write)),
            (store.sp_read, wiring.flipped(self.sp_read)),
            (fetch.ar, port.fetch_ar),
            (load.ar, port.load_ar),
            (port.fetch_r, fetch.r),
            (port.load_r, load.r),
            (port.ar, wiring.flipped(self.axi.ar)),
            (wiring.flipped(self.axi.r), port.r),
            (store.aw, wiring.flipped(self.axi.aw)),
            (store.w, wiring.flipped(self.axi.w)),
            (wiring.flipped(self.axi.b), store.b),
        ):
            wiring.connect(m, a, b)
        for outer, inner in ((self.fetch, fetch.i), (self.load, load.i), (self.store, store.i)):
            # What comes meanwhile waits for the clear.
            m.d.comb += [
                inner.payload.eq(outer.payload),
                inner.valid.eq(outer.valid & ~drain),
                outer.ready.eq(inner.ready & ~drain),
            ]
        m.d.comb += [
            store.sp_read_data.eq(self.sp_read_data),
            self.load_done.eq(load.done & ~drain),
            self.store_done.eq(store.done),
            self.fetch_fault.eq(fetch.fault),
            self.load_fault.eq(load.fault),
            self.store_fault.eq(store.fault),
            self.load_activity.eq(load.activity),
            self.store_activity.eq(store.activity),
            port.halt.eq(self.halt),
            store.halt.eq(self.halt),
            port.drain.eq(drain),
            store.drain.eq(drain),
            clear.eq(drain & port.quiet & store.quiet),
            self.quiet.eq(clear),
        ]
        m.d.sync += drain.eq(self.quiesce | (drain & ~clear))
        return m
