"""A core under cocotb that obeys another process: registers, memory, interrupt, reset.

The other end is `tilewright.sim.testbenches.transport.CocotbTransport`, which starts this module as
a program; it then runs itself as the testbench of the simulator that was built. Requests come over
a socket, one at a time: between two of them the simulation stands still.
"""

import json
import sys
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from tilewright.sim.errors import SimulationError, answered_error
from tilewright.sim.testbenches.axi_memory import AxiMemory, Manners
from tilewright.sim.testbenches.runner import PARAMETERS, parameters

_PERIOD = 10  # ns
_RESET = 8
"""Cycles of a reset."""


class Server:
    """The core with its memory, and what may be asked of it.

    Each public coroutine is a request; its name and arguments come over the socket.

    Parameters
    ----------
    dut : Any
        The module `tilewright`.
    values : dict
        beat, limits, memory (base and size), latency, pause, interleave and seed, see
        `tilewright.sim.testbenches.axi_memory`.
    """

    def __init__(self, dut: Any, values: dict[str, Any]) -> None:
        self._dut = dut
        self._values = values
        self._base, size = values["memory"]
        self._content = np.zeros(size, dtype=np.uint8)
        self._rng = np.random.default_rng(values["seed"])
        self._master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self._bus = self._new_bus()

    def _new_bus(self) -> AxiMemory:
        values = self._values
        memory = AxiMemory(
            self._dut,
            origin=self._base,
            size=0,
            beat=values["beat"],
            limits=tuple(values["limits"]),
            rng=self._rng,
        )
        # One memory: what is stored is loaded again.
        memory.source = memory.target = self._content
        memory.manners = Manners(
            latency=values["latency"], pause=values["pause"], interleave=values["interleave"]
        )
        return memory

    async def clocked(self) -> None:
        """Move the bus on; a breach of AXI's rules ends this task, and with it the test."""
        while True:
            await RisingEdge(self._dut.clk)
            if not int(self._dut.rst.value):
                self._bus.step()

    async def reset(self) -> None:
        """Assert `rst`; the bus forgets what was in flight, memory stays."""
        self._dut.rst.value = 1
        await ClockCycles(self._dut.clk, _RESET)
        self._bus = self._new_bus()
        self._dut.rst.value = 0
        await ClockCycles(self._dut.clk, 2)

    async def read32(self, address: int) -> int:
        """Read a register."""
        answer = await self._master.read(address, 4)
        if answer.resp != AxiResp.OKAY:
            raise answered_error("reading", address)
        return int.from_bytes(answer.data, "little")

    async def write32(self, address: int, value: int) -> None:
        """Write a register."""
        answer = await self._master.write(address, value.to_bytes(4, "little"))
        if answer.resp != AxiResp.OKAY:
            raise answered_error("writing", address)

    async def wait(self, cycles: int) -> bool:
        """Let cycles pass, up to the interrupt; whether it is high."""
        irq = self._dut.irq
        if not int(irq.value) and cycles:
            await First(RisingEdge(irq), ClockCycles(self._dut.clk, cycles))
        return bool(int(irq.value))

    def _slice(self, address: int, length: int) -> Any:
        start = address - self._base
        if start < 0 or start + length > len(self._content):
            raise ValueError(f"{length} bytes at 0x{address:x} are not all in memory")
        return self._content[start : start + length]

    async def read_memory(self, address: int, length: int) -> bytes:
        """Bytes of the memory; takes no cycles."""
        return bytes(self._slice(address, length))

    async def write_memory(self, address: int, data: bytes) -> None:
        """Set bytes of the memory; takes no cycles."""
        self._slice(address, len(data))[:] = np.frombuffer(data, dtype=np.uint8)


@cocotb.test()
async def serves(dut: Any) -> None:
    """Obey until the other process closes the connection."""
    values = parameters()
    dut.rst.value = 1
    server = Server(dut, values)
    Clock(dut.clk, _PERIOD, "ns").start()
    connection: Connection = Client(values["address"], authkey=bytes.fromhex(values["key"]))
    cocotb.start_soon(server.clocked())
    await server.reset()
    while True:
        # Blocks the simulator: time stands still until somebody asks.
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, await getattr(server, name)(*arguments)
        except (ValueError, SimulationError) as error:
            answer = False, error
        connection.send(answer)


def main() -> None:
    """Run the simulator in `build` with this module as its testbench; see `CocotbTransport`."""
    from cocotb_tools.runner import get_runner

    from tilewright.sim.toolchain import build_environment

    values = json.loads(sys.argv[1])
    folder = Path(values.pop("folder"))
    with build_environment():
        get_runner(values["simulator"]).test(
            hdl_toplevel="tilewright",
            hdl_toplevel_lang="verilog",
            test_module="tilewright.sim.testbenches.serve",
            build_dir=values["build"],
            test_dir=folder,
            results_xml=str(folder / "results.xml"),
            extra_env={
                PARAMETERS: json.dumps(values),
                "COCOTB_LOG_LEVEL": "WARNING",
                "COCOTB_ANSI_OUTPUT": "0",
            },
        )


if __name__ == "__main__":
    main()
