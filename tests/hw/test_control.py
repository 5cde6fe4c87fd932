"""Front end, queues with tokens, holders, registers and counters."""

import pytest

from tests.hw.shapes import shape
from tests.hw.wrappers import RegisterBench
from tilewright.hw.commands import Opcode
from tilewright.hw.dma.records import Transfer
from tilewright.hw.generate import cell_verilog
from tilewright.sim.testbenches.units.cell import run_cell


def run(cell, tests, folder, config=None, **more):
    config = shape(4, 8) if config is None else config
    run_cell(config, cell, module="control", simulator="icarus", folder=folder, tests=tests, **more)


@pytest.mark.parametrize("width", [32, 40, 64])
def test_front_end(width, tmp_path):
    tests = ["front_end_routes"] + (["front_end_faults"] if width == 40 else [])
    config = shape(4, 8, axi_addr_width=width)
    run("tilewright_front_end", tests, tmp_path, config, count=100)


@pytest.mark.slow
def test_front_end_much(tmp_path):
    config = shape(4, 4, functions=())
    run("tilewright_front_end", ["front_end_faults"], tmp_path, config, count=5000)


@pytest.mark.parametrize("depth", [1, 5])
def test_issue(depth, tmp_path):
    config = shape(4, 8, queue_depth=depth)
    run("tilewright_issue", ["issue", "issue_faults"], tmp_path, config, count=80)


@pytest.mark.parametrize(
    ("unit", "opcodes"), [("matmul", (Opcode.MATMUL,)), ("vector", (Opcode.VECTOR, Opcode.ROW))]
)
def test_command_holder(unit, opcodes, tmp_path):
    codes = [int(opcode) for opcode in opcodes]
    run(f"tilewright_hold_{unit}", ["command_holder"], tmp_path, opcodes=codes, count=10)


@pytest.mark.parametrize("width", [32, 40, 64])
def test_transfer_holder(width, tmp_path):
    config = shape(4, 4, axi_addr_width=width)
    layout = {name: [field.offset, field.width] for name, field in Transfer(config)}
    run(
        "tilewright_hold_transfer",
        ["transfer_holder"],
        tmp_path,
        config,
        transfer=layout,
        count=10,
    )


@pytest.mark.parametrize("errors", [0, 1])
def test_registers(errors, tmp_path):
    config = shape(4, 8, register_errors=errors)
    cell = RegisterBench(config)
    run(cell.cell_name, ["registers"], tmp_path, config, text=cell_verilog(cell))
