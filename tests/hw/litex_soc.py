"""A LiteX SoC around a packaged core: SDRAM behind LiteDRAM, the bus driven from outside.

`python litex_soc.py MODULE.py OUT PHASES [L2]` writes OUT/top.v, and OUT/csr.json with addresses of
LiteX's registers. The module is what `--package litex` wrote; the SDRAM has 16 bits and PHASES
words of them a clock. It is a process of its own because LiteX prints, and warns.
"""

import importlib
import sys
from pathlib import Path

from litedram.common import PhySettings
from litedram.modules import MT48LC4M16
from litedram.phy.model import SDRAMPHYModel
from litex.build.generic_platform import Pins
from litex.build.sim import SimPlatform
from litex.soc.integration.export import get_csr_json
from litex.soc.integration.soc_core import SoCCore
from litex.soc.interconnect.axi import AXILiteInterface
from migen import ClockDomain, Module

FREQUENCY = 50e6


class _Clock(Module):
    def __init__(self, platform):
        self.clock_domains.cd_sys = ClockDomain()
        self.comb += [
            self.cd_sys.clk.eq(platform.request("clk")),
            self.cd_sys.rst.eq(platform.request("rst")),
        ]


class _Soc(SoCCore):
    def __init__(self, platform, *, phases: int, l2: int):
        super().__init__(
            platform,
            FREQUENCY,
            cpu_type=None,
            with_uart=False,
            with_timer=False,
            integrated_rom_size=0,
            integrated_sram_size=0,
        )
        self.submodules.crg = _Clock(platform)
        host = AXILiteInterface()
        platform.add_extension(host.get_ios("host"))
        self.comb += host.connect_to_pads(platform.request("host"), mode="slave")
        self.bus.add_master("host", host)
        module = MT48LC4M16(FREQUENCY, f"1:{phases}")
        settings = PhySettings(
            phytype="GENSDRPHY",
            memtype="SDR",
            databits=16,
            dfi_databits=16,
            nphases=phases,
            rdphase=0,
            wrphase=0,
            cl=2,
            read_latency=4 if phases == 1 else 2,
            write_latency=0,
        )
        self.submodules.sdrphy = SDRAMPHYModel(module, settings=settings, clk_freq=FREQUENCY)
        self.add_sdram("sdram", phy=self.sdrphy, module=module, size=1 << 20, l2_cache_size=l2)


def main(source: str, out: str, phases: str, l2: str = "0") -> None:
    sys.path.insert(0, str(Path(source).parent))
    package = importlib.import_module(Path(source).stem)
    platform = SimPlatform("SIM", [("clk", 0, Pins(1)), ("rst", 0, Pins(1))])
    soc = _Soc(platform, phases=int(phases), l2=int(l2))
    package.add_tilewright(soc, origin=0x3000_0000)
    soc.finalize()
    folder = Path(out)
    platform.get_verilog(soc, name="top").write(str(folder / "top.v"))
    (folder / "csr.json").write_text(get_csr_json(soc.csr_regions, soc.constants, soc.mem_regions))


if __name__ == "__main__":
    main(*sys.argv[1:])
