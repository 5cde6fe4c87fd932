"""From transfers to bursts: runs, window check, and the cut into AXI bursts."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.config import Config
from tilewright.hw.dma.records import Transfer, sp_address_bits
from tilewright.hw.lanes import log2


def burst_beats(config: Config) -> int:
    """Longest burst in beats: bursts end at multiples of it, and so never cross 4 KiB.

    A power of two: axi_max_burst rounded down.
    """
    return min(1 << log2(config.axi_max_burst), 4096 // config.axi_bytes, 256)


class Burst(data.StructLayout):
    """A burst, and the run it is of.

    Attributes
    ----------
    beat : u(axi_addr_width − log2 D)
        Address in beats of D bytes.
    length : u8, beats − 1
    first, last : u1
        First and last burst of the run.
    final : u1
        Last burst of the transfer.
    empty : u1
        1: no burst, but a transfer that moves nothing.
    offset : u(log2 D)
        Lane of the run's first byte.
    carry : u1
        The run's bytes occupy one beat more than they would with offset 0.
    sp : scratchpad word of the run's first chunk
    odd : u1, j & 1
    length1 : u32, the run's bytes − 1 (constant within the transfer)
    sp_chunk, half, index : of the transfer
    """

    def __init__(self, config: Config) -> None:
        lanes = log2(config.axi_bytes)
        super().__init__(
            {
                "beat": config.axi_addr_width - lanes,
                "length": 8,
                "first": 1,
                "last": 1,
                "final": 1,
                "empty": 1,
                "offset": lanes,
                "carry": 1,
                "sp": sp_address_bits(config),
                "odd": 1,
                "length1": 32,
                "sp_chunk": sp_address_bits(config),
                "half": 1,
                "index": 32,
            }
        )


class BurstGenerator(wiring.Component):
    """Walks the runs of a transfer, checks each against the window, and cuts it into bursts.

    Bursts end at multiples of `burst_beats` beats. At most a burst a cycle, and a run a cycle;
    five cycles from a transfer to its first burst, and one transfer at a time. On the first run
    outside its window it stops for good (until reset), with no burst of this run issued.

    Attributes
    ----------
    i : stream of Transfer
    o : stream of Burst
    outside : u1, level
        A run lies outside; all bursts before it have been accepted at `o`.
    outside_address : address of that run, modulo 2^axi_addr_width
    outside_index : u32
    """

    i: Any
    o: Any
    outside: Signal
    outside_address: Signal
    outside_index: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(Transfer(config))),
                "o": Out(stream.Signature(Burst(config))),
                "outside": Out(1),
                "outside_address": Out(config.axi_addr_width),
                "outside_index": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        width = config.axi_addr_width
        lanes = log2(config.axi_bytes)
        low = log2(burst_beats(config))
        sp_bits = sp_address_bits(config)

        t = Signal(Transfer(config), reset_less=True, name="transfer")
        active = Signal()
        setup = Signal()
        length1 = Signal(32, reset_less=True)

        # Stage 0: the run to come. Two bits above the address: a stride from an address within
        # range cannot leave them, and the run after one out of range is never looked at.
        more = Signal()
        empty = Signal(reset_less=True)
        address = Signal(width + 2, reset_less=True)
        plane_address = Signal(width + 2, reset_less=True)
        sp = Signal(sp_bits, reset_less=True)
        plane_sp = Signal(sp_bits, reset_less=True)
        odd = Signal(reset_less=True)
        runs_left = Signal(16, reset_less=True)
        planes_left = Signal(16, reset_less=True)
        # Comparisons of the counters are made a run ahead.
        one_run = Signal(reset_less=True)
        plane_ends = Signal(reset_less=True)
        last_plane = Signal(reset_less=True)
        # Stage 1: its last byte.
        valid1 = Signal()
        address1 = Signal(width + 2, reset_less=True)
        last1 = Signal(width + 2, reset_less=True)
        sp1 = Signal(sp_bits, reset_less=True)
        odd1 = Signal(reset_less=True)
        final1 = Signal(reset_less=True)
        # Stage 2: the verdict, and the rest of the run: `left2` bursts behind this one.
        valid2 = Signal()
        outside2 = Signal(reset_less=True)
        beat2 = Signal(width - lanes, reset_less=True)
        last2 = Signal(max(1, low), reset_less=True)
        left2 = Signal(33 - lanes - low, reset_less=True)
        end2 = Signal(reset_less=True)
        offset2 = Signal(lanes, reset_less=True)
        carry2 = Signal(reset_less=True)
        sp2 = Signal(sp_bits, reset_less=True)
        odd2 = Signal(reset_less=True)
        first2 = Signal(reset_less=True)
        final2 = Signal(reset_less=True)
        # Stage 3: the burst at the output.
        valid3 = Signal()
        o = Signal(Burst(config), reset_less=True, name="burst")

        free1, free2, free3 = Signal(), Signal(), Signal()

        m.d.comb += self.i.ready.eq(~active)
        with m.If(~active):
            m.d.sync += t.eq(self.i.payload)
            with m.If(self.i.valid):
                m.d.sync += [active.eq(1), setup.eq(1)]
        with m.If(setup):
            m.d.sync += [
                setup.eq(0),
                more.eq(1),
                empty.eq((t.length == 0) | (t.runs == 0) | (t.planes == 0)),
                length1.eq(t.length - 1),
                address.eq(Cat(t.address, t.overflow)),
                plane_address.eq(Cat(t.address, t.overflow)),
                sp.eq(t.sp_addr),
                plane_sp.eq(t.sp_addr),
                odd.eq(0),
                runs_left.eq(t.runs),
                planes_left.eq(t.planes),
                one_run.eq(t.runs == 1),
                plane_ends.eq(t.runs == 1),
                last_plane.eq(t.planes == 1),
            ]

        transfer_ends = Signal()
        next_address = Signal(width + 2)
        next_sp = Signal(sp_bits)
        m.d.comb += [
            transfer_ends.eq(empty | (plane_ends & last_plane)),
            # One adder each, with the choice in front of it.
            next_address.eq(
                Mux(plane_ends, plane_address, address).as_signed()
                + Mux(plane_ends, t.plane_stride, t.run_stride).as_signed()
            ),
            next_sp.eq(
                Mux(plane_ends, plane_sp, sp)
                + Mux(plane_ends, t.sp_plane, Mux(t.half & ~odd, 0, t.sp_run))
            ),
        ]
        with m.If(free1):
            m.d.sync += [
                valid1.eq(more),
                address1.eq(address),
                last1.eq(address + length1),
                sp1.eq(sp),
                odd1.eq(odd),
                final1.eq(transfer_ends),
            ]
            with m.If(more):
                m.d.sync += [
                    address.eq(next_address),
                    sp.eq(next_sp),
                    odd.eq(~odd & ~plane_ends),
                    runs_left.eq(runs_left - 1),
                    plane_ends.eq(runs_left == 2),
                    more.eq(~transfer_ends),
                ]
                with m.If(plane_ends):
                    m.d.sync += [
                        runs_left.eq(t.runs),
                        plane_ends.eq(one_run),
                        planes_left.eq(planes_left - 1),
                        last_plane.eq(planes_left == 2),
                        plane_address.eq(next_address),
                        plane_sp.eq(next_sp),
                    ]

        m.d.comb += free1.eq(~valid1 | free2)
        with m.If(free2):
            m.d.sync += [
                valid2.eq(valid1),
                outside2.eq(
                    ~empty
                    & (
                        address1[width:].any()
                        | last1[width:].any()
                        | (address1[:width] < t.base)
                        | (last1[:width] >= t.limit)
                    )
                ),
                beat2.eq(address1[lanes:]),
                last2.eq(last1[lanes : lanes + low]),
                left2.eq(last1[lanes + low :] - address1[lanes + low :]),
                end2.eq(empty | (last1[lanes + low :] == address1[lanes + low :])),
                offset2.eq(address1[:lanes]),
                carry2.eq(last1[:lanes] < address1[:lanes]),
                sp2.eq(sp1),
                odd2.eq(odd1),
                first2.eq(1),
                final2.eq(final1),
            ]
        with m.Elif(free3 & ~outside2):
            # The burst taken ended at a multiple of the longest burst.
            m.d.sync += [
                beat2.eq(Cat(Const(0, low), beat2[low:] + 1)),
                left2.eq(left2 - 1),
                end2.eq(left2 == 1),
                first2.eq(0),
            ]
        m.d.comb += [
            free3.eq(~valid3 | self.o.ready),
            free2.eq(~valid2 | (free3 & ~outside2 & end2)),
        ]

        with m.If(free3):
            m.d.sync += [
                valid3.eq(valid2 & ~outside2),
                o.beat.eq(beat2),
                o.length.eq(Mux(end2, last2, burst_beats(config) - 1) - beat2[:low]),
                o.first.eq(first2),
                o.last.eq(end2),
                o.final.eq(end2 & final2),
                o.empty.eq(empty),
                o.offset.eq(offset2),
                o.carry.eq(carry2),
                o.sp.eq(sp2),
                o.odd.eq(odd2),
            ]
        with m.If(valid3 & self.o.ready & o.final):
            m.d.sync += active.eq(0)
        m.d.comb += [
            self.o.valid.eq(valid3),
            self.o.payload.eq(o),
            # These hold until the transfer's last burst is taken.
            self.o.payload.length1.eq(length1),
            self.o.payload.sp_chunk.eq(t.sp_chunk),
            self.o.payload.half.eq(t.half),
            self.o.payload.index.eq(t.index),
            self.outside.eq(valid2 & outside2 & ~valid3),
            self.outside_address.eq(Cat(offset2, beat2)),
            self.outside_index.eq(t.index),
        ]
        return m
