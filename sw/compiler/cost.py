"""What a precision costs: cycles of the layers of an encoder, by the cycle model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from tilewright.hw.config import Config
from tilewright.sim.cycles import Memory, predict
from tilewright.sw.compiler.layer import plan_layer
from tilewright.sw.program import Program
from tilewright.sw.quantize.precision import LayerPrecision
from tilewright.sw.quantize.seeded import make_layer


@lru_cache(maxsize=64)
def _program(
    config: Config, hidden: int, heads: int, ffn: int, sequence: int, precision: LayerPrecision
) -> Program:
    """A layer compiled by the first plan that fits; its numbers do not matter."""
    layer = make_layer(0, hidden, heads, hidden // heads, ffn, precision)
    if config.functions:
        layer = replace(layer, act=config.functions[0])
    return plan_layer(layer, config, sequence, effort=1).program


@lru_cache(maxsize=1024)
def layer_cycles(
    config: Config,
    hidden: int,
    heads: int,
    ffn: int,
    sequence: int,
    precision: LayerPrecision,
    memory: Memory | None = None,
) -> int:
    """Cycles of one layer, compiled by the first plan that fits.

    Parameters
    ----------
    config : Config
    hidden, heads, ffn : int
        Of the layer; a head is ``hidden / heads`` wide.
    sequence : int
        Tokens.
    precision : LayerPrecision
    memory : Memory, optional
        What stands behind the bus; the one that figures are given for by default.

    Raises
    ------
    CompileError
        If the layer does not fit.
    """
    program = _program(config, hidden, heads, ffn, sequence, precision)
    return predict(program, config, memory=memory).cycles


def model_cycles(
    config: Config,
    hidden: int,
    heads: int,
    ffn: int,
    sequence: int,
    precision: Iterable[LayerPrecision],
    memory: Memory | None = None,
) -> int:
    """Cycles of all layers, one behind the other; see `layer_cycles`."""
    return sum(
        layer_cycles(config, hidden, heads, ffn, sequence, layer, memory) for layer in precision
    )
