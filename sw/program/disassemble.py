"""A readable listing of a program."""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.hw.commands import COMMAND_LAYOUTS, Opcode, Parts, WeightFormat
from tilewright.hw.encoding import Command, Scalar, Token
from tilewright.sw.program.operation_names import OperationNames


def _tokens(sign: str, tokens: tuple[Token, ...]) -> str:
    return " ".join(
        f"{sign}{token.semaphore}" + (f"*{token.amount}" if token.amount != 1 else "")
        for token in tokens
    )


_PLAIN = {"NONE", Parts.ONE.name, WeightFormat.S8.name}


def format_command(command: Command) -> str:
    """One line: opcode, fields that are not 0, then tokens taken (`-s`) and posted (`+s`).

    Enumerations stand by name, registers as `s0` … `s15`, hash and eps in hexadecimal.
    """
    parts = []
    for name, spec in COMMAND_LAYOUTS[command.opcode].items():
        value = command.fields[name]
        if isinstance(value, Scalar):
            parts.append(f"{name}={value}")
        elif spec.values is not None:
            # The first member is the plain case, but for enumerations without one.
            members = {int(member): member.name for member in spec.values}
            if value or members[0] not in _PLAIN:
                parts.append(f"{name}={members.get(value, value)}")
        elif spec.width == 1:
            if value:
                parts.append(name)
        elif value:
            parts.append(f"{name}={value:#x}" if spec.width == 64 else f"{name}={value}")
    return " ".join(
        part
        for part in (
            f"{command.opcode.name:<6}",
            *parts,
            _tokens("-", command.waits),
            _tokens("+", command.posts),
        )
        if part
    ).rstrip()


def disassemble(program: Iterable[Command], operations: OperationNames | None = None) -> str:
    """The listing of a `Program` or of any commands, one a line, with their indices.

    With the operations of a `Program`, the one a command belongs to stands behind `#`.
    """
    lines = []
    names = ["", *operations.commands()] if operations else []
    for index, item in enumerate(program):
        unit = "" if item.opcode in (Opcode.BEGIN, Opcode.END) else item.unit.name
        name = f"  # {names[index]}" if index < len(names) and names[index] else ""
        lines.append(f"{index:5d}  {unit:<6}  {format_command(item)}{name}")
    return "\n".join(lines) + "\n" if lines else ""
