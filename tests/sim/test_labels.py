"""Names in waveforms: every state of the definitions, bound to nets that the Verilog has."""

import re

import pytest

from tilewright.hw.commands import Fault, Function, Opcode, Out, Post, RowOp, Unit, XMode
from tilewright.hw.config import preset_config
from tilewright.sim.native.labels import MatmulState, Run, VectorState, field_slice, labels
from tilewright.sw.driver.simulators import generated

TEXT = labels("tilewright")
SHOWN = {
    "run": Run,
    "fault": Fault,
    "fault_unit": Unit,
    "decoded_opcode": Opcode,
    "matmul_mode": XMode,
    "vector_function": Function,
    "vector_post": Post,
    "vector_out": Out,
    "row_op": RowOp,
    "matmul_state": MatmulState,
    "vector_state": VectorState,
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_member_has_its_name_and_value(name):
    kind = SHOWN[name]
    pattern = rf"typedef enum logic \[(\d+):0\] {{ ([^}}]*) }} {name}_t;"
    (found,) = re.findall(pattern, TEXT)
    width = int(found[0]) + 1
    members = dict(part.split(" = ") for part in found[1].split(", "))
    assert members == {f"{kind.__name__}_{m.name}": f"{width}'d{int(m)}" for m in kind}
    assert max(kind) < 1 << width


def test_nothing_else_is_shown():
    assert re.findall(r"^  (?!typedef|assign|input)\w+_t (\w+) ", TEXT, re.M) == list(SHOWN)


def test_every_net_is_in_the_verilog():
    verilog = generated(preset_config("tiny"))
    (bound,) = re.findall(r"bind tilewright tilewright_labels labels \((.*)\);", TEXT)
    assert bound.count("_bits(") == len(SHOWN)
    nets = re.findall(r"([a-z]\w+)(?:\[(\d+):\d+\])?(?=[,)}])", re.sub(r"\.\w+\(", "", bound))
    assert len(nets) > len(SHOWN)
    top = re.split(r"\bmodule tilewright\b", verilog)[1]
    for net, high in nets:
        declared = re.search(rf"^\s*(?:wire|reg) (?:\[(\d+):0\] )?{net}\b", top, re.M)
        assert declared is not None, net
        assert int(high or 0) <= int(declared[1] or 0), net


def test_unknown_field():
    assert field_slice("x", Opcode.MATMUL, "mode").startswith("x[")
    with pytest.raises(ValueError, match="MATMUL has no field function"):
        field_slice("x", Opcode.MATMUL, "function")
