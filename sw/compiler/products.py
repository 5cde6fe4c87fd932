"""A quantized layer's products as the compiler streams them: padded, heads on panels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import GROUP_ROWS
from tilewright.sw.compiler.blocks.attention import PARTS
from tilewright.sw.compiler.blocks.tail import TailProducts
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.pack import Ints, Product, pad, parameters
from tilewright.sw.compiler.tile import Geometry
from tilewright.sw.quantize.formats import Groups, QLayer, QLayerNorm, QLinear
from tilewright.sw.quantize.precision import Mode

I16 = npt.NDArray[np.int16]


def _pad_parameters(params: I16, columns: int) -> I16:
    out = pad(params, params.shape[0], columns).astype(np.int16)
    # A shift of a padded channel must not become negative by the row's exponent.
    out[1, params.shape[1] :] = 9
    return out


def _stored(linear: QLinear) -> tuple[Ints, Ints | None]:
    """Weights as they are stored, and the group scales of 4-bit ones."""
    if linear.groups is None:
        return linear.weight, None
    return linear.groups.w4, linear.groups.g


def _padded(weight: Ints, rows: int, columns: int) -> Ints:
    return pad(weight, rows, columns).astype(weight.dtype)


def head_products(layer: QLayer, geometry: Geometry, owner: str = "") -> list[Product]:
    """q, k, v of each head side by side in the order of `PARTS`, each padded to panels.

    `owner` goes before each product's name.
    """
    width = geometry.panel
    d = layer.head_dim
    padded = geometry.panels(d) * width
    rows = geometry.k_tiles(layer.hidden) * geometry.config.rows
    out = []
    for head in range(layer.heads):
        span = slice(head * d, (head + 1) * d)
        weights, groups, params = [], [], []
        for part in PARTS:
            linear: QLinear = getattr(layer, part)
            weight, scales = _stored(linear)
            weights.append(_padded(weight[:, span], rows, padded))
            if scales is not None:
                groups.append(_padded(scales[:, span], len(scales), padded))
            values = parameters(
                d, mult=linear.mult[span], shift=linear.shift[span], bias=linear.bias[span]
            )
            params.append(_pad_parameters(values, padded))
        out.append(
            Product(
                name=f"{owner}head {head}",
                k=layer.hidden,
                n=padded * len(PARTS),
                mode=layer.q.mode,
                weight=np.concatenate(weights, axis=1),
                params=np.concatenate(params, axis=1),
                width=width,
                scales=np.concatenate(groups, axis=1) if groups else None,
            )
        )
    return out


def _linear(
    name: str,
    linear: QLinear,
    geometry: Geometry,
    factor: npt.NDArray[np.integer[Any]] | None,
) -> Product:
    weight, scales = _stored(linear)
    k, n = weight.shape
    columns = geometry.panels(n) * geometry.panel
    values = parameters(n, mult=linear.mult, shift=linear.shift, bias=linear.bias, factor=factor)
    return Product(
        name=name,
        k=k,
        n=n,
        mode=linear.mode,
        weight=_padded(weight, geometry.k_tiles(k) * geometry.config.rows, columns),
        params=_pad_parameters(values, columns),
        width=geometry.panel,
        scales=None if scales is None else _padded(scales, len(scales), columns),
    )


def norm_product(name: str, constants: QLayerNorm, geometry: Geometry) -> Product:
    """A LayerNorm's parameters."""
    n = len(constants.gamma)
    columns = geometry.panels(n) * geometry.panel
    values = parameters(n, bias=constants.beta, factor=constants.gamma)
    return Product(
        name=name,
        k=0,
        n=n,
        mode=Mode.W8A8,
        weight=np.zeros((0, columns), dtype=np.int8),
        params=pad(values, values.shape[0], columns).astype(np.int16),
        width=geometry.panel,
    )


def _spread(layer: QLayer, geometry: Geometry) -> QLinear:
    """The output projection with its rows where the context's heads stand: on panels."""
    d = layer.head_dim
    padded = geometry.panels(d) * geometry.panel

    def spread(matrix: Any, rows: int, step: int) -> Any:
        out = np.zeros((layer.heads * step, matrix.shape[1]), dtype=matrix.dtype)
        for head in range(layer.heads):
            out[head * step : head * step + rows] = matrix[head * rows : (head + 1) * rows]
        return out

    o = layer.o
    if padded == d:
        return o
    groups = o.groups
    if groups is not None:
        if d % GROUP_ROWS:
            raise CompileError(
                f"o: heads of {d} padded to {padded} columns tear groups of {GROUP_ROWS} rows of "
                "4-bit weights: must be a multiple of 32, or have 8-bit weights"
            )
        g = spread(groups.g, d // GROUP_ROWS, padded // GROUP_ROWS)
        groups = Groups(w4=spread(groups.w4, d, padded), g=g)
    return replace(o, weight=spread(o.weight, d, padded), groups=groups)


def tail_products(layer: QLayer, geometry: Geometry, owner: str = "") -> TailProducts:
    """Everything behind attention; `owner` goes before each product's name."""
    residuals = layer.o.residual, layer.ffn2.residual
    assert residuals[0] is not None
    assert residuals[1] is not None
    assert layer.ffn1.smooth is not None
    return TailProducts(
        o=_linear(f"{owner}o", _spread(layer, geometry), geometry, residuals[0].mult),
        ln1=norm_product(f"{owner}ln1", layer.ln1, geometry),
        ffn1=_linear(f"{owner}ffn1", layer.ffn1, geometry, layer.ffn1.smooth.mult),
        ffn2=_linear(f"{owner}ffn2", layer.ffn2, geometry, residuals[1].mult),
        ln2=norm_product(f"{owner}ln2", layer.ln2, geometry),
    )
