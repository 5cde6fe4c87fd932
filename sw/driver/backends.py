"""The backends by name."""

import inspect
from collections.abc import Callable
from typing import Any

from tilewright.hw.config import Config
from tilewright.sw.arguments import choice, instance
from tilewright.sw.driver.transport import Transport
from tilewright.sw.errors import InputError

Progress = Callable[[str], None]


def _made(kind: Callable[..., Transport], *arguments: Any, **options: Any) -> Transport:
    """A transport; options it does not take, or not with such a value, are refused."""
    try:
        inspect.signature(kind).bind(*arguments, **options)
        return kind(*arguments, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"backend: {error}") from error


def _iss(config: Config, *, spans: bool = False, **options: Any) -> Transport:
    from tilewright.sim.iss_transport import IssTransport

    return _made(IssTransport, config, **options)


def _model(config: Config, *, spans: bool = False, **options: Any) -> Transport:
    from tilewright.sim.model_transport import ModelTransport

    return _made(ModelTransport, config, **options)


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
    return _made(NativeSimulator, library, bus=bus, **options)


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
    return _made(CocotbTransport, config, build, simulator=simulator, **options)


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
    InputError
        If there is no such backend, or it does not take an option.
    """
    opener = BACKENDS[choice("backend", backend, BACKENDS)]
    return opener(instance("config", config, Config), **options)
