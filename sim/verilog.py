"""The one place where simulators get their Verilog."""

import functools

from tilewright.hw.config import Config
from tilewright.hw.names import TOP_NAME


@functools.lru_cache(maxsize=8)
def verilog(config: Config) -> str:
    """Verilog of the top module `tilewright` of a configuration."""
    # The generator is a large import that software with a simulator already built does without.
    from tilewright.hw.generate import generate_verilog

    return generate_verilog(config, prefix=TOP_NAME)


@functools.lru_cache(maxsize=64)
def cell_verilog(config: Config, name: str) -> str:
    """Verilog of the cell `name` of a configuration's machine, with the cells it places."""
    from tilewright.hw import generate

    return generate.cell_verilog(generate.machine_cell(config, name))
