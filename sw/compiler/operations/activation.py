"""A table function on every element, s16 Q10 in and out."""

from __future__ import annotations

from tilewright.hw.commands import Function, Opcode, Out, Source
from tilewright.hw.config import Config
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.operations.builder import INPUT, OUTPUT, Builder
from tilewright.sw.compiler.operations.rows import RowBlocks
from tilewright.sw.program import Executable


def compile_activation(config: Config, name: str, rows: int) -> Executable:
    """Program of a table function.

    Parameters
    ----------
    config : Config
    name : str
        "gelu", "silu" or "tanh"; the lanes must hold it.
    rows : int
        Rows of W elements, W the panel width.

    Returns
    -------
    Executable
        Input "x" and output "y", s16 [rows, W].

    Raises
    ------
    CompileError
        If the lanes do not hold the function.
    """
    if name not in config.functions:
        held = ", ".join(config.functions) or "no function"
        raise CompileError(f"{name}: the lanes of {config.title} hold {held}")
    builder = Builder(config)
    width = config.panel
    slots = RowBlocks(builder, name, rows, width, words=config.sp_words)
    source = builder.buffer("x", INPUT, "s16 panels", (rows, width), "input")
    target = builder.buffer("y", OUTPUT, "s16 panels", (rows, width), "output")
    for block in slots.load(source):
        builder.emit(
            Opcode.VECTOR,
            m=block.rows,
            panels=1,
            valid=width,
            source=Source.SP,
            in_addr=block.address,
            in_stride=block.rows,
            out_addr=block.address,
            out_stride=block.rows,
            function=Function[name.upper()],
            out=Out.S16,
        )
        slots.store(target, block, block.address)
    return builder.executable(name, elements=rows * width)
