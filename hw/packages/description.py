"""The one description of a generated machine that every package is made from."""

from dataclasses import dataclass
from functools import cached_property

from tilewright import __version__
from tilewright.hw.config import Config
from tilewright.hw.core import ACTIVE_LOW, RESETS
from tilewright.hw.documents import ports

CLOCK = "clk"
INTERRUPT = "irq"
MASTER = "m_axi"
SLAVE = "s_axi"


@dataclass(frozen=True)
class Port:
    """A port of the top module.

    Attributes
    ----------
    name : str
    signal : str
        Its name within its bus, "araddr" of "m_axi_araddr"; for a port of no bus its name.
    is_input : bool
    width : int
    """

    name: str
    signal: str
    is_input: bool
    width: int


@dataclass(frozen=True, kw_only=True)
class Core:
    """A generated machine as other tools see it.

    Parameters
    ----------
    config : Config
    top : str
        Its top module; names of files and packages begin with it.
    reset : str
        Polarity of its reset port.

    Raises
    ------
    ValueError
        For an unknown polarity, and when a port belongs to no interface: no package could connect
        it.
    """

    config: Config
    top: str
    reset: str

    def __post_init__(self) -> None:
        placed = {CLOCK, INTERRUPT, *RESETS.values()}
        placed.update(port.name for bus in (MASTER, SLAVE) for port in self.bus(bus))
        if unplaced := [port.name for port in self.ports if port.name not in placed]:
            raise ValueError(f"ports of no interface: {', '.join(unplaced)}")

    @property
    def title(self) -> str:
        """What banners say."""
        return f"Tilewright {__version__}, configuration {self.config.label}"

    @property
    def version(self) -> str:
        """The generator's, major.minor.patch."""
        return __version__

    @property
    def verilog(self) -> str:
        """The Verilog's file, beside those of the packages."""
        return f"{self.top}.v"

    @property
    def reset_port(self) -> str:
        return RESETS[self.reset]

    @property
    def reset_is_low(self) -> bool:
        return self.reset == ACTIVE_LOW

    @cached_property
    def ports(self) -> list[Port]:
        return [
            Port(
                name=port["name"],
                signal=port["name"].removeprefix(f"{MASTER}_").removeprefix(f"{SLAVE}_"),
                is_input=port["direction"] == "input",
                width=port["width"],
            )
            for port in ports(self.config, self.reset)
        ]

    def bus(self, name: str) -> list[Port]:
        """Return the ports of `MASTER` or `SLAVE`."""
        return [port for port in self.ports if port.name.startswith(f"{name}_")]
