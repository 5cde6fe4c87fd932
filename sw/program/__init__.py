"""Programs: commands, their bytes, listing and checks; executables with their data, and files."""

from tilewright.sw.errors import InputError
from tilewright.sw.program.check import Problem, ProgramError, check_program, find_problems
from tilewright.sw.program.disassemble import disassemble, format_command
from tilewright.sw.program.errors import ProgramFileError
from tilewright.sw.program.executable import Buffer, Executable
from tilewright.sw.program.operations import Operations
from tilewright.sw.program.program import Program

__all__ = [
    "Buffer",
    "Executable",
    "InputError",
    "Operations",
    "Problem",
    "Program",
    "ProgramError",
    "ProgramFileError",
    "check_program",
    "disassemble",
    "find_problems",
    "format_command",
]
