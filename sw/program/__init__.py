"""Programs: commands, their bytes, listing and checks; executables with their data, and files.

What the fields of commands mean is in docs/architecture.md.
"""

from tilewright.hw.commands import (
    Fault,
    Function,
    Mul,
    Opcode,
    Out,
    Parts,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
    Unit,
    WeightFormat,
    XMode,
)
from tilewright.hw.encoding import Command, Scalar, Token, command
from tilewright.sw.errors import InputError
from tilewright.sw.program.check import Problem, ProgramError, check_program, find_problems
from tilewright.sw.program.disassemble import disassemble, format_command
from tilewright.sw.program.errors import ProgramFileError
from tilewright.sw.program.executable import Buffer, Executable
from tilewright.sw.program.file import load, save
from tilewright.sw.program.operation_names import OperationNames
from tilewright.sw.program.program import Program

__all__ = [
    "Buffer",
    "Command",
    "Executable",
    "Fault",
    "Function",
    "InputError",
    "Mul",
    "Opcode",
    "OperationNames",
    "Out",
    "Parts",
    "Post",
    "Pre",
    "Problem",
    "Program",
    "ProgramError",
    "ProgramFileError",
    "RowOp",
    "Scalar",
    "Source",
    "Stat",
    "Token",
    "Unit",
    "WeightFormat",
    "XMode",
    "check_program",
    "command",
    "disassemble",
    "find_problems",
    "format_command",
    "load",
    "save",
]
