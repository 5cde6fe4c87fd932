"""fp32 encoder and calibrated ranges to integers, by the W8A8 contract of docs/numerics.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.golden import xhat_fraction_bits
from sw.models.bert import Bert, BertConfig, Layer, Linear, Norm
from sw.models.errors import ModelError
from sw.models.tokenize import Tokenizer
from sw.quantize import encode
from sw.quantize.calibrate import LayerRange, calibrate, calibration_ids
from sw.quantize.formats import (
    F64,
    Factor,
    Precision,
    QEmbedding,
    QLayer,
    QLayerNorm,
    QLinear,
    QModel,
    QSoftmax,
    State,
    Width,
)

_CTX_Q = 7
_ACT_Q = 10
_EMBEDDING_Q = 13


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Choices of the quantization.

    Attributes
    ----------
    precision : Precision
        Widths.
    alpha : float
        Smoothing exponent, 0 ... 1.
    margin8 : float
        Headroom over the calibrated range of s8 q, k, v, at least 1.
    margin16 : float
        Headroom over the calibrated range of s16 edges, at least 1; a bit of 16 is cheap, a
        massive activation that saturates is not.
    """

    precision: Precision = Precision.W8A8
    alpha: float = 0.7
    margin8: float = 1.1
    margin16: float = 1.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ModelError(f"recipe: alpha = {self.alpha} outside 0 ... 1")
        for name in ("margin8", "margin16"):
            if not 1 <= getattr(self, name) <= 4:
                raise ModelError(f"recipe: {name} = {getattr(self, name)} outside 1 ... 4")


def _f64(x: npt.NDArray[np.floating[Any]]) -> F64:
    return x.astype(np.float64)


def _row_max(*linears: Linear) -> F64:
    """Largest magnitude of each input's weights over all products that read it, [K]."""
    return _f64(np.max([np.abs(linear.w).max(axis=1) for linear in linears], axis=0))


def _linear(
    real: Linear,
    *,
    fold: F64,
    unit_in: float,
    unit_out: F64,
    out: Width,
    name: str,
    residual: Factor | None = None,
    act: str | None = None,
    smooth: Factor | None = None,
) -> QLinear:
    """One row-scaled product.

    Parameters
    ----------
    fold : [K]
        What the operand was divided by; multiplied into the weights.
    unit_in : float
        Real value of one step of the operand at rest, without `fold`.
    unit_out : [N]
        Real value of one step of the output.
    """
    weight, scale = encode.weights(_f64(real.w) * fold[:, None])
    mult, shift = encode.multiplier(unit_in * scale / unit_out, 9, name)
    return QLinear(
        weight=weight,
        mult=mult,
        shift=shift,
        bias=encode.bias(_f64(real.b), unit_out, name),
        out=out,
        residual=residual,
        act=act,
        smooth=smooth,
    )


def _norm(
    real: Norm, output: State, *, z_scale: float, config: BertConfig, name: str
) -> QLayerNorm:
    return encode.layer_norm(
        _f64(real.gamma),
        _f64(real.beta),
        output.scale * output.smooth,
        eps=config.eps,
        z_scale=z_scale,
        fraction=xhat_fraction_bits(config.hidden),
        name=name,
    )


def _state(amax: F64, smooth: F64, recipe: Recipe) -> State:
    return State(
        scale=encode.power_of_two(float((amax / smooth).max()) * recipe.margin16), smooth=smooth
    )


def input_state(layer: Layer, ranges: LayerRange, recipe: Recipe) -> State:
    """Format of a layer's input: smoothed for its q, k, v projections."""
    smooth = encode.smoothing(ranges.x, _row_max(layer.q, layer.k, layer.v), recipe.alpha)
    return _state(ranges.x, smooth, recipe)


