"""Resolved commands as the queues hold them: 16 words of 32 bits.

The first three are tokens and identity; behind them words stand where the command has them, counts
resolved. A transfer has an address for its offset, and its window behind all else.
"""

from tilewright.hw.commands import COMMAND_BYTES, COMMAND_LAYOUTS, Opcode

WORD_BITS = 32
WORDS = 8 * COMMAND_BYTES // WORD_BITS
WAITS, POSTS, IDENTITY = range(3)
"""Wait slots, post slots; opcode and above it the index."""
_OFFSET = COMMAND_LAYOUTS[Opcode.LOAD]["offset"].offset // WORD_BITS
ADDRESS_LO, ADDRESS_HI = _OFFSET, _OFFSET + 1
BASE_LO, BASE_HI, LIMIT_HI, LIMIT_LO = range(WORDS - 4, WORDS)
BEYOND_WORD, BEYOND_BIT = divmod(COMMAND_LAYOUTS[Opcode.LOAD]["sp_plane"].offset + 16, WORD_BITS)
"""Of a transfer: its address is beyond the address space."""


def last_word(opcode: Opcode) -> int:
    """Number of a command's last word."""
    if opcode in (Opcode.LOAD, Opcode.STORE):
        return LIMIT_LO
    ends = [field.offset + field.width for field in COMMAND_LAYOUTS[opcode].values()]
    return max(IDENTITY, -(-max(ends, default=0) // WORD_BITS) - 1)


def is_count(opcode: Opcode, word: int, half: int) -> bool:
    """Whether a half of a word is a count, which may name a scalar."""
    return any(
        field.kind == "count" and field.offset == WORD_BITS * word + 16 * half
        for field in COMMAND_LAYOUTS[opcode].values()
    )


def takes_two(opcode: Opcode, word: int) -> bool:
    """Whether a word takes two registers, and so two cycles."""
    if opcode in (Opcode.LOAD, Opcode.STORE) and word in (ADDRESS_LO, ADDRESS_HI):
        return True
    return all(is_count(opcode, word, half) for half in range(2))


def resolve_cycles(opcode: Opcode) -> int:
    """Cycles in which the words of a command are resolved."""
    return sum(1 + takes_two(opcode, word) for word in range(last_word(opcode) + 1))
