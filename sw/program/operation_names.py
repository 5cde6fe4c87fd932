"""Which operation of the model each command of a program belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from typing import Any

SEPARATOR = " / "
"""Between the parts of a name, the whole first: "layer 0 / head 3 / scores"."""


@dataclass(frozen=True)
class OperationNames:
    """The operations of a program, as its metadata keeps them.

    Attributes
    ----------
    names : tuple of str
        In the order in which they begin.
    macs : tuple of int
        Multiply-accumulates of each operation's own, unpadded.
    runs : tuple of (int, int)
        Stretches of commands between BEGIN and END: number of the operation, and how many.
    """

    names: tuple[str, ...] = ()
    macs: tuple[int, ...] = ()
    runs: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, commands: Iterable[str], macs: Mapping[str, int]) -> OperationNames:
        """From the name each command has, and the multiply-accumulates of some names."""
        runs = [(name, len(list(same))) for name, same in groupby(commands)]
        names = {name: number for number, name in enumerate(dict.fromkeys(n for n, _ in runs))}
        return cls(
            names=tuple(names),
            macs=tuple(macs.get(name, 0) for name in names),
            runs=tuple((names[name], count) for name, count in runs),
        )

    def __len__(self) -> int:
        """Commands they are of, BEGIN and END not among them."""
        return sum(count for _, count in self.runs)

    def numbers(self) -> Iterator[int]:
        """Number of the operation of each command behind BEGIN."""
        return chain.from_iterable(repeat(number, count) for number, count in self.runs)

    def commands(self) -> Iterator[str]:
        """Name of the operation of each command behind BEGIN."""
        return (self.names[number] for number in self.numbers())

    def to_metadata(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "names": list(self.names),
            "macs": list(self.macs),
            "runs": [list(run) for run in self.runs],
        }

    @classmethod
    def from_metadata(cls, value: Mapping[str, Any]) -> OperationNames:
        """Read back what `to_metadata` gave.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            runs = tuple((int(number), int(count)) for number, count in value["runs"])
            found = cls(tuple(map(str, value["names"])), tuple(map(int, value["macs"])), runs)
        except (KeyError, TypeError, ValueError):
            raise ValueError("operations: must have names, macs and runs") from None
        count = len(found.names)
        if len(found.macs) != count or any(not 0 <= n < count or c < 1 for n, c in runs):
            raise ValueError(f"operations: runs and macs must fit {count} names")
        return found
