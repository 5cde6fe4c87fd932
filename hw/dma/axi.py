"""The AXI4 master port: channels as streams inside, flat names at the top."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.config import Config

ID_BITS = 1
FETCH_ID = 0
"""Transactions that read commands."""
DATA_ID = 1
"""Transactions of LOAD and STORE."""
RESP_ERROR = 2
"""Smallest xRESP that is an error: SLVERR; DECERR is one more."""


class AddressChannel(data.StructLayout):
    """Payload of AR and AW: INCR bursts of whole beats, the address aligned to a beat.

    Attributes
    ----------
    id : u(ID_BITS)
    address : u(axi_addr_width), bytes
    length : u8, beats − 1
    """

    def __init__(self, config: Config) -> None:
        super().__init__({"id": ID_BITS, "address": config.axi_addr_width, "length": 8})


class ReadChannel(data.StructLayout):
    """Payload of R."""

    def __init__(self, config: Config) -> None:
        super().__init__({"id": ID_BITS, "data": config.axi_data_width, "resp": 2, "last": 1})


class WriteChannel(data.StructLayout):
    """Payload of W."""

    def __init__(self, config: Config) -> None:
        super().__init__({"data": config.axi_data_width, "strobe": config.axi_bytes, "last": 1})


class ResponseChannel(data.StructLayout):
    """Payload of B."""

    def __init__(self) -> None:
        super().__init__({"id": ID_BITS, "resp": 2})


class AxiSignature(wiring.Signature):
    """An AXI4 master: `ar`, `aw`, `w` are output streams, `r`, `b` input streams."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "ar": Out(stream.Signature(AddressChannel(config))),
                "r": In(stream.Signature(ReadChannel(config))),
                "aw": Out(stream.Signature(AddressChannel(config))),
                "w": Out(stream.Signature(WriteChannel(config))),
                "b": In(stream.Signature(ResponseChannel())),
            }
        )


_CONSTANTS = {
    "size": 3,
    "burst": 2,
    "lock": 1,
    "cache": 4,
    "prot": 3,
    "qos": 4,
}


def _constant(config: Config, field: str) -> int:
    # INCR; normal memory, not cacheable, bufferable (which is what interconnects do best with).
    values = {"size": (config.axi_bytes - 1).bit_length(), "burst": 1, "cache": 0b0011}
    return values.get(field, 0)


def flat_ports(config: Config, prefix: str = "m_axi_") -> list[tuple[str, str, int]]:
    """Return (name, direction, width) of every flat port; direction "o" or "i", the master's view.

    ARESETn and ACLK are not among them.
    """
    ports: list[tuple[str, str, int]] = []
    for channel in ("ar", "aw"):
        ports += [
            (f"{channel}id", "o", ID_BITS),
            (f"{channel}addr", "o", config.axi_addr_width),
            (f"{channel}len", "o", 8),
            *((f"{channel}{field}", "o", width) for field, width in _CONSTANTS.items()),
            (f"{channel}valid", "o", 1),
            (f"{channel}ready", "i", 1),
        ]
    ports += [
        ("rid", "i", ID_BITS),
        ("rdata", "i", config.axi_data_width),
        ("rresp", "i", 2),
        ("rlast", "i", 1),
        ("rvalid", "i", 1),
        ("rready", "o", 1),
        ("wdata", "o", config.axi_data_width),
        ("wstrb", "o", config.axi_bytes),
        ("wlast", "o", 1),
        ("wvalid", "o", 1),
        ("wready", "i", 1),
        ("bid", "i", ID_BITS),
        ("bresp", "i", 2),
        ("bvalid", "i", 1),
        ("bready", "o", 1),
    ]
    return [(prefix + name, direction, width) for name, direction, width in ports]


def flat_members(config: Config, prefix: str = "m_axi_") -> dict[str, wiring.Member]:
    """Return the flat ports as members of a component's signature."""
    return {
        name: (Out if direction == "o" else In)(width)
        for name, direction, width in flat_ports(config, prefix)
    }


def connect_flat(m: Module, config: Config, axi: Any, ports: Any, prefix: str = "m_axi_") -> None:
    """Connect an `AxiSignature` port of a submodule to the flat members of `ports`."""

    def flat(name: str) -> Any:
        return getattr(ports, prefix + name)

    for name, channel in (("ar", axi.ar), ("aw", axi.aw)):
        m.d.comb += [
            flat(name + "id").eq(channel.payload.id),
            flat(name + "addr").eq(channel.payload.address),
            flat(name + "len").eq(channel.payload.length),
            flat(name + "valid").eq(channel.valid),
            channel.ready.eq(flat(name + "ready")),
            *(flat(name + field).eq(_constant(config, field)) for field in _CONSTANTS),
        ]
    m.d.comb += [
        axi.r.payload.id.eq(flat("rid")),
        axi.r.payload.data.eq(flat("rdata")),
        axi.r.payload.resp.eq(flat("rresp")),
        axi.r.payload.last.eq(flat("rlast")),
        axi.r.valid.eq(flat("rvalid")),
        flat("rready").eq(axi.r.ready),
        flat("wdata").eq(axi.w.payload.data),
        flat("wstrb").eq(axi.w.payload.strobe),
        flat("wlast").eq(axi.w.payload.last),
        flat("wvalid").eq(axi.w.valid),
        axi.w.ready.eq(flat("wready")),
        axi.b.payload.id.eq(flat("bid")),
        axi.b.payload.resp.eq(flat("bresp")),
        axi.b.valid.eq(flat("bvalid")),
        flat("bready").eq(axi.b.ready),
    ]
