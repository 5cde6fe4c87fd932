"""Emission of the operations of a layer: products, attention, LayerNorm, and what joins them."""
