"""Programs: a list of commands, its bytes, its listing, and the checks before it may run."""

from sw.program.check import Problem, ProgramError, check_program, find_problems
from sw.program.disassemble import disassemble, format_command
from sw.program.program import Program

__all__ = [
    "Problem",
    "Program",
    "ProgramError",
    "check_program",
    "disassemble",
    "find_problems",
    "format_command",
]
