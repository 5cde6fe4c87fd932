"""The walk over the tiles of a MATMUL command, shared by weight loader and feeder."""

from amaranth.hdl import Module, Signal, Value


class TileWalk:
    """Counters k, n over kt × nt tiles; K inner, or N inner with `k_outer`.

    `advance(m)` steps the counters; in the same cycle `k_step`, `k_reset`,
    `n_step`, `n_reset` tell what addresses do, and `last` that this tile is the final one.
    """

    def __init__(self, m: Module, *, kt: Value, nt: Value, k_outer: Value, prefix: str) -> None:
        self.k = Signal(16, name=f"{prefix}_k")
        self.n = Signal(16, name=f"{prefix}_n")
        k_last = Signal(name=f"{prefix}_k_last")
        n_last = Signal(name=f"{prefix}_n_last")
        self.last = Signal(name=f"{prefix}_last")
        self.k_step = Signal(name=f"{prefix}_k_step")
        self.k_reset = Signal(name=f"{prefix}_k_reset")
        self.n_step = Signal(name=f"{prefix}_n_step")
        self.n_reset = Signal(name=f"{prefix}_n_reset")
        m.d.comb += [
            k_last.eq(self.k + 1 == kt),
            n_last.eq(self.n + 1 == nt),
            self.last.eq(k_last & n_last),
            self.k_step.eq(~k_last & (~k_outer | n_last)),
            self.k_reset.eq(k_last & ~k_outer),
            self.n_step.eq(~n_last & (k_outer | k_last)),
            self.n_reset.eq(n_last & k_outer),
        ]

    def advance(self, m: Module) -> None:
        """Step to the next tile, or to the first one of the next command."""
        with m.If(self.last | self.k_reset):
            m.d.sync += self.k.eq(0)
        with m.Elif(self.k_step):
            m.d.sync += self.k.eq(self.k + 1)
        with m.If(self.last | self.n_reset):
            m.d.sync += self.n.eq(0)
        with m.Elif(self.n_step):
            m.d.sync += self.n.eq(self.n + 1)
