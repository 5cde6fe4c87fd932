"""One encoder layer to integers, at any precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import SYM16_MAX
from tilewright.sim.golden import xhat_fraction_bits
from tilewright.sw.models.bert import BertConfig, Layer, Linear, Norm
from tilewright.sw.models.errors import ModelError, UnfitError
from tilewright.sw.quantize import encode
from tilewright.sw.quantize.balance import balancing_steps
from tilewright.sw.quantize.calibrate import LayerRange
from tilewright.sw.quantize.evaluation import cosine
from tilewright.sw.quantize.formats import (
    F64,
    EdgeFormat,
    Factor,
    QLayer,
    QLayerNorm,
    QLinear,
    QSoftmax,
    State,
)
from tilewright.sw.quantize.gptq import gptq
from tilewright.sw.quantize.precision import LayerPrecision, Mode
from tilewright.sw.quantize.recipe import Recipe
from tilewright.sw.quantize.reference import trace_layer
from tilewright.sw.quantize.weights import Weights, nearest

_CTX_Q = {8: 7, 16: 0}
"""Fraction bits of the context, in v's unit, by the width of v."""
_ACT_Q = 10
_ALIKE = 0.9
"""Least cosine of a layer's results and those of fp32; W4A8 reaches .98 on common models."""


def f64(x: npt.NDArray[np.floating[Any]]) -> F64:
    """As float64, in which all constants are computed."""
    return x.astype(np.float64)


def state(amax: F64, smooth: F64, width: EdgeFormat, recipe: Recipe) -> State:
    """Format of an edge whose channels reach `amax`: the smallest power of two with headroom."""
    top = float((amax / smooth).max()) * recipe.margin16
    return State(scale=encode.power_of_two(top, width.bounds[1]), smooth=smooth, width=width)


def norm(real: Norm, output: State, *, z_scale: float, config: BertConfig, name: str) -> QLayerNorm:
    """LayerNorm into the format `output`."""
    return encode.layer_norm(
        f64(real.gamma),
        f64(real.beta),
        output.scale * output.smooth,
        eps=config.eps,
        z_scale=z_scale,
        fraction=xhat_fraction_bits(config.hidden),
        out=output.width,
        name=name,
    )


@dataclass(frozen=True, kw_only=True)
class _Operand:
    """What a product reads: ``real[k] = x[k] * unit * fold[k]``; its channels' edge in the ranges.

    `fold` is what the channels were divided by; it is multiplied into the weights.
    """

    unit: float
    fold: F64
    edge: str


