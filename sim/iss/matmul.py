"""MATMUL."""

from __future__ import annotations

import numpy as np

from tilewright.hw.commands import GROUP_ROWS, WeightFormat, XMode
from tilewright.sim import golden
from tilewright.sim.golden.products import K_MAX
from tilewright.sim.iss.state import TOP_LOWEST, State


def _activations(state: State, f: dict[str, int], k: int) -> np.ndarray:
    """Rows of x as the array's port takes it, s9 [m, K]."""
    width = state.config.panel
    where = ("x_addr", f["x_addr"], -(-k // width), f["x_stride"], f["m"])
    mode = f["mode"]
    if mode in (XMode.S8, XMode.U8):
        x8 = state.rows8(*where)[:, :k]
        return x8.view(np.int8) if mode == XMode.S8 else x8
    x = state.rows16(*where)[:, :k]
    if mode == XMode.SCALED:
        return golden.feed8(x, *golden.row_scale(state.magnitudes("scale", f["scale"], f["m"])))
    # Not golden.balanced_bytes, which refuses what the port takes: 128 as a high byte.
    if mode == XMode.HIGH:
        return (x.astype(np.int32) + 128 >> 8).astype(np.int16)
    return (x & 0xFF).astype(np.uint8).view(np.int8)


def _weights(state: State, f: dict[str, int], k: int, n: int) -> np.ndarray:
    """The stationary operand, s8 [K, N]."""
    width = state.config.panel
    rows, columns = (n, k) if f["transposed"] else (k, n)
    panels = -(-columns // width)
    if f["weights"] == WeightFormat.S4 and not f["transposed"]:
        return _expanded(state, f, k, panels)[:, :n]
    w = state.rows8("w_addr", f["w_addr"], panels, f["w_stride"], rows)[:, :columns].view(np.int8)
    unused = 8 - state.config.weight_bits
    if unused:
        # The port takes the low bits of the byte.
        narrow = (w << unused) >> unused
        state.undefined(
            bool((narrow != w).any()), f"a weight beyond {state.config.weight_bits} bits"
        )
        w = narrow
    return w.T if f["transposed"] else w


def _expanded(state: State, f: dict[str, int], k: int, panels: int) -> np.ndarray:
    """4-bit weights times their group scales, s8 [K, panels · W]."""
    bits = state.config.weight_bits
    state.undefined(bits < 8, f"weights S4 with weight_bits = {bits}: must be 8")
    w4 = state.rows4("w_addr", f["w_addr"], panels, f["w_stride"], k)
    g = state.rows4("group_addr", f["group_addr"], panels, f["group_stride"], -(-k // GROUP_ROWS))
    w4 = (w4 << 4).view(np.int8) >> 4
    unused = 8 - bits
    return w4 * np.repeat(g, GROUP_ROWS, axis=0)[:k].astype(np.int8) << unused >> unused


def _row_maximum(state: State, f: dict[str, int], sums: np.ndarray) -> None:
    """Keep each row's maximum over the valid columns of the finished sums [m, N]."""
    valid = golden.valid_columns(
        *sums.shape, length=f["valid"], causal=bool(f["causal"]), row0=f["row0"]
    )
    where = state.stat_rows(f["stat"], len(sums))
    state.top[where] = np.where(valid, sums, TOP_LOWEST).max(axis=1)


def matmul(state: State, f: dict[str, int]) -> None:
    """acc[nt][i] (+)= x · w, modulo 2^32; with `row_max` the rows' maxima."""
    config = state.config
    m, k, n = f["m"], f["kt"] * config.rows, f["nt"] * config.columns
    if not (m and k and n):
        return
    x, w = _activations(state, f, k), _weights(state, f, k, n)
    product = golden.matmul(x[:, :K_MAX], w[:K_MAX])
    for first in range(K_MAX, k, K_MAX):
        product += golden.matmul(x[:, first : first + K_MAX], w[first : first + K_MAX])
    tiles = product.reshape(m, f["nt"], config.columns).transpose(1, 0, 2)
    place = state.tiles("acc_addr", f["acc_addr"], f["nt"], f["acc_stride"], m)
    if f["accumulate"]:
        tiles = tiles + state.acc[place]
    state.acc[place] = tiles
    if f["row_max"]:
        _row_maximum(state, f, state.acc[place].transpose(1, 0, 2).reshape(m, n))
