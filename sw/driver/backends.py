"""The backends by name."""

from collections.abc import Callable
from typing import Any

from tilewright.hw.config import Config
from tilewright.sw.driver.transport import Transport

Progress = Callable[[str], None]


def _iss(config: Config, *, spans: bool = False, **options: Any) -> Transport:
    from tilewright.sim.iss_transport import IssTransport

    return IssTransport(config, **options)


def _model(config: Config, *, spans: bool = False, **options: Any) -> Transport:
    from tilewright.sim.model_transport import ModelTransport

    return ModelTransport(config, **options)


def _verilator(
    config: Config,
    *,
    trace: bool = False,
    spans: bool = False,
    progress: Progress | None = None,
    bus: Any = None,
    **options: Any,
) -> Transport:
    from tilewright.sim.native.simulator import BusOptions, NativeSimulator
    from tilewright.sw.driver.simulators import simulator_library

    library = simulator_library(config, trace=trace, spans=spans, progress=progress)
    if bus is None:
        bus = BusOptions(outstanding=config.axi_outstanding, max_burst=config.axi_max_burst)
    return NativeSimulator(library, bus=bus, **options)


def _cocotb(
    config: Config,
    *,
    simulator: str = "verilator",
    spans: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Transport:
    from tilewright.sim.testbenches.transport import CocotbTransport
    from tilewright.sw.driver.simulators import cocotb_build

    build = cocotb_build(config, simulator, progress=progress)
    return CocotbTransport(config, build, simulator=simulator, **options)


BACKENDS: dict[str, Callable[..., Transport]] = {
    "iss": _iss,
    "model": _model,
    "verilator": _verilator,
    "cocotb": _cocotb,
}


def open_transport(backend: str, config: Config, **options: Any) -> Transport:
    """Open a backend; what `options` it takes its own class says.

    All take `spans`: record when each command of a run was taken, worked on and retired, where the
    backend can (model, verilator); runs of the others have none.

    iss: `tilewright.sim.iss_transport.IssTransport`. model:
    `tilewright.sim.model_transport.ModelTransport`. verilator:
    `tilewright.sim.native.simulator.NativeSimulator`, and `trace` (able to write waveforms) and
    `progress` (told what is built). cocotb: `tilewright.sim.testbenches.transport.CocotbTransport`,
    and `progress`.

    Raises
    ------
    ValueError
        If there is no such backend.
    """
    try:
        opener = BACKENDS[backend]
    except KeyError:
        known = ", ".join(BACKENDS)
        raise ValueError(f"backend {backend!r} is unknown; one of {known}") from None
    return opener(config, **options)
