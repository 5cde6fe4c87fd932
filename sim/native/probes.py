"""Nets the harness reads in every cycle to record spans, gathered in a module bound to the top.

The generated Verilog stays as it is; a simulator built without the module pays nothing for it.
"""

from tilewright.hw.commands import Opcode, Unit
from tilewright.sim.native.labels import field_slice

_OPCODES = {
    Unit.LOAD: Opcode.LOAD,
    Unit.MATMUL: Opcode.MATMUL,
    Unit.VECTOR: Opcode.VECTOR,
    Unit.STORE: Opcode.STORE,
}

_BUSY = {
    Unit.LOAD: "load_activity[0]",
    Unit.MATMUL: "matmul_busy",
    Unit.VECTOR: "vector_busy | vector_stall_row",
    Unit.STORE: "store_activity[0]",
}
"""What a unit works in: the counters `busy`, and `row` of the row unit."""


def _dispatch(unit: Unit, name: str) -> str:
    return f"dispatch_{unit.name.lower()}_{name}"


def _field(unit: Unit, name: str) -> str:
    """A field of the resolved command that the unit is offered."""
    return field_slice(_dispatch(unit, "command"), _OPCODES[unit], name)


def _bits(flags: list[str]) -> str:
    """One bit a unit, LOAD the lowest."""
    return "{" + ", ".join(reversed(flags)) + "}"


def _transfer(unit: Unit) -> dict[str, tuple[int, str]]:
    """What tells the beats of a transfer; of addresses and strides the low bits do."""
    region, scalar = _field(unit, "region"), _field(unit, "scalar")
    address = (
        f"registers_bases[{{{region}, 6'd0}} +: 16] + {_field(unit, 'offset')}"
        f" + ({_field(unit, 'scalar_on')} ? registers_scalars[{{{scalar}, 5'd0}} +: 16] : 16'd0)"
    )
    name = unit.name.lower()
    return {
        f"{name}_address": (16, address),
        f"{name}_length": (32, _field(unit, "length")),
        f"{name}_runs": (16, _field(unit, "runs")),
        f"{name}_planes": (16, _field(unit, "planes")),
        f"{name}_run_stride": (16, _field(unit, "run_stride")),
        f"{name}_plane_stride": (16, _field(unit, "plane_stride")),
    }


def probes(top: str) -> str:
    """Return SystemVerilog that binds the nets of `spans.h` to the module `top`."""
    taken = [f"{_dispatch(u, 'command_valid')} & {_dispatch(u, 'command_ready')}" for u in _BUSY]
    rows = " * ".join(f"64'({_field(Unit.MATMUL, name)})" for name in ("m", "kt", "nt"))
    nets = {
        "running": (1, "registers_status[0]"),
        "taken": (4, _bits(taken)),
        "retired": (4, _bits([_dispatch(unit, "retired") for unit in _BUSY])),
        "busy": (4, _bits(list(_BUSY.values()))),
        **{f"{u.name.lower()}_index": (32, f"32'({_dispatch(u, 'index')})") for u in _BUSY},
        "matmul_rows": (64, rows),
        **_transfer(Unit.LOAD),
        **_transfer(Unit.STORE),
    }
    lines = [f"module {top}_probes ("]
    lines += [f"    input wire [{width - 1}:0] {name}_net," for name, (width, _) in nets.items()]
    lines[-1] = lines[-1].rstrip(",")
    lines.append(");")
    for name, (width, _) in nets.items():
        lines.append(f"  wire [{width - 1}:0] {name} /* verilator public_flat_rd */ = {name}_net;")
    lines.append("endmodule")
    connections = ",\n  ".join(f".{name}_net({value})" for name, (_, value) in nets.items())
    lines.append(f"bind {top} {top}_probes probes (\n  {connections}\n);")
    return "\n".join(lines) + "\n"
