"""Fetch of commands from DRAM."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.commands import COMMAND_BYTES, Fault
from tilewright.hw.config import Config
from tilewright.hw.dma.axi import FETCH_ID, RESP_ERROR, AddressChannel, ReadChannel
from tilewright.hw.dma.buffers import Fifo
from tilewright.hw.dma.bursts import burst_beats
from tilewright.hw.dma.records import Command, FaultRecord, FetchStart
from tilewright.hw.lanes import log2


def fetch_beats(config: Config) -> int:
    """Longest burst of the fetch in beats, a power of two: two commands (one beat at the least)."""
    return min(burst_beats(config), max(1, 2 * COMMAND_BYTES // config.axi_bytes))


class FetchEngine(wiring.Component):
    """Reads `count` commands and delivers them in order.

    The whole program must lie within the window, else WINDOW at index 0; its address must be a
    multiple of 64, else ILLEGAL_FIELD at index 0; nothing is read then. No burst is asked for that
    the FIFO (four commands at the most) has no room for, so `r` never waits. A command takes
    max(64 / D, 1) + 1 cycles to gather. On a fault the commands before it have been delivered.

    Attributes
    ----------
    i : stream of FetchStart
        Taken when the program before has been delivered.
    o : stream of Command
    ar : stream of AddressChannel
    r : stream of ReadChannel, always ready
        Responses to `ar` only.
    fault : FaultRecord
    """

    i: Any
    o: Any
    ar: Any
    r: Any
    fault: Any

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(FetchStart(config))),
                "o": Out(stream.Signature(Command())),
                "ar": Out(stream.Signature(AddressChannel(config))),
                "r": In(stream.Signature(ReadChannel(config), always_ready=True)),
                "fault": Out(FaultRecord(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        width = config.axi_addr_width
        bytes_ = config.axi_bytes
        lanes = log2(bytes_)
        beats = fetch_beats(config)
        low = log2(beats)
        depth = max(2 * beats, 4 * COMMAND_BYTES // bytes_, 2)
        reach = max(width, 32 + log2(COMMAND_BYTES)) + 1

        stored = data.StructLayout({"data": config.axi_data_width, "resp": 2})
        m.submodules.beats = fifo = Fifo(stored, depth)
        m.d.comb += [
            fifo.i.valid.eq(self.r.valid),
            fifo.i.payload.data.eq(self.r.payload.data),
            fifo.i.payload.resp.eq(self.r.payload.resp),
        ]

        start = Signal(FetchStart(config), reset_less=True, name="start")
        fault = Signal(FaultRecord(config), name="fault_record")
        index = Signal(32, reset_less=True)
        count1 = Signal(32, reset_less=True)
        last = Signal(reach, reset_less=True)
        beat = Signal(width - lanes, reset_less=True)
        asking = Signal()
        gathering = Signal()
        m.d.comb += self.fault.eq(fault)
        with m.FSM(name="control"):
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [start.eq(self.i.payload), count1.eq(self.i.payload.count - 1)]
                with m.If(self.i.valid & (self.i.payload.count != 0)):
                    m.next = "ADD"
            with m.State("ADD"):
                m.d.sync += [
                    last.eq(start.address + Cat(Const(COMMAND_BYTES - 1, 6), count1)),
                    beat.eq(start.address[lanes:]),
                    index.eq(0),
                ]
                m.next = "CHECK"
            with m.State("CHECK"):
                outside = Signal()
                m.d.comb += outside.eq(
                    start.overflow
                    | (start.address < start.base)
                    | last[width:].any()
                    | (last >= start.limit)
                )
                with m.If(outside | (start.address[:6] != 0)):
                    m.d.sync += [
                        fault.valid.eq(1),
                        fault.code.eq(Mux(outside, Fault.WINDOW, Fault.ILLEGAL_FIELD)),
                        fault.index.eq(0),
                        fault.address.eq(start.address),
                    ]
                    m.next = "STOP"
                with m.Else():
                    m.d.sync += [asking.eq(1), gathering.eq(1)]
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += [index.eq(index + 1), start.address.eq(start.address + 64)]
                    with m.If(index == count1):
                        m.d.sync += gathering.eq(0)
                        m.next = "IDLE"
                with m.If(fault.valid):
                    m.next = "STOP"
            with m.State("STOP"):
                pass

        # Bursts, as long as the FIFO has room for a longest one: planned in one cycle, asked for in
        # another.
        ar_valid = Signal()
        ar_beat = Signal(width - lanes, reset_less=True)
        ar_length = Signal(8, reset_less=True)
        space = Signal(range(depth + 1), init=depth)
        roomy = Signal()
        planned = Signal()
        ends = Signal(reset_less=True)
        length = Signal(range(max(2, beats)), reset_less=True)
        asks, freed = Signal(), Signal()
        m.d.sync += [
            ends.eq(beat[low:] == last[lanes + low : width]),
            length.eq(
                Mux(beat[low:] == last[lanes + low : width], last[lanes : lanes + low], beats - 1)
                - beat[:low]
            ),
            # Two cycles after a burst, when `space` and `beat` have settled.
            planned.eq(asking & ~asks),
            roomy.eq((space >= beats) & ~asks),
        ]
        m.d.comb += [
            asks.eq(planned & roomy & asking & ~fault.valid & ~ar_valid),
            freed.eq(fifo.o.valid & fifo.o.ready),
            self.ar.valid.eq(ar_valid),
            self.ar.payload.id.eq(FETCH_ID),
            self.ar.payload.address.eq(Cat(Const(0, lanes), ar_beat)),
            self.ar.payload.length.eq(ar_length),
        ]
        with m.If(asks):
            m.d.sync += space.eq(space - length - Mux(freed, 0, 1))
        with m.Elif(freed):
            m.d.sync += space.eq(space + 1)
        with m.If(asks):
            m.d.sync += [
                ar_valid.eq(1),
                ar_beat.eq(beat),
                ar_length.eq(length),
                beat.eq(Cat(Const(0, low), beat[low:] + 1)),
            ]
            with m.If(ends):
                m.d.sync += asking.eq(0)
        with m.Elif(self.ar.ready):
            m.d.sync += ar_valid.eq(0)

        # Gathering: one command, held until it is taken.
        valid = Signal()
        command = Signal(8 * COMMAND_BYTES, reset_less=True)
        taken = fifo.o.payload
        m.d.comb += [
            self.o.valid.eq(valid),
            self.o.payload.data.eq(command),
            self.o.payload.index.eq(index),
            self.o.payload.last.eq(index == count1),
        ]
        with m.If(self.o.ready):
            m.d.sync += valid.eq(0)
        with m.If(gathering & ~valid & fifo.o.valid & ~fault.valid):
            if bytes_ <= COMMAND_BYTES:
                parts = COMMAND_BYTES // bytes_
                part = Signal(range(max(2, parts)))
                m.d.comb += fifo.o.ready.eq(1)
                m.d.sync += [
                    command.eq(Cat(command, taken.data)[8 * bytes_ :]),
                    part.eq(Mux(part == parts - 1, 0, part + 1)),
                    valid.eq((part == parts - 1) & (taken.resp < RESP_ERROR)),
                ]
            else:
                # Two commands a beat.
                upper = start.address[6]
                m.d.comb += fifo.o.ready.eq(upper | (index == count1))
                m.d.sync += [
                    command.eq(taken.data.word_select(upper, 8 * COMMAND_BYTES)),
                    valid.eq(taken.resp < RESP_ERROR),
                ]
            with m.If(taken.resp >= RESP_ERROR):
                m.d.sync += [
                    fault.valid.eq(1),
                    fault.code.eq(Mux(taken.resp[0], Fault.READ_DECERR, Fault.READ_SLVERR)),
                    fault.index.eq(index),
                    fault.address.eq(start.address),
                ]
        return m
