"""Executables of a few commands, for tests of files and driver."""

from tilewright.hw.commands import Opcode
from tilewright.hw.config import Config
from tilewright.hw.encoding import command
from tilewright.sw.program import Buffer, Executable, Program
from tilewright.sw.program.layouts import layout

SOURCE, CONSTANTS, TARGET, STATE = 1, 2, 3, 4


def move(opcode, region, length, *, sp=0, **more):
    """A plain transfer of `length` bytes."""
    return command(
        opcode, region=region, sp_addr=sp, length=length, runs=1, planes=1, sp_chunk=1, **more
    )


def placed(config, region, form, shape, direction, offset=0, of=""):
    """A buffer of the right size."""
    return Buffer(
        region, offset, layout(form).size(shape, config.panel), form, shape, direction, of
    )


def copy_executable(config: Config, rows: int = 5, columns: int = 7, **metadata) -> Executable:
    """Gives y = x, s16 [rows, columns]; scalar "start" is added to the offset x is read from."""
    x = placed(config, SOURCE, "s16 panels", (rows, columns), "input")
    y = placed(config, TARGET, "s16 panels", (rows, columns), "output")
    program = Program(config)
    program.append(move(Opcode.LOAD, SOURCE, x.size, scalar_on=1, scalar=3, posts=[(1, 1)]))
    program.append(move(Opcode.STORE, TARGET, y.size, waits=[(1, 1)]))
    return Executable(
        config=config,
        program=program,
        regions={SOURCE: x.size, TARGET: y.size},
        buffers={"x": x, "y": y},
        scalars={"start": 3},
        metadata={"macs": 0, **metadata},
    )


def state_executable(config: Config, constants: bytes) -> Executable:
    """Gives what the run before was given ("before") and its constants ("constant"), u8 rows."""
    size = len(constants)
    program = Program(config)
    words = -(-size // config.word_bytes)
    program.append(move(Opcode.LOAD, STATE, size))
    program.append(move(Opcode.LOAD, CONSTANTS, size, sp=words))
    program.append(move(Opcode.LOAD, SOURCE, size, sp=2 * words, posts=[(1, 1)]))
    program.append(move(Opcode.STORE, TARGET, size, waits=[(1, 1)]))
    program.append(move(Opcode.STORE, TARGET, size, sp=words, offset=size))
    program.append(move(Opcode.STORE, STATE, size, sp=2 * words))
    return Executable(
        config=config,
        program=program,
        constants={CONSTANTS: constants},
        regions={SOURCE: size, CONSTANTS: size, TARGET: 2 * size, STATE: size},
        buffers={
            "now": placed(config, SOURCE, "u8", (size,), "input"),
            "before": placed(config, TARGET, "u8", (size,), "output"),
            "constant": placed(config, TARGET, "u8", (size,), "output", offset=size),
            "kept": placed(config, STATE, "u8", (size,), "internal"),
        },
    )
