"""Programs kept loaded as long as there is room for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from tilewright.sw.driver.errors import OutOfDeviceMemory
from tilewright.sw.driver.loaded import Loaded
from tilewright.sw.program import Executable

if TYPE_CHECKING:
    from tilewright.sw.driver.device import Device

PROGRAMS = 32
"""Programs kept; the one not used for longest goes first."""


class Programs:
    """Loaded programs by key.

    Parameters
    ----------
    device : Device
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._loaded: OrderedDict[Hashable, Loaded] = OrderedDict()

    @property
    def keys(self) -> list[Hashable]:
        """Keys of the programs that are loaded, the one used last at the end."""
        return list(self._loaded)

    def get(self, key: Hashable, compile_it: Callable[[], Executable]) -> Loaded:
        """The program of a key, compiled and loaded if it is not; others give way to it.

        Raises
        ------
        OutOfDeviceMemory
            If it does not fit even where it is alone.
        """
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        executable = compile_it()
        if len(self._loaded) >= PROGRAMS:
            self._drop()
        while True:
            try:
                loaded = self._device.load(executable)
            except OutOfDeviceMemory:
                if not self._loaded:
                    raise
                self._drop()
            else:
                self._loaded[key] = loaded
                return loaded

    def _drop(self) -> None:
        self._loaded.popitem(last=False)[1].free()

    def clear(self) -> None:
        """Free all of them."""
        while self._loaded:
            self._drop()
