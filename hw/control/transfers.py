"""LOAD and STORE: from a resolved command to a transfer of the DMA."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import REGIONS, SCALARS, Opcode
from tilewright.hw.config import Config
from tilewright.hw.dma.records import Transfer
from tilewright.hw.layouts import INDEX_BITS, command_layout


def clipped_limit(limit: Signal, width: int) -> Mux:
    """A window's limit register as width + 1 bits: beyond the address space means its end."""
    return Mux(limit[width:].any(), 1 << width, limit[:width])


class TransferUnit(Cell):
    """Adds region base, offset and scalar; two cycles behind the dispatcher.

    Attributes
    ----------
    command, index, command_valid, command_ready : from the dispatcher
    bases, limits : 64 bits a region; scalars : 32 bits each
    transfer, transfer_valid, transfer_ready : to the DMA
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_transfer_unit"
        super().__init__(
            {
                "command": In(command_layout(Opcode.LOAD).size),
                "index": In(INDEX_BITS),
                "command_valid": In(1),
                "command_ready": Out(1),
                "bases": In(64 * REGIONS),
                "limits": In(64 * REGIONS),
                "scalars": In(32 * SCALARS),
                "transfer": Out(Transfer(config).size),
                "transfer_valid": Out(1),
                "transfer_ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.config.axi_addr_width
        layout = command_layout(Opcode.LOAD)
        incoming = data.View(layout, self.command)
        command = Signal(layout, reset_less=True)
        index = Signal(INDEX_BITS, reset_less=True)
        base = Signal(64, reset_less=True)
        limit = Signal(64, reset_less=True)
        scalar = Signal(32, reset_less=True)
        transfer = Signal(Transfer(self.config), reset_less=True)
        selected, valid = Signal(), Signal()
        goes = ~valid | self.transfer_ready
        m.d.comb += [
            # Not of `goes`: the DMA's grants need not reach the dispatcher in the same cycle.
            self.command_ready.eq(~selected),
            self.transfer.eq(transfer),
            self.transfer_valid.eq(valid),
        ]
        with m.If(self.command_ready):
            m.d.sync += [
                selected.eq(self.command_valid),
                command.eq(incoming),
                index.eq(self.index),
                base.eq(self.bases.word_select(incoming.region, 64)),
                limit.eq(self.limits.word_select(incoming.region, 64)),
                scalar.eq(
                    Mux(incoming.scalar_on, self.scalars.word_select(incoming.scalar, 32), 0)
                ),
            ]
        with m.Elif(goes):
            m.d.sync += selected.eq(0)
        address = Signal(66)
        m.d.comb += address.eq(base + command.offset + scalar)
        with m.If(goes):
            m.d.sync += [
                valid.eq(selected),
                transfer.address.eq(address),
                transfer.overflow.eq(address[width:].any()),
                transfer.base.eq(base),
                transfer.limit.eq(clipped_limit(limit, width)),
                transfer.index.eq(index),
                *(
                    getattr(transfer, name).eq(getattr(command, name))
                    for name in (
                        "length",
                        "runs",
                        "planes",
                        "run_stride",
                        "plane_stride",
                        "sp_addr",
                        "sp_chunk",
                        "sp_run",
                        "sp_plane",
                        "half",
                    )
                ),
            ]
        return m
