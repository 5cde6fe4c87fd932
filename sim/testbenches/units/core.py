"""The whole core under cocotb: an image run through its buses, memory compared bit by bit."""

import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from tilewright.hw.commands import Fault, Unit
from tilewright.hw.config import Config
from tilewright.hw.registers import CONTROL_START, REGISTERS, STATUS_DONE
from tilewright.sim.compare import compare
from tilewright.sim.image import Image
from tilewright.sim.testbenches.axi_memory import AxiMemory, Manners
from tilewright.sim.testbenches.runner import parameters, simulate_verilog
from tilewright.sim.verilog import verilog

_PERIOD = 10  # ns


def run_image(
    image: Image,
    *,
    simulator: str,
    folder: Path,
    text: str | None = None,
    timeout: int = 5_000_000,
    latency: int = 30,
    pause: float = 0.0,
    interleave: bool = False,
    seed: int = 0,
    rerun: str | None = None,
) -> None:
    """Run an image on the RTL of its configuration, under cocotb.

    Parameters
    ----------
    image : Image
    simulator : str
        "verilator" or "icarus".
    folder : Path
        Where files are written; best a temporary one.
    text : str, optional
        Verilog of the core, generated if not given.
    timeout : int
        Cycles from start to done at most.
    latency, pause, interleave
        As of `tilewright.sim.testbenches.axi_memory.Manners`.
    seed : int
        Of all that is random.
    rerun : str, optional
        The line to print with a mismatch.

    Raises
    ------
    RuntimeError
        When memory differs, the machine faults, or it takes too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "image.npz"
    image.save(path)
    simulate_verilog(
        verilog(image.config) if text is None else text,
        top="tilewright",
        module=__name__,
        simulator=simulator,
        folder=folder,
        values={
            "image": os.fspath(path.absolute()),
            "timeout": timeout,
            "latency": latency,
            "pause": pause,
            "interleave": interleave,
            "seed": seed,
            "rerun": rerun,
        },
    )


def _memory(dut: Any, config: Config, image: Image, values: dict[str, Any]) -> AxiMemory:
    content = image.memory()
    memory = AxiMemory(
        dut,
        origin=image.base,
        size=0,
        beat=config.axi_bytes,
        limits=(config.axi_max_burst, 2 * config.axi_outstanding),
        rng=np.random.default_rng(values["seed"]),
    )
    # One memory: what is stored is loaded again.
    memory.source = memory.target = content
    memory.manners = Manners(
        latency=values["latency"], pause=values["pause"], interleave=values["interleave"]
    )
    return memory


async def _clocked(dut: Any, memory: AxiMemory) -> None:
    while True:
        await RisingEdge(dut.clk)
        memory.step()


async def _read(master: Any, name: str) -> int:
    return int(await master.read_dword(REGISTERS[name].address))


@cocotb.test()
async def runs_the_image(dut: Any) -> None:
    """Registers, start, interrupt, and every byte that is expected."""
    values = parameters()
    image = Image.load(Path(values["image"]))
    dut.rst.value = 1
    memory = _memory(dut, image.config, image, values)
    Clock(dut.clk, _PERIOD, "ns").start()
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
    await ClockCycles(dut.clk, 8)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 2)
    # A breach of AXI's rules ends this task, and with it the test.
    cocotb.start_soon(_clocked(dut, memory))
    for address, value in image.registers():
        await master.write_dword(address, value)
    await master.write_dword(REGISTERS["CONTROL"].address, CONTROL_START)
    start = memory.cycle
    await First(RisingEdge(dut.irq), ClockCycles(dut.clk, values["timeout"]))
    took = memory.cycle - start
    status = await _read(master, "STATUS")
    record = await _read(master, "FAULT_CODE")
    if record:
        index = await _read(master, "FAULT_INDEX")
        low, high = await _read(master, "FAULT_ADDRESS_LO"), await _read(master, "FAULT_ADDRESS_HI")
        code, unit = Fault(record & 0xFF), Unit(record >> 8)
        raise AssertionError(
            f"{code.name} in unit {unit.name}, command {index}, address 0x{high << 32 | low:x}"
        )
    done = await _read(master, "COMMANDS")
    assert status == STATUS_DONE, f"STATUS 0x{status:x} after {took} cycles, {done} commands done"
    found = compare(
        image.expected,
        image.contents(memory.target),
        image.buffers,
        program=image.program,
        scalars=image.scalars,
        rerun=values["rerun"],
    )
    assert found.equal, str(found)
