"""Native simulators, built once and kept in the cache."""

from collections.abc import Callable
from pathlib import Path

from hw.config import Config
from sim.native.build import LIBRARY, build, build_key
from sim.verilog import verilog
from sw.cache import build_once, cache_dir

KIND = "simulators"
"""Kind of the entries in the cache."""


def simulator_library(
    source: Config | str,
    *,
    trace: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """The library of a native simulator; built only if the same was not built before.

    Same means: Verilog, harness, flags, tools and processor.

    Parameters
    ----------
    source : Config or str
        A configuration, or Verilog with the module `tilewright`.
    trace : bool
        Able to write waveforms.
    progress : callable, optional
        Told what is being done.

    Raises
    ------
    sim.toolchain.ToolchainError
        When a tool is missing or fails.
    """
    tell = progress or (lambda text: None)
    if isinstance(source, Config):
        tell(f"generating {source.name}")
        text = verilog(source)
    else:
        text = source
    final = cache_dir() / KIND / build_key(text, trace=trace)
    build_once(
        final,
        lambda folder: build(text, folder, trace=trace, progress=progress),
        on_wait=lambda: tell("another process builds this simulator; waiting for it"),
    )
    return final / LIBRARY
