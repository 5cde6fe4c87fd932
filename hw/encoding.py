"""Commands as bytes and back: one encoder for assembler, simulators and tests.

The layouts are those of `tilewright.hw.commands`; what the fields mean is in
`docs/architecture.md`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from tilewright import Error
from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    COUNT_SCALAR_FLAG,
    POST_SLOTS,
    SCALARS,
    SEMAPHORES,
    UNIT_OF_OPCODE,
    WAIT_SLOTS,
    Fault,
    Field,
    Function,
    Opcode,
    Post,
    Unit,
)
from tilewright.hw.config import ACTIVATION_FUNCTIONS, Config

SLOT_COUNT_MAX = 15
"""Most tokens one wait or post slot can name."""
COUNT_MAX = COUNT_SCALAR_FLAG - 1
"""Largest immediate of a `count` field; a scalar register gives up to 65535."""


@dataclass(frozen=True, order=True)
class Scalar:
    """Names a scalar register as the value of a `count` field.

    Raises
    ------
    ValueError
        If there is no such register.
    """

    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < SCALARS:
            raise ValueError(f"scalar register {self.index}: must be 0 to {SCALARS - 1}")

    def __str__(self) -> str:
        return f"s{self.index}"


Value = int | Scalar
"""What a field holds; a `Scalar` only in fields of kind "count"."""


class Token(NamedTuple):
    """A wait or post slot: `amount` tokens (1 … 15) of a semaphore."""

    semaphore: int
    amount: int = 1


class DecodeError(Error, ValueError):
    """Bytes that are no command; `fault` is what the machine reports."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(init=False)
class Command:
    """One command.

    Parameters
    ----------
    opcode : Opcode
    fields : mapping of str to int or Scalar
        Fields behind the common ones; those left out are 0.
    waits, posts : iterable of Token or (semaphore, count)
        Tokens taken before the command starts, and added when it has finished.

    Raises
    ------
    ValueError
        If the opcode has no field of a name.
    """

    opcode: Opcode
    fields: dict[str, Value]
    waits: tuple[Token, ...]
    posts: tuple[Token, ...]

    def __init__(
        self,
        opcode: Opcode,
        fields: Mapping[str, Value] = MappingProxyType({}),
        waits: Iterable[tuple[int, int]] = (),
        posts: Iterable[tuple[int, int]] = (),
    ) -> None:
        self.opcode = Opcode(opcode)
        layout = COMMAND_LAYOUTS[self.opcode]
        for name in fields:
            if name not in layout:
                known = ", ".join(layout) or "none"
                raise ValueError(f"{self.opcode.name} has no field {name!r}; it has {known}")
        # In layout order, so that equal commands print and compare alike.
        self.fields = {name: _plain(fields.get(name, 0)) for name in layout}
        self.waits = tuple(Token(*token) for token in waits)
        self.posts = tuple(Token(*token) for token in posts)

    @property
    def unit(self) -> Unit:
        """The unit whose queue takes the command."""
        return UNIT_OF_OPCODE[self.opcode]

    def __getitem__(self, name: str) -> Value:
        return self.fields[name]

    def __setitem__(self, name: str, value: Value) -> None:
        if name not in self.fields:
            raise KeyError(f"{self.opcode.name} has no field {name!r}")
        self.fields[name] = _plain(value)

    def integer(self, name: str) -> int:
        """Value of a field that is not a scalar register's name."""
        value = self.fields[name]
        if isinstance(value, Scalar):
            raise ValueError(f"{self.opcode.name} {name} = {value}: must be an immediate")
        return value

    def resolve(self, scalars: Mapping[int, int]) -> dict[str, int]:
        """All fields as numbers: a `count` naming a register becomes its low 16 bits.

        Raises
        ------
        ValueError
            If a register that is named has no value.
        """
        return dict(self._resolved(scalars))

    def _resolved(self, scalars: Mapping[int, int]) -> Iterator[tuple[str, int]]:
        for name, value in self.fields.items():
            if isinstance(value, Scalar):
                if value.index not in scalars:
                    raise ValueError(f"{self.opcode.name} {name} = {value}: no value was given")
                yield name, scalars[value.index] & 0xFFFF
            else:
                yield name, value


def command(
    opcode: Opcode,
    *,
    waits: Iterable[tuple[int, int]] = (),
    posts: Iterable[tuple[int, int]] = (),
    **fields: Value,
) -> Command:
    """Build a `Command` with its fields as keywords."""
    return Command(opcode, fields, waits, posts)


def _plain(value: Value) -> Value:
    # Enumerations, bools and NumPy integers become plain ints, so that commands compare equal.
    return value if isinstance(value, Scalar) else int(value)


def _slots(command: Command, tokens: tuple[Token, ...], slots: int, what: str) -> bytes:
    name = f"{command.opcode.name} {what}"
    if len(tokens) > slots:
        raise ValueError(f"{name}: {len(tokens)} tokens: must be at most {slots}")
    if len({token.semaphore for token in tokens}) != len(tokens):
        raise ValueError(f"{name}: a semaphore appears twice in {[tuple(t) for t in tokens]}")
    for token in tokens:
        if not 0 <= token.semaphore < SEMAPHORES:
            raise ValueError(f"{name}: semaphore {token.semaphore}: must be 0 to {SEMAPHORES - 1}")
        if not 1 <= token.amount <= SLOT_COUNT_MAX:
            raise ValueError(f"{name}: count {token.amount}: must be 1 to {SLOT_COUNT_MAX}")
    return bytes(token.amount << 4 | token.semaphore for token in tokens).ljust(slots, b"\0")


