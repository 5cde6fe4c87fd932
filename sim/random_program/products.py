"""Recipe of MATMUL."""

from __future__ import annotations

from tilewright.hw.commands import GROUP_ROWS, Opcode, WeightFormat, XMode
from tilewright.sim.random_program.draft import Draft, words_at


def matmul(draft: Draft, whole: bool = False) -> bool:
    """One product, and whether there is one; the whole one gives all accumulators and row maxima
    values.
    """
    config = draft.config
    rows, columns, width = config.rows, config.columns, config.panel
    most = draft.scale_count
    m, kt, nt = draft.integer(1, min(24, most)), draft.integer(1, 5), draft.integer(1, 4)
    if draft.chance(0.2):
        m = draft.choose([1, 2, min(rows, most), 8])
    mode = draft.choose([int(v) for v in XMode])
    accumulate = draft.integer(0, 1)
    if whole:
        m = min(draft.acc_count, draft.rows)
        kt, nt, accumulate = draft.integer(1, 2), draft.acc_count // m, 0
    transposed = draft.integer(0, 1)
    k_panels, n_panels = -(-kt * rows // width), -(-nt * columns // width)
    depth = -(-m // 2) if mode in (XMode.S8, XMode.U8) else m
    panels, words = (k_panels, nt * columns) if transposed else (n_panels, kt * rows)
    packed = not transposed and config.weight_bits == 8 and draft.chance(0.3)
    words //= 4 if packed else 2
    group_words = -(-kt * rows // (4 * GROUP_ROWS))
    x = draft.matrix(depth, k_panels, draft.first, draft.end, apart=False)
    w = draft.matrix(words, panels, *draft.weights, apart=False)
    group = draft.matrix(group_words, panels, *draft.weights, apart=False)
    acc_end = draft.acc_first + draft.acc_count
    acc = draft.matrix(m, nt, draft.acc_first, acc_end, apart=True)
    if whole:
        acc = (draft.acc_first, m)
    if x is None or w is None or group is None or acc is None:
        return False
    scale = draft.scale_first + draft.integer(0, draft.scale_count - m)
    fields = {
        "m": m,
        "kt": kt,
        "nt": nt,
        "x_addr": x[0],
        "x_stride": x[1],
        "w_addr": w[0],
        "w_stride": w[1],
        "acc_addr": acc[0],
        "acc_stride": acc[1],
        "scale": scale,
        "mode": mode,
        "transposed": transposed,
        "k_outer": draft.integer(0, 1),
        "accumulate": accumulate,
        "weights": WeightFormat.S4 if packed else WeightFormat.S8,
        "group_addr": group[0],
        "group_stride": group[1],
        "valid": draft.choose([nt * columns, draft.integer(0, nt * columns + 3)]),
        "row0": draft.integer(0, nt * columns),
        "stat": draft.stat_first,
        "row_max": int(whole or (m <= draft.stat_count and draft.chance(0.4))),
        "causal": int(draft.chance(0.3)),
    }
    writes = [("acc", words_at(acc[0], (nt, acc[1]), (m, 1)))]
    if fields["row_max"]:
        if not whole:
            fields["stat"] += draft.integer(0, draft.stat_count - m)
        writes.append(("stat", words_at(fields["stat"], (m, 1))))
    reads = [
        ("sp", words_at(x[0], (k_panels, x[1]), (depth, 1))),
        ("sp", words_at(w[0], (panels, w[1]), (words, 1))),
    ]
    if packed:
        reads.append(("sp", words_at(group[0], (panels, group[1]), (group_words, 1))))
    if mode == XMode.SCALED:
        reads.append(("scale", words_at(scale, (m, 1))))
    return draft.emit(Opcode.MATMUL, fields, reads, writes)
