"""Softmax over the rows of an s16 matrix, by docs/numerics.md, divided out.

Over the valid columns: ``u = RSH((max - x)·Ms, shs)``, ``e8`` and ``den = Σ e8`` as there,
``n = bitlen(den)``, ``R = floor(2^(n+15) / den)``; then ``p = RSH(e8·R, n)``, u16 Q15 in 0 … 32768.
Invalid columns, and rows without a valid one, are 0.
"""

from __future__ import annotations

import math

from tilewright.hw.commands import Function, Mul, Opcode, Out, Pre, RowOp, Source, Stat
from tilewright.hw.config import Config
from tilewright.hw.encoding import Scalar, Value
from tilewright.sw.arguments import real
from tilewright.sw.compiler.operations.builder import INPUT, OUTPUT, Builder
from tilewright.sw.compiler.operations.rows import RowBlocks
from tilewright.sw.program import Executable
from tilewright.sw.quantize.encode import SHIFT_MAX, softmax_factor

LENGTH = 0
"""Scalar register with the number of valid columns."""
_FACTOR = math.log2(math.e) * 1024
"""The exponent is in base 2, with 10 fraction bits."""


def factor(scale: float) -> tuple[int, int]:
    """Ms and shs of inputs in units of `scale`: ``Ms·2^-shs = scale·log2(e)·1024``.

    Raises
    ------
    InputError
        If the scale needs a shift that is not 0 to 61.
    """
    least, most = (bound / _FACTOR for bound in (2.0 ** (15 - SHIFT_MAX), 65535.0))
    return softmax_factor(real("softmax: scale", scale, least, most) * _FACTOR)


def compile_softmax(
    config: Config, rows: int, columns: int, *, mult: int, shift: int
) -> Executable:
    """Program of a softmax.

    Parameters
    ----------
    config : Config
    rows, columns : int
        1 or more, columns at most 4096.
    mult, shift : int
        Ms and shs, see `factor`.

    Returns
    -------
    Executable
        Input "x" s16, output "p" u16 Q15, both [rows, columns]; scalar "length", the valid columns.

    Raises
    ------
    CompileError
        If a size is out of range, or a row is more than the scratchpad holds.
    """
    builder = Builder(config)
    slots = RowBlocks(builder, "softmax", rows, columns, words=config.sp_words)
    source = builder.buffer("x", INPUT, "s16 panels", (rows, columns), "input")
    target = builder.buffer("p", OUTPUT, "u16 panels", (rows, columns), "output")
    for block in slots.load(source):
        common: dict[str, Value] = {
            "m": block.rows,
            "panels": slots.panels,
            "valid": Scalar(LENGTH),
            "source": Source.SP,
            "in_addr": block.address,
            "in_stride": block.rows,
            "out_addr": block.address,
            "out_stride": block.rows,
            "stat": block.stat,
        }
        builder.emit(Opcode.VECTOR, **common, stat_op=Stat.MAX, first=1)
        builder.emit(
            Opcode.VECTOR,
            **common,
            imm=mult,
            shift=shift,
            pre=Pre.MAX_MINUS,
            mul=Mul.IMMEDIATE,
            function=Function.EXP2,
            out=Out.S16,
            stat_op=Stat.SUM,
            first=1,
        )
        builder.emit(Opcode.ROW, op=RowOp.DIVIDE, m=block.rows, stat=block.stat)
        # The largest probability is 32768, which WRAP16 keeps as a u16.
        builder.emit(
            Opcode.VECTOR,
            **common,
            mul=Mul.ROW,
            out=Out.WRAP16,
        )
        slots.store(target, block, block.address)
    return builder.executable(
        "softmax",
        scalars={"length": LENGTH},
        rows=rows,
        columns=columns,
        mult=mult,
        shift=shift,
    )
