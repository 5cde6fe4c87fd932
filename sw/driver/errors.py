"""What goes wrong with a machine.

What the user can mend is a `UserError` too (exit code 2), a run that went wrong a `ResultError`
(exit code 1).
"""

from tilewright import Error
from tilewright.hw.commands import Fault, Unit
from tilewright.sw.errors import ResultError, UserError


class DeviceError(Error, RuntimeError):
    """A machine cannot be used, or did not do what it was told."""


class DeviceMismatch(DeviceError, UserError):
    """What answers, or what is to be loaded, is not of this configuration and version."""


class OutOfDeviceMemory(DeviceError, UserError):
    """No gap of the device's memory is large enough; the message has the sizes."""


class DeviceTimeout(DeviceError, ResultError):
    """The machine did not answer within the cycles it was given."""


class DeviceFault(DeviceError, ResultError):
    """The machine latched a fault.

    Attributes
    ----------
    code : Fault
    unit : Unit
    index : int
        Command, BEGIN being 0.
    address : int
        DRAM address of a bus or window fault, else 0.
    command : str or None
        The command's listing, if the program has one of that index.
    """

    def __init__(
        self, code: Fault, unit: Unit, index: int, address: int, command: str | None
    ) -> None:
        self.code = code
        self.unit = unit
        self.index = index
        self.address = address
        self.command = command
        text = f"{code.name} in unit {unit.name}, command {index}"
        if command is not None:
            text += f" ({command})"
        if address:
            text += f", DRAM address 0x{address:x}"
        super().__init__(text)
