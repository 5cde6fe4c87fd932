"""Decoder, dispatchers, semaphores, transfer unit, registers and counters."""

import pytest

from tests.hw.shapes import shape
from tests.hw.wrappers import RegisterBench
from tilewright.hw.commands import Opcode
from tilewright.hw.control.dispatcher import IN_FLIGHT
from tilewright.hw.dma.records import Transfer
from tilewright.hw.generate import cell_verilog
from tilewright.sim.testbenches.units.cell import run_cell


def run(cell, tests, folder, config=None, **more):
    config = shape(4, 8) if config is None else config
    run_cell(config, cell, module="control", simulator="icarus", folder=folder, tests=tests, **more)


def test_decoder(tmp_path):
    run("tilewright_decoder", ["decoder_routes", "decoder_faults"], tmp_path, count=150)


@pytest.mark.slow
def test_decoder_much(tmp_path):
    run("tilewright_decoder", ["decoder_faults"], tmp_path, shape(4, 4, functions=()), count=5000)


@pytest.mark.parametrize(
    ("unit", "opcodes", "depth"),
    [("vector", (Opcode.VECTOR, Opcode.ROW), 1), ("load", (Opcode.LOAD,), 5)],
)
def test_dispatcher(unit, opcodes, depth, tmp_path):
    run(
        f"tilewright_dispatch_{unit}",
        ["dispatcher"],
        tmp_path,
        shape(4, 8, queue_depth=depth),
        opcodes=[int(opcode) for opcode in opcodes],
        in_flight=IN_FLIGHT + 1,
        count=40,
    )


def test_semaphores(tmp_path):
    run("tilewright_semaphores", ["semaphores"], tmp_path)


@pytest.mark.parametrize("width", [40, 64])
def test_transfer_unit(width, tmp_path):
    config = shape(4, 4, axi_addr_width=width)
    layout = {name: [field.offset, field.width] for name, field in Transfer(config)}
    run("tilewright_transfer_unit", ["transfer_unit"], tmp_path, config, transfer=layout)


def test_registers(tmp_path):
    config = shape(4, 8)
    cell = RegisterBench(config)
    run(cell.cell_name, ["registers"], tmp_path, config, text=cell_verilog(cell))
