"""cocotb: the SoC of `litex_soc.py` runs an image; what it writes is compared."""

from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from tilewright.hw.commands import PROGRAM_REGION
from tilewright.hw.registers import CONTROL_START, IDENTIFICATION, REGISTERS, STATUS_DONE
from tilewright.sim.image import Image
from tilewright.sim.testbenches.runner import parameters

_PERIOD = 10  # ns
_POLL = 500  # cycles
_SHIFT = 37  # bytes
_HARDWARE_CONTROL = 1
"""Of `sdram_dfii_control`: LiteDRAM drives the SDRAM, the host no longer."""


class _Shifted(Image):
    """Regions that begin beside every alignment; the program's stays, commands are aligned."""

    def placement(self) -> dict[int, tuple[int, int]]:
        return {
            region: (base, limit) if region == PROGRAM_REGION else (base + _SHIFT, limit + _SHIFT)
            for region, (base, limit) in super().placement().items()
        }


@cocotb.test()
async def runs_the_image(dut: Any) -> None:
    """Memory in by the bus, start, interrupt by LiteX's event, memory out."""
    values = parameters()
    csr, core = values["csr"], values["core"]
    image = _Shifted.load(Path(values["image"]))
    placed = image.placement()
    dut.rst.value = 1
    Clock(dut.clk, _PERIOD, "ns").start()
    host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "host"), dut.clk, dut.rst)
    await ClockCycles(dut.clk, 8)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 2)

    async def read(name: str) -> int:
        return int(await host.read_dword(core + REGISTERS[name].address))

    await host.write_dword(csr["sdram_dfii_control"], _HARDWARE_CONTROL)
    for region, data in image.regions.items():
        await host.write(placed[region][0], data.tobytes())
    await host.write(placed[PROGRAM_REGION][0] + image.program_offset, image.program)

    assert await read("ID") == IDENTIFICATION
    for address, value in image.registers():
        await host.write_dword(core + address, value)
    assert await host.read_dword(csr["tilewright_ev_pending"]) == 0
    await host.write_dword(core + REGISTERS["CONTROL"].address, CONTROL_START)
    for _ in range(values["timeout"] // _POLL):
        if await host.read_dword(csr["tilewright_ev_pending"]):
            break
        await ClockCycles(dut.clk, _POLL)
    assert await read("STATUS") == STATUS_DONE
    for region, data in image.expected.items():
        got = await host.read(placed[region][0], data.size)
        assert got.data == data.tobytes(), f"region {region} differs"
