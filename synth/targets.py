"""Device families: how Yosys is called for them and what its cells count as."""

from dataclasses import dataclass, field

LATCHES = ("$dlatch", "$adlatch", "$dlatchsr", "$sr")
"""Yosys' latches before they are mapped: on ECP5 they become LUTs that nobody recognises."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a netlist, or a part of it, takes.

    Parameters
    ----------
    lut, ff, carry, dsp : int
        Look-up tables, flip-flops, carry cells (ECP5 CCU2C: two bits, made of two more LUTs;
        7 series CARRY4: four bits), multipliers.
    bram : int
        Block RAMs of 18 Kbit; a RAMB36E1 is two.
    lutram : int
        Cells of distributed RAM (and shift registers in LUTs).
    latch : int
    """

    lut: int = 0
    ff: int = 0
    carry: int = 0
    dsp: int = 0
    bram: int = 0
    lutram: int = 0
    latch: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(**{key: value + getattr(other, key) for key, value in vars(self).items()})

    def times(self, count: int) -> "Resources":
        """Return the resources of `count` copies."""
        return Resources(**{key: value * count for key, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device family.

    Parameters
    ----------
    name : str
    description : str
    command : str
        Yosys' script for it, without its options for the top module and output.
    cells : dict
        Cell type → (resource, how many of it).
    luts : dict
        Cell type → look-up tables of the device that it takes; those of one LUT are left out.
    """

    name: str
    description: str
    command: str
    cells: dict[str, tuple[str, int]] = field(repr=False)
    luts: dict[str, int] = field(repr=False)

    def resources(self, cells: dict[str, int]) -> Resources:
        """Count cells by type as resources; types that are none of them (multiplexers) drop out."""
        found: dict[str, int] = {}
        for cell, count in cells.items():
            if cell in self.cells:
                key, each = self.cells[cell]
                found[key] = found.get(key, 0) + each * count
        return Resources(**found)

    def device_luts(self, cells: dict[str, int]) -> int:
        """Look-up tables of the device that cells take, those of carries and small RAMs too."""
        return sum(
            count * self.luts.get(cell, 1 if self.cells.get(cell, ("", 0))[0] == "lut" else 0)
            for cell, count in cells.items()
        )


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="ecp5",
            description="Lattice ECP5",
            command="synth_ecp5",
            cells={
                "LUT4": ("lut", 1),
                "TRELLIS_FF": ("ff", 1),
                "CCU2C": ("carry", 1),
                "MULT18X18D": ("dsp", 1),
                "DP16KD": ("bram", 1),
                "PDPW16KD": ("bram", 1),
                "TRELLIS_DPR16X4": ("lutram", 1),
            },
            # As nextpnr counts them: a RAM holds its words in four, and writes through two more.
            luts={"CCU2C": 2, "TRELLIS_DPR16X4": 6},
        ),
        Target(
            name="xc7",
            description="AMD 7 series",
            command="synth_xilinx -family xc7 -flatten -noiopad -noclkbuf",
            cells={
                **{f"LUT{size}": ("lut", 1) for size in range(1, 7)},
                "INV": ("lut", 1),
                **dict.fromkeys(("FDRE", "FDSE", "FDCE", "FDPE"), ("ff", 1)),
                "CARRY4": ("carry", 1),
                "DSP48E1": ("dsp", 1),
                "RAMB18E1": ("bram", 1),
                "RAMB36E1": ("bram", 2),
                **dict.fromkeys(
                    ("RAM32X1D", "RAM64X1D", "RAM128X1D", "RAM32M", "RAM64M", "SRL16E", "SRLC32E"),
                    ("lutram", 1),
                ),
                **dict.fromkeys(("LDCE", "LDPE"), ("latch", 1)),
            },
            # A carry's are its operands', which are LUTs of their own.
            luts={
                **dict.fromkeys(("RAM32X1D", "RAM64X1D"), 2),
                **dict.fromkeys(("RAM128X1D", "RAM32M", "RAM64M"), 4),
                **dict.fromkeys(("SRL16E", "SRLC32E"), 1),
            },
        ),
    )
}


def target(name: str) -> Target:
    """Return a target by name; ValueError names the known ones."""
    try:
        return TARGETS[name]
    except KeyError:
        raise ValueError(f"target {name!r} is unknown; one of {', '.join(TARGETS)}") from None
