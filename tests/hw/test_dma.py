"""The DMA on both simulators, in shapes from the narrowest to the widest."""

from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from tests.hw import recordings
from tilewright.hw.config import Config, preset_config
from tilewright.hw.dma.axi import connect_flat, flat_members, flat_ports
from tilewright.hw.dma.dma import Dma
from tilewright.hw.dma.records import Activity, Command, FaultRecord, FetchStart, SpWrite, Transfer
from tilewright.sim.testbenches.runner import simulate


def shaped(axi, panel, **more):
    """A configuration with `axi` bits and panels of `panel` columns."""
    values = {"rows": panel, "columns": 4, "lanes": 4, "sp_depth": 64, "sp_banks": 8, **more}
    least = 8 * (2 * panel + 8)
    values["sp_depth"] = max(64, 1 << (least // 8 - 1).bit_length())
    return Config(name=f"a{axi}w{panel}", axi_data_width=axi, **values)


CONFIGS = {
    "tiny": preset_config("tiny"),
    "default": preset_config("default"),
    "axi32-w128": shaped(32, 128, axi_addr_width=33, axi_outstanding=3, axi_max_burst=20),
    "axi64-w64": shaped(64, 64, axi_addr_width=64),
    "axi64-w8": shaped(64, 8, axi_outstanding=1, axi_max_burst=256),
    "axi64-w4": shaped(64, 4, axi_max_burst=1, axi_outstanding=32),
    "axi256-w4": shaped(256, 4, axi_outstanding=5),
    "axi512-w32": shaped(512, 32),
    "axi1024-w4": shaped(1024, 4),
    "axi1024-w128": shaped(1024, 128),
}
# The others run in `make test-all`.
OFTEN = ("tiny", "default", "axi32-w128", "axi256-w4", "axi1024-w128")
ON_ICARUS = ("tiny", "axi256-w4")


class Top(wiring.Component):
    """The DMA with a flat AXI port."""

    def __init__(self, config):
        self.config = config
        self.dma = Dma(config)
        members = {k: v for k, v in self.dma.signature.members.items() if k != "axi"}
        super().__init__({**members, **flat_members(config)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dma = self.dma
        connect_flat(m, self.config, self.dma.axi, self)
        for name, member in self.dma.signature.members.items():
            if name == "axi":
                continue
            inner, outer = getattr(self.dma, name), getattr(self, name)
            if member.is_signature:
                outer = wiring.flipped(outer)
                ends = (inner, outer) if member.flow == wiring.Out else (outer, inner)
                wiring.connect(m, *ends)
            elif member.flow == wiring.Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        return m


def layouts(config):
    shapes: dict[str, Any] = {
        "transfer": Transfer(config),
        "start": FetchStart(config),
        "command": Command(),
        "sp_write": SpWrite(config),
        "fault": FaultRecord(config),
        "activity": Activity(),
    }
    return {
        name: {key: [field.offset, field.width] for key, field in layout}
        for name, layout in shapes.items()
    }


def run(config, simulator, folder, scale=1, module="dma", **more):
    simulate(
        Top(config),
        module=f"tilewright.sim.testbenches.units.{module}",
        simulator=simulator,
        folder=folder,
        values={"config": config.to_dict(), "layouts": layouts(config), "scale": scale},
        **more,
    )


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *((name, 1) for name in OFTEN),
        *(pytest.param(name, 2, marks=pytest.mark.slow) for name in CONFIGS if name not in OFTEN),
        pytest.param("default", 10, marks=pytest.mark.slow),
    ],
)
def test_verilator(name, scale, tmp_path):
    run(CONFIGS[name], "verilator", tmp_path, scale)


@pytest.mark.parametrize("name", ON_ICARUS)
def test_icarus(name, tmp_path):
    run(CONFIGS[name], "icarus", tmp_path, tests=["awkward_memory", "bus_errors", "soft_reset"])


def test_minilm(tmp_path):
    arrays = recordings.arrays_of(("LOAD", "STORE"))
    run(recordings.config(), "verilator", tmp_path, module="dma_replay", arrays=arrays)


def test_flat_ports_are_those_of_axi():
    """Names and widths are what an AXI4 interconnect expects, none missing."""
    config = preset_config("default")
    ports = {name: (direction, width) for name, direction, width in flat_ports(config)}
    assert ports["m_axi_araddr"] == ("o", 40)
    assert ports["m_axi_rdata"] == ("i", 128)
    assert ports["m_axi_wstrb"] == ("o", 16)
    assert ports["m_axi_bready"] == ("o", 1)
    for channel in ("ar", "aw"):
        for field in [
            "id",
            "addr",
            "len",
            "size",
            "burst",
            "lock",
            "cache",
            "prot",
            "qos",
            "valid",
            "ready",
        ]:
            assert f"m_axi_{channel}{field}" in ports
    assert len(ports) == 2 * 11 + 6 + 5 + 4
