"""The driver: one protocol over registers and memory, whatever stands behind them."""

from sw.driver.device import (
    Device,
    DeviceError,
    DeviceFault,
    DeviceMismatch,
    DeviceTimeout,
    RunResult,
)
from sw.driver.transport import Transport

__all__ = [
    "Device",
    "DeviceError",
    "DeviceFault",
    "DeviceMismatch",
    "DeviceTimeout",
    "RunResult",
    "Transport",
]
