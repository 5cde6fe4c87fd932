"""LayerNorm over the rows of an s16 matrix, by docs/numerics.md."""

from __future__ import annotations

from tilewright.hw.commands import PARAMETER_ROWS, Mul, Opcode, Out, Post, Pre, RowOp, Source, Stat
from tilewright.hw.config import Config
from tilewright.hw.encoding import Value
from tilewright.sw.compiler.operations.builder import INPUT, OUTPUT, PARAMETERS, Builder
from tilewright.sw.compiler.operations.rows import RowBlocks
from tilewright.sw.compiler.tile import chunk_panels
from tilewright.sw.program import Executable

WIDE = 1024
"""Columns up to which xhat has 10 fraction bits, 9 beyond."""
_XHAT_BITS = 16


def fraction_bits(columns: int) -> int:
    """Q of xhat."""
    return 10 if columns <= WIDE else 9


def compile_layernorm(
    config: Config, rows: int, columns: int, *, eps: int, shift: int
) -> Executable:
    """Program of a LayerNorm.

    Parameters
    ----------
    config : Config
    rows, columns : int
        1 or more, columns at most 4096.
    eps : int
        eps_q, below 2^40.
    shift : int
        sg, 0 … 61.

    Returns
    -------
    Executable
        Inputs "z" s16 [rows, columns] and "parameters" s16 [5, columns] (see
        `tilewright.sw.compiler.pack.parameters`: `bias` b32, `factor` g16), output "y" s16 [rows,
        columns].

    Raises
    ------
    CompileError
        If a size is out of range, or a row is more than the scratchpad holds.
    """
    builder = Builder(config)
    half = config.sp_words // 2
    slots = RowBlocks(builder, "layernorm", rows, columns, words=half)
    source = builder.buffer("z", INPUT, "s16 panels", (rows, columns), "input")
    constants = builder.buffer(
        "parameters", PARAMETERS, "s16 panels", (PARAMETER_ROWS, columns), "input"
    )
    target = builder.buffer("y", OUTPUT, "s16 panels", (rows, columns), "output")
    chunks = chunk_panels(slots.panels, half // 2 // PARAMETER_ROWS)
    there: dict[int, tuple[int, int]] = {}
    turn = 0
    for block in slots.load(source):
        place: dict[str, Value] = {
            "m": block.rows,
            "source": Source.SP,
            "in_stride": block.rows,
            "out_stride": block.rows,
            "stat": block.stat,
        }
        builder.emit(
            Opcode.VECTOR,
            **place,
            panels=slots.panels,
            valid=columns,
            in_addr=block.address,
            out_addr=block.address,
            stat_op=Stat.MOMENTS,
            first=1,
        )
        builder.emit(Opcode.ROW, op=RowOp.RSQRT, m=block.rows, stat=block.stat, n=columns, eps=eps)
        for low, high in chunks:
            slot = next((number for number, held in there.items() if held == (low, high)), None)
            if slot is None:
                slot = turn % 2
                turn += 1
                there[slot] = low, high
                words = (high - low) * PARAMETER_ROWS
                builder.move(
                    Opcode.LOAD,
                    constants,
                    first=low * PARAMETER_ROWS,
                    words=words,
                    pitch=words,
                    panels=1,
                    sp=half + slot * (half // 2),
                    sp_pitch=words,
                )
            panel = block.address + low * block.rows
            builder.emit(
                Opcode.VECTOR,
                **place,
                panels=high - low,
                valid=min(columns - low * config.panel, (high - low) * config.panel),
                in_addr=panel,
                out_addr=panel,
                par_addr=half + slot * (half // 2),
                par_stride=PARAMETER_ROWS,
                imm=columns,
                shift=_XHAT_BITS - fraction_bits(columns),
                shift2=shift,
                pre=Pre.CENTER,
                mul=Mul.ROW,
                post=Post.AFFINE,
                out=Out.S16,
            )
        slots.store(target, block, block.address)
    return builder.executable("layernorm", rows=rows, columns=columns, eps=eps, shift=shift)
