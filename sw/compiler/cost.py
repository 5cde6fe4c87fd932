"""Array cycles of an encoder layer in closed form: what a precision costs.

On an array of R x C, a product [M, K] x [K, N] takes ``ceil(K / R) * ceil(N / C) * max(M, R)``
cycles for each of its byte passes. Vector unit and memory hide behind the array and are left out:
this compares precisions of one layer; `sw.compiler.estimate` predicts the cycles of a program.
"""

from __future__ import annotations

from collections.abc import Iterable

from sw.quantize.precision import LayerPrecision

SCORE_PASSES = {8: 1, 16: 4}
"""Byte passes of q times k transposed, by the width of attention."""
CONTEXT_PASSES = {8: 1, 16: 2}
"""Byte passes of the attention weights (u8) times v."""


def product_cycles(m: int, k: int, n: int, rows: int, columns: int) -> int:
    """Cycles of one byte pass of [m, k] x [k, n]."""
    return -(-k // rows) * -(-n // columns) * max(m, rows)


def layer_cycles(
    hidden: int,
    heads: int,
    ffn: int,
    sequence: int,
    rows: int,
    columns: int,
    precision: LayerPrecision,
) -> int:
    """Array cycles of one layer.

    Parameters
    ----------
    hidden, heads, ffn : int
        Of the layer; a head is ``hidden / heads`` wide.
    sequence : int
        Tokens.
    rows, columns : int
        R and C.
    precision : LayerPrecision
    """

    def cycles(m: int, k: int, n: int) -> int:
        return product_cycles(m, k, n, rows, columns)

    # Heads start on columns of their own.
    head = hidden // heads
    return (
        3 * heads * cycles(sequence, hidden, head) * precision.qkv.passes
        + heads * cycles(sequence, head, sequence) * SCORE_PASSES[precision.attention]
        + heads * cycles(sequence, sequence, head) * CONTEXT_PASSES[precision.attention]
        + heads * cycles(sequence, head, hidden) * precision.o.passes
        + cycles(sequence, hidden, ffn) * precision.ffn1.passes
        + cycles(sequence, ffn, hidden) * precision.ffn2.passes
    )


def model_cycles(
    hidden: int,
    heads: int,
    ffn: int,
    sequence: int,
    rows: int,
    columns: int,
    precision: Iterable[LayerPrecision],
) -> int:
    """Array cycles of all layers; see `layer_cycles`."""
    return sum(
        layer_cycles(hidden, heads, ffn, sequence, rows, columns, layer) for layer in precision
    )
