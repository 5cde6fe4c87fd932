"""One real attention head as a program: Q·Kᵀ, softmax, ·V on operands of MiniLM's layer 0."""

from typing import Any

import numpy as np

from tests.models import layer_input, minilm
from tilewright.hw.commands import Function, Mul, Opcode, Out, Pre, RowOp, Source, Stat, XMode
from tilewright.hw.config import Config
from tilewright.hw.encoding import Scalar, command
from tilewright.sim.image import Image
from tilewright.sw.program import Program, check_program
from tilewright.sw.quantize.reference import trace_layer

INPUT, OUTPUT = 1, 2


def panels8(matrix: np.ndarray, panel: int) -> np.ndarray:
    """s8 [rows, columns] as bytes of s8 panels; rows even, columns a multiple of the panel."""
    rows, columns = matrix.shape
    return matrix.reshape(rows, columns // panel, panel).transpose(1, 0, 2).astype(np.int8)


def head_image(config: Config, *, head: int, sequence: int) -> Image:
    """The head's program with its operands, and the context golden functions make of them."""
    x, length, _ = layer_input(0, sequence)
    layer = minilm()[1].layers[0]
    trace = trace_layer(layer, x, length)
    d, panel = layer.head_dim, config.panel
    span = slice(head * d, (head + 1) * d)
    parts = [getattr(trace, name)[:, span] for name in ("q", "k", "v")]
    words = sequence // 2 * (d // panel)
    q, k, v, scores = (i * words for i in range(4))
    out = scores + sequence // 2 * (sequence // panel)
    acc = sequence * (sequence // config.columns)

    program = Program(config)
    moved: dict[str, Any] = {"runs": 1, "planes": 1, "sp_chunk": 1}
    program.append(
        command(
            Opcode.LOAD,
            region=INPUT,
            sp_addr=q,
            length=3 * words * config.word_bytes,
            posts=[(0, 1)],
            **moved,
        )
    )
    program.append(
        command(
            Opcode.MATMUL,
            waits=[(0, 1)],
            posts=[(1, 1)],
            m=sequence,
            kt=d // config.rows,
            nt=sequence // config.columns,
            x_addr=q,
            x_stride=sequence // 2,
            w_addr=k,
            w_stride=sequence // 2,
            acc_stride=sequence,
            mode=XMode.S8,
            transposed=1,
            row_max=1,
            valid=Scalar(0),
        )
    )
    columns: dict[str, Any] = {"m": sequence, "panels": sequence // panel, "valid": Scalar(0)}
    program.append(
        command(
            Opcode.VECTOR,
            waits=[(1, 1)],
            posts=[(2, 1)],
            acc_stride=sequence,
            source=Source.ACC,
            pre=Pre.TOP_MINUS,
            mul=Mul.IMMEDIATE,
            imm=layer.softmax.mult,
            shift=layer.softmax.shift,
            function=Function.EXP2,
            out=Out.U8,
            out_addr=scores,
            out_stride=sequence // 2,
            stat_op=Stat.SUM,
            first=1,
            **columns,
        )
    )
    program.append(command(Opcode.ROW, op=RowOp.DIVIDE, m=sequence))
    program.append(
        command(
            Opcode.MATMUL,
            waits=[(2, 1)],
            posts=[(3, 1)],
            m=sequence,
            kt=sequence // config.rows,
            nt=d // config.columns,
            x_addr=scores,
            x_stride=sequence // 2,
            w_addr=v,
            w_stride=sequence // 2,
            acc_addr=acc,
            acc_stride=sequence,
            mode=XMode.U8,
        )
    )
    program.append(
        command(
            Opcode.VECTOR,
            waits=[(3, 1)],
            posts=[(4, 1)],
            m=sequence,
            panels=d // panel,
            valid=d,
            acc_addr=acc,
            acc_stride=sequence,
            source=Source.ACC,
            mul=Mul.ROW,
            shift=8,
            out=Out.S16,
            out_addr=out,
            out_stride=sequence,
        )
    )
    size = d // panel * sequence * config.word_bytes
    program.append(
        command(Opcode.STORE, waits=[(4, 1)], region=OUTPUT, sp_addr=out, length=size, **moved)
    )
    check_program(program, config, scalars={0: length})
    context = trace.ctx[:, span].reshape(sequence, d // panel, panel).transpose(1, 0, 2)
    return Image(
        config=config,
        program=program.to_bytes(),
        regions={
            INPUT: np.concatenate([panels8(p, panel).reshape(-1) for p in parts]).view(np.uint8),
            OUTPUT: np.zeros(size, dtype=np.uint8),
        },
        expected={OUTPUT: np.ascontiguousarray(context, dtype="<i2").reshape(-1).view(np.uint8)},
        scalars={0: length},
    )
