"""Nets the harness reads in every cycle to record spans, gathered in a module bound to the top.

The generated Verilog stays as it is; a simulator built without the module pays nothing for it.
"""

from tilewright.hw.commands import Opcode, Unit
from tilewright.hw.config import Config
from tilewright.hw.dma.records import Transfer
from tilewright.hw.words import IDENTITY
from tilewright.sim.native.labels import field_slice

_BUSY = {
    Unit.LOAD: "load_activity[0]",
    Unit.MATMUL: "matmul_busy",
    Unit.VECTOR: "vector_busy | vector_stall_row",
    Unit.STORE: "store_activity[0]",
}
"""What a unit works in: the counters `busy`, and `row` of the row unit."""


def _bits(flags: list[str]) -> str:
    """One bit a unit, LOAD the lowest."""
    return "{" + ", ".join(reversed(flags)) + "}"


def _transfer(config: Config, unit: Unit) -> dict[str, tuple[int, str]]:
    """What tells the beats of a transfer; of addresses and strides the low bits do."""
    layout, name = Transfer(config), unit.name.lower()
    widths = {
        "address": 16,
        "length": 32,
        "runs": 16,
        "planes": 16,
        "run_stride": 16,
        "plane_stride": 16,
    }
    return {
        f"{name}_{part}": (width, f"dispatch_{name}_transfer[{layout[part].offset} +: {width}]")
        for part, width in widths.items()
    }


def probes(top: str, config: Config) -> str:
    """Return SystemVerilog that binds the nets of `spans.h` to the module `top`."""
    sizes = [field_slice("dispatch_matmul_matmul", Opcode.MATMUL, n) for n in ("m", "kt", "nt")]
    nets = {
        "running": (1, "registers_status[0]"),
        "taken": (4, "issue_command_valid & issue_command_ready"),
        "retired": (4, "issue_retired"),
        "busy": (4, _bits(list(_BUSY.values()))),
        "matmul_rows": (64, " * ".join(f"64'({size})" for size in sizes)),
        **_transfer(config, Unit.LOAD),
        **_transfer(config, Unit.STORE),
    }
    # Who the next command of a unit is goes by on its way into the unit's register.
    bus = {
        "clk": (1, "clk"),
        "bus_unit": (4, "issue_bus_unit"),
        "bus_number": (4, "issue_bus_number"),
        "bus_word": (32, "issue_bus_word"),
    }
    inputs = {**bus, **nets}
    lines = [f"module {top}_probes ("]
    lines += [f"    input wire [{width - 1}:0] {name}_net," for name, (width, _) in inputs.items()]
    lines[-1] = lines[-1].rstrip(",")
    lines.append(");")
    for name, (width, _) in nets.items():
        lines.append(f"  wire [{width - 1}:0] {name} /* verilator public_flat_rd */ = {name}_net;")
    for unit in _BUSY:
        name = f"{unit.name.lower()}_index"
        comes = f"bus_unit_net[{int(unit)}] && bus_number_net == {IDENTITY}"
        lines += [
            f"  reg [31:0] {name} /* verilator public_flat_rd */;",
            f"  always @(posedge clk_net) if ({comes}) {name} <= bus_word_net >> 8;",
        ]
    lines.append("endmodule")
    connections = ",\n  ".join(f".{name}_net({value})" for name, (_, value) in inputs.items())
    lines.append(f"bind {top} {top}_probes probes (\n  {connections}\n);")
    return "\n".join(lines) + "\n"
