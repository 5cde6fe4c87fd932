"""Quantized layers of random integers, in every precision: work where no model has its shape.

What a machine's time depends on is all there; the numbers mean nothing.
"""

from typing import Any

import numpy as np

from tilewright.hw.commands import GROUP_ROWS, SYM16_MAX
from tilewright.sim.golden import expand_w4, xhat_fraction_bits
from tilewright.sw.quantize.formats import (
    EdgeFormat,
    Factor,
    Groups,
    QLayer,
    QLayerNorm,
    QLinear,
    QSoftmax,
    State,
    check_sizes,
)
from tilewright.sw.quantize.precision import LayerPrecision, Mode, with_width

W8A8 = LayerPrecision.uniform(Mode.W8A8)
PRECISIONS = {
    **{mode.value: LayerPrecision.uniform(mode) for mode in Mode if mode != Mode.W8A8},
    "wide attention": with_width(LayerPrecision.uniform(Mode.W8A8), "attention", 16),
    "narrow attention": with_width(LayerPrecision.uniform(Mode.W8A16), "attention", 8),
    "all different": LayerPrecision(
        qkv=Mode.W16A16, o=Mode.W4A8, ffn1=Mode.W8A8, ffn2=Mode.W8A16, attention=16
    ),
}
"""Everything but W8A8, uniform and mixed."""


def _multiplier(rng: np.random.Generator, factor: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """About `factor` as M * 2^-sh, a little different in each channel."""
    shift = 15 - int(np.floor(np.log2(factor)))
    mult = np.clip(factor * 2.0**shift * rng.uniform(0.8, 1.2, n), 1 << 15, 65535)
    return mult.astype(np.uint16), np.full(n, shift, dtype=np.uint8) + rng.integers(0, 2, n).astype(
        np.uint8
    )


def _weights(rng: np.random.Generator, mode: Mode, k: int, n: int) -> tuple[Any, Any, float]:
    """Weights, groups, and the weights' rms."""
    if mode.weight_bits == 4:
        w4 = np.clip(np.round(rng.normal(0, 3, (k, n))), -8, 7).astype(np.int8)
        g = rng.integers(0, 16, (-(-k // GROUP_ROWS), n)).astype(np.uint8)
        whole = np.pad(w4, ((0, len(g) * GROUP_ROWS - k), (0, 0)))
        return expand_w4(whole, g)[:k], Groups(w4=w4, g=g), 27.0
    if mode.weight_bits == 16:
        weight = np.clip(np.round(rng.normal(0, 7500, (k, n))), -SYM16_MAX, SYM16_MAX).astype(
            np.int16
        )
        weight[rng.random((k, n)) < 0.01] = SYM16_MAX
        return weight, None, 7500.0
    weight = np.clip(np.round(rng.normal(0, 30, (k, n))), -127, 127).astype(np.int8)
    return weight, None, 30.0


def make_layer(
    seed: int,
    hidden: int = 96,
    heads: int = 3,
    head_dim: int = 32,
    ffn: int = 200,
    precision: LayerPrecision = W8A8,
) -> QLayer:
    """A layer of random integers whose edges use their formats.

    Raises
    ------
    ModelError
        If a size is above 4096.
    """
    check_sizes(hidden=hidden, heads=heads, head_dim=head_dim, ffn=ffn)
    rng = np.random.default_rng(seed)
    width = heads * head_dim
    wide = precision.attention == 16

    def product(
        mode: Mode, k: int, n: int, rms: float, target: float, out: EdgeFormat, **more: Any
    ) -> QLinear:
        weight, groups, weight_rms = _weights(rng, mode, k, n)
        mult, shift = _multiplier(rng, target / (rms * weight_rms * np.sqrt(k)), n)
        bias = (rng.normal(0, target * 64, n)).astype(np.int32)
        scaled = mode.operand_bits == 8
        return QLinear(
            weight=weight,
            mult=mult,
            shift=shift,
            bias=bias,
            out=out,
            row_scaled=scaled,
            groups=groups,
            **more,
        )

    def factor(n: int, low: int, shift: int) -> Factor:
        return Factor(mult=rng.integers(low, 2 * low, n).astype(np.uint16), shift=shift)

    def at_rest(mode: Mode) -> EdgeFormat:
        return EdgeFormat.SYM16 if mode.operand_bits == 16 else EdgeFormat.S16

    def norm(n: int, out: EdgeFormat) -> QLayerNorm:
        return QLayerNorm(
            gamma=rng.integers(2000, 9000, n).astype(np.int16),
            beta=rng.integers(-(1 << 12), 1 << 12, n).astype(np.int32),
            shift=10,
            fraction=xhat_fraction_bits(n),
            eps=12345,
            out=out,
        )

    unit = State(scale=1.0, smooth=np.ones(hidden), width=at_rest(precision.qkv))
    qkv_out, qkv_target = (EdgeFormat.SYM16, 11000) if wide else (EdgeFormat.S8, 45)
    q, k, v = (product(precision.qkv, hidden, width, 6000, qkv_target, qkv_out) for _ in range(3))
    context = 9000 if wide else 2500
    return QLayer(
        heads=heads,
        head_dim=head_dim,
        hidden=hidden,
        ffn=ffn,
        act="gelu",
        q=q,
        k=k,
        v=v,
        softmax=QSoftmax(mult=40000, shift=34 if wide else 18),
        o=product(
            precision.o,
            width,
            hidden,
            context,
            3000,
            EdgeFormat.S16,
            residual=factor(hidden, 3000, 5),
        ),
        ln1=norm(hidden, at_rest(precision.ffn1)),
        ffn1=product(
            precision.ffn1,
            hidden,
            ffn,
            6000,
            1500,
            EdgeFormat.S16,
            act="gelu",
            smooth=factor(ffn, 20000, 12),
            act_out=at_rest(precision.ffn2),
        ),
        ffn2=product(
            precision.ffn2,
            ffn,
            hidden,
            5000,
            4000,
            EdgeFormat.S16,
            residual=factor(hidden, 2000, 4),
        ),
        ln2=norm(hidden, at_rest(precision.qkv)),
        input=unit,
        output=unit,
        attention_bits=precision.attention,
    )


def make_input(seed: int, sequence: int, hidden: int) -> np.ndarray:
    """Rows of a state, a row of zeros and an extreme among them."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(0, 6000, (sequence, hidden)), -SYM16_MAX, SYM16_MAX).astype(np.int16)
    x[rng.integers(sequence)] = 0
    x[-1, -1] = -SYM16_MAX
    return x
