"""Sizes of encoder layers, their products, and the fewest cycles they can take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.sw.rounding import ceil_div


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """`count` products [m, k] · [k, n]."""

    name: str
    count: int
    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        return self.count * self.m * self.k * self.n


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """An encoder layer; attention is heads · head_dim wide."""

    name: str
    hidden: int
    heads: int
    head_dim: int
    ffn: int

    def gemms(self, sequence: int) -> list[Gemm]:
        """The products of the layer."""
        s, h, width = sequence, self.hidden, self.heads * self.head_dim
        return [
            Gemm(name="q, k, v", count=3, m=s, k=h, n=width),
            Gemm(name="scores", count=self.heads, m=s, k=self.head_dim, n=s),
            Gemm(name="context", count=self.heads, m=s, k=s, n=self.head_dim),
            Gemm(name="output", count=1, m=s, k=width, n=h),
            Gemm(name="ffn1", count=1, m=s, k=h, n=self.ffn),
            Gemm(name="ffn2", count=1, m=s, k=self.ffn, n=h),
        ]

    def macs(self, sequence: int) -> int:
        """Multiply-accumulates, nothing padded."""
        return sum(gemm.macs for gemm in self.gemms(sequence))


MINILM = LayerSize(name="MiniLM", hidden=384, heads=12, head_dim=32, ffn=1536)
BERT_BASE = LayerSize(name="BERT-base", hidden=768, heads=12, head_dim=64, ffn=3072)


def array_cycles(gemms: Iterable[Gemm], rows: int, columns: int) -> int:
    """``Σ ceil(K/R) · ceil(N/C) · max(M, R)``: cycles of the passes, one right behind the other."""
    return sum(
        gemm.count * ceil_div(gemm.k, rows) * ceil_div(gemm.n, columns) * max(gemm.m, rows)
        for gemm in gemms
    )


def bus_cycles(read_bytes: int, write_bytes: int, axi_bytes: int) -> int:
    """Cycles the bus is taken at a full beat a cycle; it reads and writes at the same time."""
    return ceil_div(max(read_bytes, write_bytes), axi_bytes)
