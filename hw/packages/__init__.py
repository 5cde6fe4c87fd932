"""Packages: what takes the generated Verilog into other people's tools, one file a format.

Each format is a function of one `Core` that returns texts by file name; `PACKAGES` lists them.
"""

from collections.abc import Callable, Iterable

from tilewright.hw.config import ConfigError
from tilewright.hw.packages import fusesoc, litex, vivado
from tilewright.hw.packages.description import Core

PACKAGES: dict[str, Callable[[Core], dict[str, str]]] = {
    "vivado": vivado.files,
    "fusesoc": fusesoc.files,
    "litex": litex.files,
}


def check_names(names: Iterable[str]) -> None:
    """Raise ConfigError for a package that does not exist; the message lists those that do."""
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(f"package must be one of {', '.join(PACKAGES)}, got {name!r}")


def package_files(core: Core, names: Iterable[str]) -> dict[str, str]:
    """Return the files of the packages in `names`: text by file name."""
    return {file: text for name in names for file, text in PACKAGES[name](core).items()}
