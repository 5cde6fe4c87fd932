"""Commands as the hardware sees them: Amaranth layouts made from the one definition."""

from amaranth.hdl import Value, signed, unsigned
from amaranth.lib import data

from tilewright.hw.commands import COMMAND_LAYOUTS, Opcode

INDEX_BITS = 24
"""Bits of a command's index in a fault record."""


def field_of(command: Value, opcode: Opcode, name: str) -> Value:
    """Slice a field out of a raw 512-bit command."""
    field = COMMAND_LAYOUTS[opcode][name]
    value = command[field.offset : field.offset + field.width]
    return value.as_signed() if field.signed else value


def command_layout(opcode: Opcode) -> data.StructLayout:
    """Return a struct of the opcode's fields; counts are resolved to 16 bits."""
    return data.StructLayout(
        {
            name: signed(field.width) if field.signed else unsigned(field.width)
            for name, field in COMMAND_LAYOUTS[opcode].items()
        }
    )
