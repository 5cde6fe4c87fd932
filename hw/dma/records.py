"""What the DMA's ports carry."""

from amaranth.hdl import signed
from amaranth.lib import data

from tilewright.hw.commands import COMMAND_BYTES
from tilewright.hw.config import Config


def sp_address_bits(config: Config) -> int:
    """Width of a scratchpad word address."""
    return (config.sp_words - 1).bit_length()


class Transfer(data.StructLayout):
    """A LOAD or STORE command with every scalar resolved. Fields as in `tilewright.hw.commands`,
    besides:

    Attributes
    ----------
    address : u(axi_addr_width)
        base + offset + scalar, modulo 2^axi_addr_width.
    overflow : u1
        1: that sum is 2^axi_addr_width or more; the first run is then outside the window.
    base : u(axi_addr_width)
    limit : u(axi_addr_width + 1)
        First byte of the window, and the byte behind it (2^axi_addr_width at the most).
    length : u32, bytes
    runs, planes : u16
    run_stride, plane_stride : s32, bytes
    sp_addr, sp_chunk, sp_run, sp_plane : u16, words, modulo the memory's size
    half : u1
    index : u32
        Index of the command, for faults.
    """

    def __init__(self, config: Config) -> None:
        width = config.axi_addr_width
        super().__init__(
            {
                "address": width,
                "overflow": 1,
                "base": width,
                "limit": width + 1,
                "length": 32,
                "runs": 16,
                "planes": 16,
                "run_stride": signed(32),
                "plane_stride": signed(32),
                "sp_addr": 16,
                "sp_chunk": 16,
                "sp_run": 16,
                "sp_plane": 16,
                "half": 1,
                "index": 32,
            }
        )


class FetchStart(data.StructLayout):
    """Where a program lies.

    Attributes
    ----------
    address : u(axi_addr_width)
        First command, a multiple of 64.
    overflow : u1
        1: the sum that made `address` is 2^axi_addr_width or more.
    base, limit : as in `Transfer`
    count : u32, commands
    """

    def __init__(self, config: Config) -> None:
        width = config.axi_addr_width
        super().__init__(
            {"address": width, "overflow": 1, "base": width, "limit": width + 1, "count": 32}
        )


class Command(data.StructLayout):
    """A fetched command: `data`, 64 bytes little-endian, its `index` from 0, and whether it is the
    `last`.
    """

    def __init__(self) -> None:
        super().__init__({"data": 8 * COMMAND_BYTES, "index": 32, "last": 1})


class SpWrite(data.StructLayout):
    """A scratchpad write: word `addr`, `data`, and a `mask` bit for each half."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {"addr": sp_address_bits(config), "data": 8 * config.word_bytes, "mask": 2}
        )


class FaultRecord(data.StructLayout):
    """A fault: `valid` stays high until the engine is cleared.

    Attributes
    ----------
    valid : u1
    code : u4, `tilewright.hw.commands.Fault`
    index : u32, of the command
    address : u(axi_addr_width)
        The run's (WINDOW), the burst's (SLVERR, DECERR of data) or the command's (fetch).
    """

    def __init__(self, config: Config) -> None:
        super().__init__({"valid": 1, "code": 4, "index": 32, "address": config.axi_addr_width})


class Activity(data.StructLayout):
    """What an engine does in a cycle: one bit set while it holds a transfer, none otherwise.

    Attributes
    ----------
    busy : a beat moved
    wait_memory : none did, for want of the bus
    wait_port : none did, for want of the scratchpad port
    """

    def __init__(self) -> None:
        super().__init__({"busy": 1, "wait_memory": 1, "wait_port": 1})
