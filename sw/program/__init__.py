"""Programs: commands, their bytes, listing and checks; executables with their data, and files."""

from sw.program.check import Problem, ProgramError, check_program, find_problems
from sw.program.disassemble import disassemble, format_command
from sw.program.errors import InputError, ProgramFileError
from sw.program.executable import Buffer, Executable
from sw.program.operations import Operations
from sw.program.program import Program

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
