"""Any graph on a device, operation by operation: products, softmax, activations, LayerNorm.

What is no encoder has no program of its own; its operations run on the machine one by one, what
lies between them in fp32 on the host. Operands are quantized by the largest magnitude they have,
weights by that of each output channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.driver.device import Device
from tilewright.sw.graph import ir
from tilewright.sw.graph.errors import GraphError
from tilewright.sw.graph.run import Values, evaluate, run_node
from tilewright.sw.models.functions import QUICK_GELU, table_of

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer[Any]]

_TOP = {8: 127, 16: 32639}
"""Largest magnitude of an operand; both bytes of a 16-bit one are s8."""
_S16 = 32767
_MASKED = 32.0
"""Scores keep at least this range, so that masked ones vanish: e^-64."""
_P_TOP = {8: 255, 16: 16384}


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
        An input that does not fit, an activation the lanes do not hold.

    Examples
    --------
    >>> import numpy as np
    >>> import tilewright as tw
    >>> graph = tw.load_graph("block.onnx")  # doctest: +SKIP
    >>> with tw.Device("iss", tw.preset("default")) as device:  # doctest: +SKIP
    ...     outputs = tw.run_graph(device, graph, {"x": np.ones((3, 64), np.float32)})
    """
    if bits not in _TOP:
        raise GraphError(f"bits = {bits}: 8 or 16 is needed")
    return evaluate(graph, inputs, partial(_on, device=device, bits=bits))


def _quantize(x: npt.NDArray[Any], top: int, axis: int | None = None) -> tuple[Ints, Any]:
    """Integers of at most `top`, and the scale; one for the array, or for each index but `axis`."""
    largest = np.abs(x).max(axis=axis, keepdims=axis is not None, initial=0)
    scale = np.where(largest > 0, largest, 1) / top
    ints = np.clip(np.floor(x / scale + 0.5), -top, top)
    return ints.astype(np.int8 if top <= 127 else np.int16), scale


def _product(
    a: npt.NDArray[Any], b: npt.NDArray[Any], device: Device, bits: int, axis: int | None = None
) -> F32:
    qa, scale_a = _quantize(a, _TOP[bits])
    qb, scale_b = _quantize(b, _TOP[bits], axis)
    return (device.matmul(qa, qb) * (scale_a * scale_b)).astype(np.float32)


@singledispatch
def _on(node: ir.Node, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    # Look-up, sums and selection are the host's.
    return run_node(node, v)


@_on.register
def _(node: ir.Linear, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    out = _product(v[node.x], node.w, device, bits, axis=0)
    return out if node.b is None else out + node.b


@_on.register
def _(node: ir.MatMul, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    b = v[node.b]
    return _product(v[node.a], b.swapaxes(-1, -2) if node.transposed else b, device, bits)


def _softmax(x: npt.NDArray[Any], device: Device, mask: npt.NDArray[Any] | None = None) -> Ints:
    """Probabilities, u16 Q15; columns outside the mask are 0."""
    scale = max(float(np.abs(x).max(initial=0)), _MASKED) / (_S16 // 2)
    ints = np.clip(np.floor(x / scale + 0.5), -_S16, _S16).astype(np.int16)
    if mask is not None:
        ints = np.where(mask, ints, -_S16).astype(np.int16)
    return device.softmax(ints, scale)


@_on.register
def _(node: ir.Softmax, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    return (_softmax(v[node.x], device) / np.float32(1 << 15)).astype(np.float32)


@_on.register
def _(node: ir.Activation, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    table = table_of(node.function)
    if table not in device.config.functions:
        held = ", ".join(device.config.functions) or "none"
        raise GraphError(
            f"Activation {node.out}: {node.function} needs {table}, {device.config.name} has {held}"
        )
    gain = QUICK_GELU if node.function == "quick_gelu" else 1.0
    x = np.clip(np.floor(v[node.x] * gain * 1024 + 0.5), -_S16, _S16).astype(np.int16)
    return (device.operations.activation(table, x) / np.float32(1024 * gain)).astype(np.float32)


@_on.register
def _(node: ir.LayerNorm, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    x, scale = _quantize(v[node.x], _S16)
    # No normalized value is larger than sqrt(N), and xhat ends at 32.
    reach = min(np.sqrt(x.shape[-1]), 32.0)
    bound = float(np.abs(node.gamma).max() * reach + np.abs(node.beta).max())
    out_scale = max(bound, 1e-9) / _S16
    y = device.layernorm(
        x, node.gamma, node.beta, eps=node.eps, scale=float(scale), out_scale=out_scale
    )
    return (y * np.float32(out_scale)).astype(np.float32)


@_on.register
def _(node: ir.Attention, v: Values, device: Device, bits: int) -> npt.NDArray[Any]:
    def split(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return x.reshape(*x.shape[:-1], node.heads, -1).swapaxes(-2, -3)

    q, k, w = (split(v[name]) for name in (node.q, node.k, node.v))
    scores = _product(q, k.swapaxes(-1, -2), device, bits) * np.float32(node.scale)
    mask = None if node.mask is None else v[node.mask][..., None, None, :]
    top = _P_TOP[bits]
    p = _softmax(scores, device, mask).astype(np.int64) * top + (1 << 14) >> 15
    qw, scale = _quantize(w, _TOP[bits])
    context = device.matmul(p.astype(np.uint8 if bits == 8 else np.int16), qw) * (scale / top)
    merged = context.swapaxes(-2, -3)
    return merged.reshape(*merged.shape[:-2], -1).astype(np.float32)
