"""The compiler: encoder layers to programs, weight images and buffer maps.

It knows the definitions of the machine, and neither a backend nor the simulator.
"""

from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.estimate import Estimate, estimate
from tilewright.sw.compiler.layer import compile_layer
from tilewright.sw.compiler.model import compile_model

__all__ = [
    "CompileError",
    "Estimate",
    "compile_layer",
    "compile_model",
    "estimate",
]