def _alike(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> bool:
    """Whether two tensors point the same way, or the second nowhere."""
    return not want.any() or float(cosine(got.reshape(-1), want.reshape(-1))) >= _ALIKE


class LayerQuantizer:
    """Quantizes one layer to any precision; weights that were rounded once are kept.

    Parameters
    ----------
    real : Layer
        fp32 weights.
    ranges : LayerRange
        With moments where the recipe rounds by GPTQ.
    config : BertConfig
    recipe : Recipe
    name : str
        For errors.
    """

    def __init__(
        self, real: Layer, ranges: LayerRange, *, config: BertConfig, recipe: Recipe, name: str
    ) -> None:
        self._real = real
        steps = balancing_steps(ranges.q, ranges.k)
        self._steps = {"q": -steps, "k": steps}
        self._ranges = replace(ranges, q=np.ldexp(ranges.q, -steps), k=np.ldexp(ranges.k, steps))
        self._config = config
        self._recipe = recipe
        self._name = name
        self._rounded: dict[tuple[str, int, bytes], Weights] = {}

    def input_state(self, mode: Mode) -> State:
        """Format of the layer's input, which its q, k, v projections read in `mode`."""
        return self._edge(self._ranges.x, mode, "q", "k", "v")

    def build(self, precision: LayerPrecision, entry: State, output: State) -> QLayer:
        """The layer between two formats.

        Parameters
        ----------
        precision : LayerPrecision
        entry : State
            From `input_state` of `precision.qkv`.
        output : State
            The next layer's input format.

        Raises
        ------
        ModelError
            If a constant does not fit its width; the message names the edge and the bound.
        """
        real, ranges, config = self._real, self._ranges, self._config
        hidden = config.hidden
        wide = precision.attention == 16
        step = self._recipe.margin16 / SYM16_MAX if wide else self._recipe.margin8 / 127
        q_unit, k_unit = (max(float(amax.max()), 1e-12) * step for amax in (ranges.q, ranges.k))
        # The context is in units of v's own scale, which the output projection takes up.
        v_fold, v_mean = encode.relative_to_mean(
            np.maximum(ranges.v, float(ranges.v.max()) * 1e-5 + 1e-12)
        )
        v_unit = v_mean * step

        def project(name: str, unit: F64) -> QLinear:
            return self._linear(
                name,
                _Operand(unit=entry.scale, fold=entry.smooth, edge="x"),
                precision.qkv,
                unit_out=unit,
                out=EdgeFormat.SYM16 if wide else EdgeFormat.S8,
            )

        # Exponents are base 2 in Q10; the maximum is subtracted, so no zero point is needed.
        scores = q_unit * k_unit / math.sqrt(config.head_dim) * math.log2(math.e) * 1024
        ms, shs = encode.softmax_factor(scores)
        z1_scale, z2_scale = (
            encode.norm_scale(float(z.max()) * self._recipe.margin16, config.eps, hidden)
            for z in (ranges.z1, ranges.z2)
        )
        middle = self._edge(ranges.x1, precision.ffn1, "ffn1")
        behind = self._edge(ranges.a, precision.ffn2, "ffn2")
        layer = QLayer(
            heads=config.heads,
            head_dim=config.head_dim,
            hidden=hidden,
            ffn=config.ffn,
            act=config.act,
            q=project("q", np.full(hidden, q_unit)),
            k=project("k", np.full(hidden, k_unit)),
            v=project("v", v_unit * v_fold),
            softmax=QSoftmax(mult=ms, shift=shs),
            o=self._linear(
                "o",
                _Operand(
                    unit=v_unit * 2.0 ** -_CTX_Q[precision.attention], fold=v_fold, edge="ctx"
                ),
                precision.o,
                unit_out=np.full(hidden, z1_scale),
                residual=self._residual("o", entry, z1_scale),
            ),
            ln1=self._norm("ln1", real.ln1, middle, z1_scale),
            ffn1=self._linear(
                "ffn1",
                _Operand(unit=middle.scale, fold=middle.smooth, edge="x1"),
                precision.ffn1,
                unit_out=np.full(config.ffn, 2.0**-_ACT_Q),
                act=config.act,
                smooth=encode.shared_factor(
                    2.0**-_ACT_Q / (behind.scale * behind.smooth), 0, f"{self._name}.ffn1 smoothing"
                ),
                act_out=behind.width,
            ),
            ffn2=self._linear(
                "ffn2",
                _Operand(unit=behind.scale, fold=behind.smooth, edge="a"),
                precision.ffn2,
                unit_out=np.full(hidden, z2_scale),
                residual=self._residual("ffn2", middle, z2_scale),
            ),
            ln2=self._norm("ln2", real.ln2, output, z2_scale),
            input=entry,
            output=output,
            attention_bits=precision.attention,
        )
        self._try(layer)
        return layer

    def _try(self, layer: QLayer) -> None:
        """Refuse a layer that does not do on a few tokens what fp32 does.

        The line names the first part whose results differ, if it is not the layer as a whole.
        """
        want = self._ranges.sample
        if want is None:
            return
        got = trace_layer(layer, layer.input.to_int(want.x))
        if _alike(layer.output.to_real(got.y), want.y):
            return
        # Edges with one scale for all channels; a cosine needs no scale.
        edges = {"q": "q", "k": "k", "z1": "o", "h": "ffn1", "z2": "ffn2", "y": "ln2"}
        for edge, part in edges.items():
            if not _alike(getattr(got, edge), getattr(want, edge)):
                top = float(np.abs(getattr(want, edge)).max())
                raise UnfitError(
                    f"{self._name}.{part}: results up to {top:.3g} in fp32 are not those of the "
                    "integers"
                )

    def _edge(self, amax: F64, mode: Mode, *readers: str) -> State:
        """Format of the operand of products of one mode.

        An 8-bit operand is smoothed. One of 16 bits has no difficulty to give away, and its
        weights are better off without.
        """
        if mode.operand_bits == 16:
            return state(amax, np.ones(len(amax)), EdgeFormat.SYM16, self._recipe)
        wmax = np.max([np.abs(self._real_product(part)[0]).max(axis=1) for part in readers], axis=0)
        smooth = encode.smoothing(amax, wmax, self._recipe.alpha)
        return state(amax, smooth, EdgeFormat.S16, self._recipe)

    def _linear(
        self,
        part: str,
        operand: _Operand,
        mode: Mode,
        *,
        unit_out: F64,
        out: EdgeFormat = EdgeFormat.S16,
        residual: Factor | None = None,
        act: str | None = None,
        smooth: Factor | None = None,
        act_out: EdgeFormat = EdgeFormat.S16,
    ) -> QLinear:
        """One product; `unit_out` [N] is the real value of one step of the output."""
        name = f"{self._name}.{part}"
        w, b = self._real_product(part)
        weights = self._weights(part, w, operand, mode)
        row_scaled = mode.operand_bits == 8
        factor = operand.unit * weights.scale / unit_out
        if (lost := factor < encode.FACTOR_MIN).any():
            weights, factor = weights.without(lost), np.maximum(factor, encode.FACTOR_MIN)
        mult, shift = encode.multiplier(factor, 9 if row_scaled else 8, name)
        return QLinear(
            weight=weights.weight,
            mult=mult,
            shift=shift,
            bias=encode.bias(b, unit_out, name),
            out=out,
            row_scaled=row_scaled,
            residual=residual,
            act=act,
            smooth=smooth,
            act_out=act_out,
            groups=weights.groups,
        )

    def _real_product(self, part: str) -> tuple[F64, F64]:
        """Weights [K, N] and bias [N] of a product, those of q and k balanced."""
        real: Linear = getattr(self._real, part)
        steps = self._steps.get(part, np.int32(0))
        return np.ldexp(f64(real.w), steps), np.ldexp(f64(real.b), steps)

    def _weights(self, part: str, w: F64, operand: _Operand, mode: Mode) -> Weights:
        key = part, mode.weight_bits, operand.fold.tobytes()
        if key not in self._rounded:
            w = w * operand.fold[:, None]
            if self._recipe.rounding(mode) == "nearest":
                self._rounded[key] = nearest(w, mode.weight_bits)
            else:
                moment = self._ranges.moment(operand.edge)
                if moment is None:
                    raise ModelError(f"{self._name}.{part}: GPTQ needs ranges with moments")
                moment = moment / np.outer(operand.fold, operand.fold)
                self._rounded[key] = gptq(w, moment, mode.weight_bits)
        return self._rounded[key]

    def _residual(self, part: str, source: State, z_scale: float) -> Factor:
        factor = 256 * source.scale * source.smooth / z_scale
        return encode.shared_factor(factor, 1, f"{self._name}.{part} residual")

    def _norm(self, part: str, real: Norm, output: State, z_scale: float) -> QLayerNorm:
        return norm(real, output, z_scale=z_scale, config=self._config, name=f"{self._name}.{part}")
