"""Where two memories differ, in the words of the program: command, unit, buffer, element."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import COMMAND_BYTES, SCALARS, Opcode
from tilewright.hw.encoding import Command, decode

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix in a region.

    Parameters
    ----------
    region, offset : int
        Where its first byte is.
    shape : tuple of int
        (rows, columns), or any shape without panels.
    dtype : str
        NumPy's name, such as "int16".
    panel : int
        Columns of a panel: the panels follow each other, each all rows of its columns, the last
        filled up with columns that do not count. 0: rows follow each other.
    """

    region: int
    offset: int
    shape: tuple[int, ...]
    dtype: str
    panel: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.panel and len(self.shape) != 2:
            raise ValueError(f"shape = {self.shape}: must have rows and columns")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape as it is in memory."""
        if not self.panel:
            return self.shape
        rows, columns = self.shape
        return -(-columns // self.panel), rows, self.panel

    @property
    def size(self) -> int:
        """Bytes in memory, filling included."""
        return int(np.prod(self.stored)) * np.dtype(self.dtype).itemsize

    def read(self, contents: Mapping[int, Bytes]) -> npt.NDArray[Any]:
        """The matrix, out of the content of its region."""
        data = contents[self.region][self.offset : self.offset + self.size]
        if data.size != self.size:
            raise ValueError(f"{self}: the region ends after {contents[self.region].size} bytes")
        values = data.view(np.dtype(self.dtype).newbyteorder("<")).reshape(self.stored)
        if not self.panel:
            return values
        rows, columns = self.shape
        return values.transpose(1, 0, 2).reshape(rows, -1)[:, :columns]

    def places(self) -> npt.NDArray[np.int64]:
        """Offset of every byte of its elements, [elements, bytes of one]."""
        width = np.dtype(self.dtype).itemsize
        first = np.arange(int(np.prod(self.stored)), dtype=np.int64).reshape(self.stored)
        if self.panel:
            rows, columns = self.shape
            first = first.transpose(1, 0, 2).reshape(rows, -1)[:, :columns]
        return self.offset + first.reshape(-1, 1) * width + np.arange(width)

    def locate(self, element: tuple[int, ...]) -> int:
        """Offset of an element from the region's first byte."""
        if self.panel:
            row, column = element
            element = (column // self.panel, row, column % self.panel)
        index = int(np.ravel_multi_index(element, self.stored))
        return self.offset + index * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One element that is not what it must be.

    Attributes
    ----------
    name : str
        Of the buffer, or of the region where no buffer is.
    element : tuple of int
    region, offset : int
        Where its first byte is.
    expected, got : int
    command : int or None
        The last STORE that wrote it.
    operation : str
        What the command belongs to, which is what computed the value; "" where it is not known.
    """

    name: str
    element: tuple[int, ...]
    region: int
    offset: int
    expected: int
    got: int
    command: int | None
    operation: str = ""

    def __str__(self) -> str:
        source = "no STORE writes it" if self.command is None else f"command {self.command}"
        unit = "" if self.command is None else ", unit STORE"
        operation = f", of {self.operation}" if self.operation else ""
        index = ", ".join(map(str, self.element))
        return (
            f"{self.name}[{index}]: expected {self.expected}, got {self.got} "
            f"({source}{unit}{operation}; region {self.region} + 0x{self.offset:x})"
        )


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    mismatches : list of Mismatch
        The first of each buffer.
    counts : dict of str to (int, int)
        Elements that differ, and elements, of each buffer that differs.
    rerun : str or None
        The line that runs it again with a trace.
    """

    mismatches: list[Mismatch]
    counts: dict[str, tuple[int, int]]
    rerun: str | None = None

    @property
    def equal(self) -> bool:
        return not self.counts

    def __str__(self) -> str:
        if self.equal:
            return "equal in every bit"
        lines = [f"{name}: {bad} of {all_} differ" for name, (bad, all_) in self.counts.items()]
        lines += [f"  {mismatch}" for mismatch in self.mismatches]
        if self.rerun is not None:
            lines.append(f"run it again with a waveform: {self.rerun}")
        return "\n".join(lines)


def compare(
    expected: Mapping[int, Bytes],
    got: Mapping[int, Bytes],
    buffers: Mapping[str, Matrix] | None = None,
    *,
    program: bytes = b"",
    scalars: Mapping[int, int] | None = None,
    operations: Sequence[str] = (),
    limit: int = 8,
    rerun: str | None = None,
) -> Comparison:
    """Compare the contents of regions, every byte of those expected.

    Parameters
    ----------
    expected, got : mapping of int to uint8 array
        Content of regions.
    buffers : mapping of str to Matrix, optional
        What is in them; bytes of no buffer are compared too, and named by their region.
    program : bytes, optional
        To name the command that stored an element.
    scalars : mapping of int to int, optional
        Scalar registers the program ran with.
    operations : sequence of str, optional
        What each command behind BEGIN belongs to.
    limit : int
        Mismatches shown of each buffer.
    rerun : str, optional
        The line that runs it again with a trace.
    """
    mismatches: list[Mismatch] = []
    counts: dict[str, tuple[int, int]] = {}
    named = {region: np.zeros(data.size, dtype=bool) for region, data in expected.items()}
    writers: _Writers | None = None

    def show(name: str, element: tuple[int, ...], region: int, offset: int, pair: Any) -> None:
        nonlocal writers
        if writers is None:
            writers = _Writers(program, scalars or {})
        command = writers.find(region, offset)
        mismatches.append(
            Mismatch(
                name=name,
                element=element,
                region=region,
                offset=offset,
                expected=int(pair[0]),
                got=int(pair[1]),
                command=command,
                operation="" if command is None or not operations else operations[command - 1],
            )
        )

    for name, buffer in (buffers or {}).items():
        if buffer.region not in expected:
            continue
        one, other = buffer.read(expected), buffer.read(got)
        # What fills the last panel up is left to the comparison of bytes.
        named[buffer.region][buffer.places().reshape(-1)] = True
        bad = np.argwhere(one != other)
        if len(bad):
            counts[name] = (len(bad), one.size)
        for row in bad[:limit]:
            element = tuple(int(i) for i in row)
            offset = buffer.locate(element)
            show(name, element, buffer.region, offset, (one[element], other[element]))

    for region, data in expected.items():
        if got[region].size != data.size:
            raise ValueError(f"region {region}: {got[region].size} bytes, {data.size} expected")
        wrong = np.flatnonzero((data != got[region]) & ~named[region])
        if wrong.size:
            name = f"region {region}"
            counts[name] = (wrong.size, int(np.count_nonzero(~named[region])))
            for place in wrong[:limit]:
                at = int(place)
                show(name, (at,), region, at, (data[at], got[region][at]))
    return Comparison(mismatches, counts, rerun)


class _Writers:
    """The STOREs of a program, to find which wrote a byte."""

    def __init__(self, program: bytes, scalars: Mapping[int, int]) -> None:
        registers = dict.fromkeys(range(SCALARS), 0) | dict(scalars)
        self.stores: list[tuple[int, dict[str, int], int]] = []
        for index in range(len(program) // COMMAND_BYTES):
            data = program[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
            if data[0] != Opcode.STORE:
                continue
            item: Command = decode(data)
            fields = item.resolve(registers)
            more = registers[fields["scalar"]] if fields["scalar_on"] else 0
            self.stores.append((index, fields, fields["offset"] + more))

    def find(self, region: int, offset: int) -> int | None:
        """The last command that stores the byte."""
        for index, fields, start in reversed(self.stores):
            if fields["region"] == region and self._covers(fields, offset - start):
                return index
        return None

    @staticmethod
    def _covers(fields: dict[str, int], offset: int) -> bool:
        planes = np.arange(fields["planes"]) * fields["plane_stride"]
        runs = np.arange(fields["runs"]) * fields["run_stride"]
        into = offset - (planes[:, None] + runs[None, :])
        return bool(np.any((into >= 0) & (into < fields["length"])))
