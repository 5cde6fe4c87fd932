"""The one place where simulators get their Verilog."""

import functools

from hw.config import Config


@functools.lru_cache(maxsize=8)
def verilog(config: Config) -> str:
    """Verilog of the top module `tilewright` of a configuration."""
    # The generator is a large import that software with a simulator already built does without.
    from hw.generate import generate_verilog

    return generate_verilog(config)
