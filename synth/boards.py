"""Boards: what their devices hold and how fast their memory is, and whether a machine fits.

Devices: Lattice FPGA-DS-02012 (ECP5; LUTs as nextpnr counts them), AMD DS180 (7 series), AMD DS987
(K26, the module of the KV260). Memory: parts and clocks as the boards' targets in `litex-boards`
set them; of their peak the share that long bursts of the core got, and their latency, in a
simulation with LiteDRAM's controller (the KV260 has the processor's own: taken to be as good).
"""

from dataclasses import dataclass

from tilewright.hw.config import Config
from tilewright.synth.yosys import Synthesis


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a machine takes of a device, or what a device has.

    Attributes
    ----------
    lut, ff, dsp : int
    bram : int
        Block RAMs of 18 Kbit.
    """

    lut: int
    ff: int
    dsp: int
    bram: int


NAMES = {"lut": "LUT", "ff": "FF", "dsp": "DSP", "bram": "BRAM"}
"""Resources by the names of their attributes."""


@dataclass(frozen=True, kw_only=True)
class Dram:
    """A memory.

    Attributes
    ----------
    part : str
    peak : int
        Megabytes a second.
    share : float
        Of the peak, for long bursts.
    latency : int
        Cycles of the core to the first beat.
    size : int
        Megabytes.
    """

    part: str
    peak: int
    share: float
    latency: int
    size: int

    @property
    def bandwidth(self) -> float:
        """Megabytes a second of long bursts."""
        return self.peak * self.share

    def beats(self, width: int, clock: float) -> float:
        """Beats a cycle of a bus of `width` bytes at `clock` MHz, to three digits; at most 1."""
        return min(1.0, max(0.001, round(self.bandwidth / (width * clock), 3)))


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    Attributes
    ----------
    name, device : str
    target : str
        Family that is synthesised for.
    speed : int
        Speed grade, where the family has several.
    holds : Need
    dram : Dram
    note : str
        Where the family is not quite the device's.
    """

    name: str
    device: str
    target: str
    speed: int
    holds: Need
    dram: Dram
    note: str = ""

    def limit(self, need: Need) -> tuple[str, float]:
        """The resource that a machine takes most of, and its share; above 1 it does not fit."""
        shares = {name: getattr(need, name) / getattr(self.holds, name) for name in NAMES}
        name = max(shares, key=lambda name: shares[name])
        return name, shares[name]


_LFE5U_25 = Need(lut=24_288, ff=24_288, dsp=28, bram=56)
_LFE5U_45 = Need(lut=43_848, ff=43_848, dsp=72, bram=108)
_LFE5U_85 = Need(lut=83_640, ff=83_640, dsp=156, bram=208)
_SDR_16 = Dram(part="SDR ×16, 100 MHz", peak=200, share=0.94, latency=13, size=32)
_DDR3_800_16 = Dram(part="DDR3-800 ×16", peak=1600, share=0.89, latency=20, size=256)

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board(
            name="ulx3s-25f",
            device="LFE5U-25F-6",
            target="ecp5",
            speed=6,
            holds=_LFE5U_25,
            dram=_SDR_16,
        ),
        Board(
            name="ulx3s-45f",
            device="LFE5U-45F-6",
            target="ecp5",
            speed=6,
            holds=_LFE5U_45,
            dram=_SDR_16,
        ),
        Board(
            name="ulx3s-85f",
            device="LFE5U-85F-6",
            target="ecp5",
            speed=6,
            holds=_LFE5U_85,
            dram=_SDR_16,
        ),
        Board(
            name="colorlight-i9",
            device="LFE5U-45F-6",
            target="ecp5",
            speed=6,
            holds=_LFE5U_45,
            dram=Dram(part="SDR ×32, 60 MHz", peak=240, share=0.66, latency=16, size=8),
        ),
        Board(
            name="orangecrab-85f",
            device="LFE5U-85F-8",
            target="ecp5",
            speed=8,
            holds=_LFE5U_85,
            dram=Dram(part="DDR3-192 ×16", peak=384, share=0.89, latency=20, size=128),
        ),
        Board(
            name="arty-a7-35t",
            device="XC7A35T-1",
            target="xc7",
            speed=1,
            holds=Need(lut=20_800, ff=41_600, dsp=90, bram=100),
            dram=_DDR3_800_16,
        ),
        Board(
            name="arty-a7-100t",
            device="XC7A100T-1",
            target="xc7",
            speed=1,
            holds=Need(lut=63_400, ff=126_800, dsp=240, bram=270),
            dram=_DDR3_800_16,
        ),
        Board(
            name="kv260",
            device="XCK26",
            target="xc7",
            speed=1,
            holds=Need(lut=117_120, ff=234_240, dsp=1_248, bram=288),
            dram=Dram(part="DDR4-2400 ×64", peak=19_200, share=0.865, latency=30, size=4096),
            note="as a 7 series device: LUTs, DSPs and block RAMs have the same sizes, its logic "
            "is quicker; its 64 UltraRAMs are not counted",
        ),
    )
}


def board(name: str) -> Board:
    """Return a board by name; ValueError names the known ones."""
    try:
        return BOARDS[name]
    except KeyError:
        raise ValueError(f"board {name!r} is unknown; one of {', '.join(BOARDS)}") from None


def needed(synthesis: Synthesis) -> Need:
    """What a synthesised machine takes of its device."""
    found = synthesis.resources
    luts = synthesis.target.device_luts(synthesis.cells)
    return Need(lut=luts, ff=found.ff, dsp=found.dsp, bram=found.bram)


def at_least(config: Config) -> Need:
    """What a machine takes at least, without any synthesis: each element of the array is a DSP, and
    scratchpad and accumulators are block RAM.
    """
    bits = 8 * (config.sp_bytes + config.acc_bytes)
    return Need(lut=0, ff=0, dsp=config.rows * config.columns, bram=-(-bits // (18 * 1024)))
