"""The compiler: encoder layers to programs, weight images and buffer maps.

It knows the definitions of the machine, and neither a backend nor the simulator.
"""

from sw.compiler.errors import CompileError
from sw.compiler.estimate import Estimate, estimate
from sw.compiler.layer import compile_layer
from sw.compiler.model import compile_model

__all__ = [
    "CompileError",
    "Estimate",
    "compile_layer",
    "compile_model",
    "estimate",
]
