"""The driver: one protocol over registers and memory, whatever stands behind them."""

from sw.driver.device import Device
from sw.driver.errors import (
    DeviceError,
    DeviceFault,
    DeviceMismatch,
    DeviceTimeout,
    OutOfDeviceMemory,
)
from sw.driver.loaded import Loaded
from sw.driver.machine import RunResult
from sw.driver.runs import Outputs, Ticket
from sw.driver.transport import Transport

__all__ = [
    "Device",
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