def _layer(
    real: Layer,
    ranges: LayerRange,
    entry: State,
    output: State,
    *,
    config: BertConfig,
    recipe: Recipe,
    name: str,
) -> QLayer:
    hidden = config.hidden

    q_unit, k_unit = (
        max(float(amax.max()), 1e-12) * recipe.margin8 / 127 for amax in (ranges.q, ranges.k)
    )
    v_unit = np.maximum(ranges.v, float(ranges.v.max()) * 1e-5 + 1e-12) * recipe.margin8 / 127

    def project(linear: Linear, unit: F64, edge: str) -> QLinear:
        return _linear(
            linear,
            fold=entry.smooth,
            unit_in=entry.scale,
            unit_out=unit,
            out=Width.S8,
            name=f"{name}.{edge}",
        )

    # Exponents are base 2 in Q10; the maximum is subtracted, so no zero point is needed.
    scores = q_unit * k_unit / math.sqrt(config.head_dim) * math.log2(math.e) * 1024
    ms, shs = encode.softmax_factor(scores)

    # The context is in units of v's own scale, which the output projection takes up.
    v_fold, v_mean = encode.relative_to_mean(v_unit)
    z1_scale = encode.power_of_two(float(ranges.z1.max()) * recipe.margin16)
    z2_scale = encode.power_of_two(float(ranges.z2.max()) * recipe.margin16)
    middle = _state(
        ranges.x1, encode.smoothing(ranges.x1, _row_max(real.ffn1), recipe.alpha), recipe
    )
    a_smooth = encode.smoothing(ranges.a, _row_max(real.ffn2), recipe.alpha)
    a_scale = _state(ranges.a, a_smooth, recipe).scale

    def residual(state: State, z_scale: float, edge: str) -> Factor:
        factor = 256 * state.scale * state.smooth / z_scale
        return encode.shared_factor(factor, 1, f"{name}.{edge} residual")

    return QLayer(
        heads=config.heads,
        head_dim=config.head_dim,
        hidden=hidden,
        ffn=config.ffn,
        act=config.act,
        q=project(real.q, np.full(hidden, q_unit), "q"),
        k=project(real.k, np.full(hidden, k_unit), "k"),
        v=project(real.v, v_unit, "v"),
        softmax=QSoftmax(mult=ms, shift=shs),
        o=_linear(
            real.o,
            fold=v_fold,
            unit_in=v_mean * 2.0**-_CTX_Q,
            unit_out=np.full(hidden, z1_scale),
            out=Width.S16,
            name=f"{name}.o",
            residual=residual(entry, z1_scale, "o"),
        ),
        ln1=_norm(real.ln1, middle, z_scale=z1_scale, config=config, name=f"{name}.ln1"),
        ffn1=_linear(
            real.ffn1,
            fold=middle.smooth,
            unit_in=middle.scale,
            unit_out=np.full(config.ffn, 2.0**-_ACT_Q),
            out=Width.S16,
            name=f"{name}.ffn1",
            act=config.act,
            smooth=encode.shared_factor(
                2.0**-_ACT_Q / (a_scale * a_smooth), 0, f"{name}.ffn1 smoothing"
            ),
        ),
        ffn2=_linear(
            real.ffn2,
            fold=a_smooth,
            unit_in=a_scale,
            unit_out=np.full(hidden, z2_scale),
            out=Width.S16,
            name=f"{name}.ffn2",
            residual=residual(middle, z2_scale, "ffn2"),
        ),
        ln2=_norm(real.ln2, output, z_scale=z2_scale, config=config, name=f"{name}.ln2"),
        input=entry,
        output=output,
    )


def _embedding(model: Bert, output: State) -> QEmbedding:
    tables = (model.embedding.word, model.embedding.position, model.embedding.type)
    amax = max(float(np.abs(table).max()) for table in tables)
    q = min(_EMBEDDING_Q, -int(math.log2(encode.power_of_two(amax))))
    word, position, kind = (
        np.clip(encode.round_half_up(_f64(table) * 2.0**q), -32768, 32767).astype(np.int16)
        for table in tables
    )
    norm = _norm(model.embedding.ln, output, z_scale=2.0**-q, config=model.config, name="embedding")
    return QEmbedding(word=word, position=position, type=kind, fraction=q, ln=norm)


def quantize(model: Bert, ranges: tuple[LayerRange, ...], recipe: Recipe | None = None) -> QModel:
    """Quantize an encoder.

    Parameters
    ----------
    model : Bert
    ranges : tuple of LayerRange
        One a layer, from `calibrate`.
    recipe : Recipe, optional

    Raises
    ------
    ModelError
        If a constant does not fit its width; the message names the edge and the bound.
    """
    recipe = recipe or Recipe()
    if len(ranges) != len(model.layers):
        raise ModelError(f"{len(ranges)} calibrated layers, the model has {len(model.layers)}")
    states = [
        input_state(layer, amax, recipe) for layer, amax in zip(model.layers, ranges, strict=True)
    ]
    # Nothing is multiplied behind the last layer, so nothing is smoothed.
    states.append(_state(ranges[-1].y, np.ones(model.config.hidden), recipe))
    layers = tuple(
        _layer(
            layer,
            ranges[i],
            states[i],
            states[i + 1],
            config=model.config,
            recipe=recipe,
            name=f"layer {i}",
        )
        for i, layer in enumerate(model.layers)
    )
    return QModel(precision=recipe.precision, embedding=_embedding(model, states[0]), layers=layers)


def quantize_folder(folder: Path, recipe: Recipe | None = None) -> tuple[Bert, QModel]:
    """Load a model folder, calibrate it on the seeded draw of sentences and quantize it."""
    model = Bert.load(folder)
    ids = calibration_ids(Tokenizer(folder), model.config.positions)
    return model, quantize(model, calibrate(model, ids), recipe)
