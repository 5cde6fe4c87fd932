"""Quantized layers of random integers, in every precision."""

from sw.quantize.precision import LayerPrecision, Mode, with_width
from sw.quantize.seeded import make_input, make_layer

__all__ = ["PRECISIONS", "make_input", "make_layer"]

PRECISIONS = {
    **{mode.value: LayerPrecision.uniform(mode) for mode in Mode if mode != Mode.W8A8},
    "wide attention": with_width(LayerPrecision.uniform(Mode.W8A8), "attention", 16),
    "narrow attention": with_width(LayerPrecision.uniform(Mode.W8A16), "attention", 8),
    "all different": LayerPrecision(
        qkv=Mode.W16A16, o=Mode.W4A8, ffn1=Mode.W8A8, ffn2=Mode.W8A16, attention=16
    ),
}
"""Everything but W8A8, uniform and mixed."""
