"""Any graph on a device, operation by operation: products, softmax, activations, LayerNorm.

What is no encoder has no program of its own; its operations run on the machine one by one, what
lies between them in fp32 on the host. Every row of an operand has a scale of its own, its largest
magnitude, and so has every column of what it is multiplied with: no row costs another its digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial, singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import SYM16_MAX
from tilewright.sw.compiler.operations.layernorm import fraction_bits
from tilewright.sw.driver.device import Device
from tilewright.sw.graph import ir
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.run import Values, evaluate, run_node, scores_of
from tilewright.sw.models.functions import (
    F64,
    FUNCTIONS,
    MASKED,
    QUICK_GELU,
    merge_heads,
    split_heads,
    table_of,
)

Ints = npt.NDArray[np.integer[Any]]

_TOP = {8: 127, 16: SYM16_MAX}
"""Largest magnitude of an operand; both bytes of a 16-bit one are s8."""
_P_TOP = {8: 255, 16: 16384}
_S16 = 32767
_Q10 = 1024
_OCTAVE = math.log(2) / _Q10
"""Step of the scores: that of the machine's exponents of 2. The last of them, e^-22, gives 0."""
_EDGE = 16.0
"""From here on an activation is what it tends to, to the last bit of its table."""


def run_graph(
    device: Device, graph: ir.Graph, inputs: Mapping[str, npt.NDArray[Any]], *, bits: int = 8
) -> Values:
    """Evaluate a graph on a device.

    Parameters
    ----------
    device : Device
    graph : Graph
    inputs : mapping
        Arrays by the names of the graph's inputs.
    bits : int
        8 or 16: width of the operands and weights of products. Softmax, activations and LayerNorm
        take 16 bits.

    Returns
    -------
    dict
        The outputs by name, float32.

    Raises
    ------
    GraphError
        As `tilewright.sw.graph.run.run_fp32`; an activation the lanes do not hold.

    Examples
    --------
    >>> import numpy as np
    >>> import tilewright as tw
    >>> graph = tw.load_graph("block.onnx")  # doctest: +SKIP
    >>> with tw.Device("iss", tw.preset("default")) as device:  # doctest: +SKIP
    ...     outputs = tw.run_graph(device, graph, {"x": np.ones((3, 64), np.float32)})
    """
    if bits not in _TOP:
        raise GraphError(f"bits = {bits}: must be 8 or 16")
    return evaluate(graph, inputs, partial(_on, device=device, bits=bits))


def _quantize(x: npt.NDArray[Any], top: int, axis: int) -> tuple[Ints, F64]:
    """Integers of at most `top`, and the scale of each vector along an axis, which stays as 1."""
    largest = np.abs(x).max(axis=axis, keepdims=True, initial=0).astype(np.float64)
    # Of a vector of zeros any scale is right. In fp64: the scale of a denormal is none in fp32.
    scale = np.where(largest > 0, largest, 1) / top
    ints = np.clip(np.floor(x / scale + 0.5), -top, top)
    return ints.astype(np.int8 if top <= 127 else np.int16), scale


def _product(a: npt.NDArray[Any], b: npt.NDArray[Any], device: Device, bits: int) -> F64:
    """Real product of real matrices; in fp64, which holds whatever it is."""
    qa, scale_a = _quantize(a, _TOP[bits], axis=-1)
    qb, scale_b = _quantize(b, _TOP[bits], axis=-2)
    out: F64 = device.matmul(qa, qb) * (scale_a * scale_b)
    return out


@singledispatch
def _on(node: ir.Node, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    # Look-up, sums and selection are the host's.
    return run_node(node, v)


@_on.register
def _(node: ir.Linear, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    out = _product(v[node.x], node.w, device, bits)
    return (out if node.b is None else out + node.b).astype(np.float32)


@_on.register
def _(node: ir.MatMul, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    b = v[node.b]
    b = b.swapaxes(-1, -2) if node.transposed else b
    return _product(v[node.a], b, device, bits).astype(np.float32)


def _softmax(x: npt.NDArray[Any], device: Device) -> npt.NDArray[np.uint16]:
    """Probabilities, u16 Q15; what is masked lies far below its row's largest."""
    below = (x - x.max(axis=-1, keepdims=True).astype(np.float64)) / _OCTAVE
    ints = np.floor(np.maximum(below, -_S16) + 0.5).astype(np.int16)
    return device.softmax(ints, _OCTAVE)


@_on.register
def _(node: ir.Softmax, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    return (_softmax(scores_of(node, v), device) / np.float32(1 << 15)).astype(np.float32)


@_on.register
def _(node: ir.Activation, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    if node.function not in FUNCTIONS:
        return run_node(node, v)  # The machine has no table of it: the host's, too.
    table = table_of(node.function)
    if table not in device.config.functions:
        held = ", ".join(device.config.functions) or "none"
        raise GraphError(
            f"Activation {node.out}: {node.function} needs {table}, "
            f"{device.config.title} has {held}"
        )
    gain = QUICK_GELU if node.function == "quick_gelu" else 1.0
    x = v[node.x].astype(np.float64) * gain
    near = np.clip(x, -_EDGE, _EDGE)
    y = device.operations.activation(table, np.floor(near * _Q10 + 0.5).astype(np.int16)) / _Q10
    # The table ends; behind it tanh stays, and GELU and SiLU are x itself or nothing.
    beyond = np.zeros_like(x) if table == "tanh" else np.maximum(x - near, 0)
    return ((y + beyond) / gain).astype(np.float32)


@_on.register
def _(node: ir.LayerNorm, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    """Normalized rows are the machine's; gamma and beta, like a bias, the host's.

    Epsilon counts in a row's own unit, so its factor is the host's too: ``sqrt(V / (V + eps))``.
    """
    x = v[node.x].astype(np.float64)
    centred = x - x.mean(axis=-1, keepdims=True)
    ints, _ = _quantize(centred, _S16, axis=-1)
    step = 2.0 ** -fraction_bits(x.shape[-1])
    normal = device.layernorm(ints, eps=0, out_scale=step) * step
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    shrink = np.sqrt(variance / np.maximum(variance + node.eps, np.finfo(np.float64).tiny))
    return (normal * shrink * node.gamma + node.beta).astype(np.float32)


@_on.register
def _(node: ir.Attention, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    q, k, w = (split_heads(v[name], node.heads) for name in (node.q, node.k, node.v))
    scores = _product(q, k.swapaxes(-1, -2), device, bits) * node.scale
    if node.mask is not None:
        scores = np.where(v[node.mask][..., None, None, :], scores, MASKED)
    top = _P_TOP[bits]
    p = _softmax(scores, device).astype(np.int64) * top + (1 << 14) >> 15
    qw, scale = _quantize(w, _TOP[bits], axis=-2)
    context = device.matmul(p.astype(np.uint8 if bits == 8 else np.int16), qw) * (scale / top)
    return merge_heads(context).astype(np.float32)
