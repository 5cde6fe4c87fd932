"""The driver: one protocol over registers and memory, whatever stands behind them."""

from tilewright.sw.driver.device import Device
from tilewright.sw.driver.errors import (
    DeviceClosed,
    DeviceError,
    DeviceFault,
    DeviceMismatch,
    DeviceTimeout,
    OutOfDeviceMemory,
)
from tilewright.sw.driver.loaded import Loaded
from tilewright.sw.driver.machine import RunResult
from tilewright.sw.driver.runs import Outputs, Ticket
from tilewright.sw.driver.transport import Transport

__all__ = [
    "Device",
    "DeviceClosed",
    "DeviceError",
    "DeviceFault",
    "DeviceMismatch",
    "DeviceTimeout",
    "Loaded",
    "OutOfDeviceMemory",
    "Outputs",
    "RunResult",
    "Ticket",
    "Transport",
]
