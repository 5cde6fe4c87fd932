"""DRAM as the simulator sees it: NumPy buffers at addresses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class Dram:
    """A 64-bit address space in which buffers lie; between them is nothing.

    The buffers are the caller's: what the machine stores is seen there.
    """

    def __init__(self) -> None:
        self.buffers: dict[int, Bytes] = {}

    def attach(self, base: int, buffer: Bytes) -> None:
        """Let a buffer lie at an address.

        Raises
        ------
        ValueError
            If it is not a contiguous array of bytes, or lies over another.
        """
        if buffer.dtype != np.uint8 or buffer.ndim != 1 or not buffer.flags.c_contiguous:
            raise ValueError(f"buffer {buffer.dtype} {buffer.shape}: must be contiguous uint8 [n]")
        if not 0 <= base <= (1 << 64) - buffer.size:
            raise ValueError(f"base = {base:#x}: {buffer.size} bytes must end below 2^64")
        for other, old in self.buffers.items():
            if base < other + old.size and other < base + buffer.size:
                raise ValueError(f"buffer at {base:#x} overlaps the one at {other:#x}")
        self.buffers[base] = buffer

    def find(self, first: int, last: int) -> tuple[Bytes, int] | None:
        """Buffer that holds bytes `first` to `last`, and where in it `first` is."""
        for base, buffer in self.buffers.items():
            if base <= first and last < base + buffer.size:
                return buffer, first - base
        return None

    def read(self, address: int, length: int) -> bytes:
        """Copy of `length` bytes; ValueError where nothing is."""
        buffer, offset = self._range(address, length)
        return buffer[offset : offset + length].tobytes()

    def write(self, address: int, data: bytes | Bytes) -> None:
        """Put bytes; ValueError where nothing is."""
        values = np.frombuffer(bytes(data), dtype=np.uint8)
        buffer, offset = self._range(address, len(values))
        buffer[offset : offset + len(values)] = values

    def _range(self, address: int, length: int) -> tuple[Bytes, int]:
        found = self.find(address, address + max(length, 1) - 1)
        if found is None:
            raise ValueError(f"{length} bytes at {address:#x}: no buffer holds them")
        return found

    def top(self) -> int:
        """One behind the highest byte."""
        return max((base + buffer.size for base, buffer in self.buffers.items()), default=0)

    def snapshot(self) -> dict[int, Bytes]:
        """Copy of everything, by base address."""
        return {base: buffer.copy() for base, buffer in self.buffers.items()}

    def difference(self, other: Dram | dict[int, Bytes], *, limit: int = 8) -> str | None:
        """Where this memory and another (or a snapshot) differ, in words; None when they do not."""
        theirs = other.buffers if isinstance(other, Dram) else other
        shapes = {base: buffer.size for base, buffer in self.buffers.items()}
        if shapes != {base: buffer.size for base, buffer in theirs.items()}:
            raise ValueError("the two memories must have the same layout")
        lines: list[str] = []
        count = 0
        for base in sorted(self.buffers):
            unequal = np.flatnonzero(self.buffers[base] != theirs[base])
            count += unequal.size
            for place in unequal[: max(limit - len(lines), 0)]:
                lines.append(
                    f"{base + int(place):#x}: {int(self.buffers[base][place]):#04x} here, "
                    f"{int(theirs[base][place]):#04x} there"
                )
        return f"{count} bytes differ: " + "; ".join(lines) if count else None