def _raw(opcode: Opcode, spec: Field, value: Value) -> int:
    """Value of a field as an unsigned number of its width."""
    name = f"{opcode.name} {spec.name}"
    if isinstance(value, Scalar):
        if spec.kind != "count":
            raise ValueError(f"{name} = {value}: only a count field can name a scalar register")
        return COUNT_SCALAR_FLAG | value.index
    if spec.values is not None:
        if value not in {int(member) for member in spec.values}:
            legal = ", ".join(f"{int(member)} {member.name}" for member in spec.values)
            raise ValueError(f"{name} = {value}: must be one of {legal}")
        return value
    if spec.kind == "count":
        low, high = 0, COUNT_MAX
    elif spec.signed:
        low, high = -(1 << spec.width - 1), (1 << spec.width - 1) - 1
    else:
        low, high = 0, (1 << spec.width) - 1
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}: must be {low} to {high}")
    return value & ((1 << spec.width) - 1)


def encode(command: Command) -> bytes:
    """The 64 bytes of a command.

    Raises
    ------
    ValueError
        Naming field, value and bound, when a value does not fit.
    """
    head = (
        bytes([command.opcode])
        + _slots(command, command.waits, WAIT_SLOTS, "waits")
        + _slots(command, command.posts, POST_SLOTS, "posts")
    )
    word = int.from_bytes(head, "little")
    for spec in COMMAND_LAYOUTS[command.opcode].values():
        word |= _raw(command.opcode, spec, command.fields[spec.name]) << spec.offset
    return word.to_bytes(COMMAND_BYTES, "little")


def decode(data: bytes) -> Command:
    """The command that 64 bytes hold, as the machine reads them.

    Bits no field covers, bits 14 … 4 of a count that names a register, and slots of count 0 are
    ignored.

    Raises
    ------
    DecodeError
        Unknown opcode (ILLEGAL_OPCODE) or enumeration value (ILLEGAL_FIELD).
    ValueError
        If there are not 64 bytes.
    """
    if len(data) != COMMAND_BYTES:
        raise ValueError(f"a command of {len(data)} bytes: must be {COMMAND_BYTES}")
    try:
        opcode = Opcode(data[0])
    except ValueError:
        legal = ", ".join(f"0x{int(op):02x} {op.name}" for op in Opcode)
        raise DecodeError(
            Fault.ILLEGAL_OPCODE, f"opcode 0x{data[0]:02x}: must be one of {legal}"
        ) from None
    word = int.from_bytes(data, "little")
    fields: dict[str, Value] = {}
    for spec in COMMAND_LAYOUTS[opcode].values():
        raw = (word >> spec.offset) & ((1 << spec.width) - 1)
        if spec.kind == "count" and raw & COUNT_SCALAR_FLAG:
            fields[spec.name] = Scalar(raw % SCALARS)
            continue
        if spec.values is not None and raw not in spec.values._value2member_map_:
            raise DecodeError(
                Fault.ILLEGAL_FIELD,
                f"{opcode.name} {spec.name} = {raw}: must be at most {len(spec.values) - 1}",
            )
        if spec.signed and raw >> spec.width - 1:
            raw -= 1 << spec.width
        fields[spec.name] = raw
    first_post = 1 + WAIT_SLOTS
    return Command(
        opcode,
        fields,
        _tokens(data[1:first_post]),
        _tokens(data[first_post : first_post + POST_SLOTS]),
    )


def _tokens(slots: bytes) -> tuple[Token, ...]:
    return tuple(Token(slot & 15, slot >> 4) for slot in slots if slot >> 4)


def field_bound(spec: Field, config: Config) -> int | None:
    """Number of legal values of an address field in a configuration; None for other kinds."""
    bounds = {
        "sp": config.sp_words,
        "acc": config.acc_words,
        "scale": config.scale_rows,
        "stat": config.stat_rows,
    }
    return bounds.get(spec.kind)


def illegal_field(command: Command, config: Config) -> str | None:
    """What the machine of a configuration faults on (ILLEGAL_FIELD), or None.

    Every address field of the opcode must lie in its memory, used or not, and a table function must
    be one the lanes hold; bias and AFFINE exclude each other.

    Returns
    -------
    str or None
        Text naming field, value and bound.
    """
    for spec in COMMAND_LAYOUTS[command.opcode].values():
        bound = field_bound(spec, config)
        value = command.fields[spec.name]
        if bound is not None and isinstance(value, int) and value >= bound:
            return f"{command.opcode.name} {spec.name} = {value}: must be 0 to {bound - 1}"
    if command.opcode == Opcode.VECTOR:
        if command.integer("bias") and command.integer("post") == Post.AFFINE:
            return "VECTOR bias = 1 with post = AFFINE: both take B"
        name = Function(command.integer("function")).name.lower()
        if name in ACTIVATION_FUNCTIONS and name not in config.functions:
            return (
                f"VECTOR function = {name}: the lanes hold {', '.join(config.functions) or 'none'}"
            )
    return None
