"""The program format: BEGIN with hash and length, the commands, END."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tilewright.hw.commands import COMMAND_BYTES, Opcode
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, command, decode, encode
from tilewright.hw.manifest import hash_difference, manifest_hash


@dataclass
class Program:
    """The commands of a run on one configuration.

    Parameters
    ----------
    config : Config
        The machine; its manifest's hash goes into BEGIN.
    body : list of Command
        Commands between BEGIN and END.
    """

    config: Config
    body: list[Command] = field(default_factory=list)

    def __len__(self) -> int:
        """Commands, BEGIN and END included: the value of PROGRAM_COUNT."""
        return len(self.body) + 2

    def __iter__(self) -> Iterator[Command]:
        """BEGIN, the body, END: the index is that of FAULT_INDEX."""
        yield command(Opcode.BEGIN, hash=manifest_hash(self.config), commands=len(self))
        yield from self.body
        yield command(Opcode.END)

    def append(self, item: Command) -> None:
        """Add a command behind the others."""
        self.body.append(item)

    def extend(self, items: Iterable[Command]) -> None:
        """Add commands behind the others."""
        self.body.extend(items)

    def to_bytes(self) -> bytes:
        """What stands in DRAM at PROGRAM_OFFSET.

        Raises
        ------
        ValueError
            Naming the command, the field, its value and the bound.
        """
        parts = []
        for index, item in enumerate(self):
            try:
                parts.append(encode(item))
            except ValueError as error:
                raise ValueError(f"command {index}: {error}") from None
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, config: Config, data: bytes) -> Program:
        """Read a program back; BEGIN and END must be those of this configuration.

        Raises
        ------
        ValueError
            If the bytes are not a program for `config`.
        """
        if len(data) % COMMAND_BYTES or len(data) < 2 * COMMAND_BYTES:
            raise ValueError(f"a program of {len(data)} bytes: must be 128 or more, in steps of 64")
        items = []
        for index in range(len(data) // COMMAND_BYTES):
            try:
                items.append(decode(data[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]))
            except ValueError as error:
                raise ValueError(f"command {index}: {error}") from None
        for index, item in enumerate(items):
            first, last = index == 0, index == len(items) - 1
            if (item.opcode == Opcode.BEGIN) != first or (item.opcode == Opcode.END) != last:
                raise ValueError(
                    f"command {index} of {len(items)} is {item.opcode.name}: "
                    "BEGIN is the first and END the last, and only they"
                )
        if items[0]["commands"] != len(items):
            raise ValueError(
                f"BEGIN commands = {items[0]['commands']}: there are {len(items)} commands"
            )
        expected = manifest_hash(config)
        if items[0]["hash"] != expected:
            raise ValueError(
                f"BEGIN hash = {items[0]['hash']:016x}: configuration {config.label!r} has "
                f"{expected:016x}; the program is for "
                f"{hash_difference(items[0].integer('hash'), config)}"
            )
        return cls(config, items[1:-1])
