"""The allocator of a device's memory: first fit, and neighbours that are free become one gap."""

from bisect import bisect_left, insort

from tilewright.sw.driver.errors import OutOfDeviceMemory
from tilewright.sw.errors import InputError
from tilewright.sw.rounding import round_up

ALIGNMENT = 4096
"""Bytes blocks are aligned to: no burst that starts in one crosses into a neighbour's page."""


class Memory:
    """A range of addresses given out in blocks.

    Parameters
    ----------
    base, size : int
        First byte, and bytes.
    alignment : int
        Of blocks and their sizes, a power of two.
    """

    def __init__(self, base: int, size: int, alignment: int = ALIGNMENT) -> None:
        self.alignment = alignment
        first = self._up(base)
        self.total = max((base + size - first) // alignment * alignment, 0)
        # Address and bytes, by address; no two gaps touch.
        self._gaps: list[tuple[int, int]] = [(first, self.total)] if self.total else []
        self._blocks: dict[int, int] = {}

    def _up(self, value: int) -> int:
        return round_up(value, self.alignment)

    @property
    def free_bytes(self) -> int:
        """Bytes of all gaps."""
        return sum(size for _, size in self._gaps)

    @property
    def largest_gap(self) -> int:
        """Bytes of the largest block that can be had."""
        return max((size for _, size in self._gaps), default=0)

    @property
    def blocks(self) -> dict[int, int]:
        """Bytes of each block given out, by address."""
        return dict(self._blocks)

    def allocate(self, size: int) -> int:
        """Address of a block of at least `size` bytes, in the lowest gap that holds it.

        Raises
        ------
        OutOfDeviceMemory
            With what was wanted and what there is.
        """
        if size < 0:
            raise InputError(f"a block of {size} bytes: must be 0 or more")
        room = max(self._up(size), self.alignment)
        for index, (address, length) in enumerate(self._gaps):
            if length < room:
                continue
            if length == room:
                del self._gaps[index]
            else:
                self._gaps[index] = address + room, length - room
            self._blocks[address] = room
            return address
        raise OutOfDeviceMemory(
            f"out of device memory: {size} bytes wanted, {self.free_bytes} free, largest gap "
            f"{self.largest_gap} of {self.total}"
        )

    def room(self, address: int) -> int:
        """Bytes of the block at an address.

        Raises
        ------
        InputError
            If none was given out there.
        """
        try:
            return self._blocks[address]
        except KeyError:
            raise InputError(f"no block of device memory at 0x{address:x}") from None

    def free(self, address: int) -> None:
        """Take a block back.

        Raises
        ------
        InputError
            If none was given out there.
        """
        size = self.room(address)
        del self._blocks[address]
        index = bisect_left(self._gaps, (address, 0))
        if index < len(self._gaps) and self._gaps[index][0] == address + size:
            size += self._gaps.pop(index)[1]
        if index and sum(self._gaps[index - 1]) == address:
            address, before = self._gaps.pop(index - 1)
            size += before
        insort(self._gaps, (address, size))
