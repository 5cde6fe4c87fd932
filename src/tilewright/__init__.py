"""A transformer accelerator generated from one Python configuration, and the software for it.

``import tilewright as tw`` is the face: everything a user needs, imported when it is first used.

>>> import numpy as np
>>> import tilewright as tw
>>> with tw.Device("iss", tw.preset("small")) as device:
...     device.matmul(np.ones((2, 3), np.int8), np.ones((3, 2), np.int8))
array([[3, 3],
       [3, 3]], dtype=int32)

========================================== =====================================================
`Config` `preset` `generate`               a machine, and its Verilog
`Device` `BusOptions`                      a machine that runs: simulator, Verilog or board
`load` `compile` `Pipeline`                a model, and its programs
`load_graph` `run_graph`                   a graph of single operations
`sweep` `Space`                            the design space
`program` `registers` `iss`                commands and their simulator
`golden` `reference`                       the arithmetic: functions of numbers, and whole layers
`Waveform` `diagram`                       what the Verilog did, cycle by cycle
`Error` and the classes below it           what is refused, or went wrong
========================================== =====================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tilewright.hw import registers
    from tilewright.hw.config import Config, ConfigError
    from tilewright.hw.config import preset_config as preset
    from tilewright.hw.generate import generate
    from tilewright.sim import golden, iss
    from tilewright.sim.native import diagram
    from tilewright.sim.native.simulator import BusOptions, SimulationError
    from tilewright.sim.native.waveform import Waveform
    from tilewright.sim.toolchain import ToolchainError
    from tilewright.sw import program
    from tilewright.sw.api import compile, load
    from tilewright.sw.compiler.errors import CompileError
    from tilewright.sw.driver.device import Device
    from tilewright.sw.driver.errors import (
        DeviceError,
        DeviceFault,
        DeviceMismatch,
        DeviceTimeout,
        OutOfDeviceMemory,
    )
    from tilewright.sw.errors import ResultError, UserError
    from tilewright.sw.graph.errors import GraphError
    from tilewright.sw.graph.model import load_onnx as load_graph
    from tilewright.sw.models.errors import ModelError
    from tilewright.sw.pipeline.graph import run_graph
    from tilewright.sw.pipeline.pipeline import Pipeline
    from tilewright.sw.program.check import ProgramError
    from tilewright.sw.program.errors import InputError, ProgramFileError
    from tilewright.sw.quantize import reference
    from tilewright.sw.sweep.run import sweep
    from tilewright.sw.sweep.space import Space

__all__ = [
    "BusOptions",
    "CompileError",
    "Config",
    "ConfigError",
    "Device",
    "DeviceError",
    "DeviceFault",
    "DeviceMismatch",
    "DeviceTimeout",
    "Error",
    "GraphError",
    "InputError",
    "ModelError",
    "OutOfDeviceMemory",
    "Pipeline",
    "ProgramError",
    "ProgramFileError",
    "ResultError",
    "SimulationError",
    "Space",
    "ToolchainError",
    "UserError",
    "Waveform",
    "compile",
    "diagram",
    "generate",
    "golden",
    "iss",
    "load",
    "load_graph",
    "preset",
    "program",
    "reference",
    "registers",
    "run_graph",
    "sweep",
]

_HOMES = {
    "BusOptions": "sim.native.simulator:BusOptions",
    "CompileError": "sw.compiler.errors:CompileError",
    "Config": "hw.config:Config",
    "ConfigError": "hw.config:ConfigError",
    "Device": "sw.driver.device:Device",
    "DeviceError": "sw.driver.errors:DeviceError",
    "DeviceFault": "sw.driver.errors:DeviceFault",
    "DeviceMismatch": "sw.driver.errors:DeviceMismatch",
    "DeviceTimeout": "sw.driver.errors:DeviceTimeout",
    "GraphError": "sw.graph.errors:GraphError",
    "InputError": "sw.program.errors:InputError",
    "ModelError": "sw.models.errors:ModelError",
    "OutOfDeviceMemory": "sw.driver.errors:OutOfDeviceMemory",
    "Pipeline": "sw.pipeline.pipeline:Pipeline",
    "ProgramError": "sw.program.check:ProgramError",
    "ProgramFileError": "sw.program.errors:ProgramFileError",
    "ResultError": "sw.errors:ResultError",
    "SimulationError": "sim.native.simulator:SimulationError",
    "Space": "sw.sweep.space:Space",
    "ToolchainError": "sim.toolchain:ToolchainError",
    "UserError": "sw.errors:UserError",
    "Waveform": "sim.native.waveform:Waveform",
    "compile": "sw.api:compile",
    "diagram": "sim.native.diagram",
    "generate": "hw.generate:generate",
    "golden": "sim.golden",
    "iss": "sim.iss",
    "load": "sw.api:load",
    "load_graph": "sw.graph.model:load_onnx",
    "preset": "hw.config:preset_config",
    "program": "sw.program",
    "reference": "sw.quantize.reference",
    "registers": "hw.registers",
    "run_graph": "sw.pipeline.graph:run_graph",
    "sweep": "sw.sweep.run:sweep",
}
"""Where each name is: a module, or a module and what it has. The imports above say the same to type
checkers; a test compares them."""


class Error(Exception):
    """Whatever Tilewright itself refuses or finds wrong; the message is one line.

    Below it: `UserError` and `ConfigError`, which a user can mend (exit code 2 of the command
    line); `ResultError`, for what ran and is not what it must be (1); `DeviceError`,
    `SimulationError` and `ToolchainError`, of machines, simulators and tools.
    """


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    found: Any = import_module(f"{__name__}.{module}")
    # Kept, so that the next use is a plain look-up.
    globals()[name] = value = getattr(found, attribute) if attribute else found
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
