"""Names in waveforms: opcodes, modes and states beside the numbers of the generated Verilog.

The generated Verilog is plain Verilog-2001 and knows numbers only. For waveforms, a module of
SystemVerilog enumerations is bound to the top; it drives nothing. FST files carry the names, and
viewers show them.
"""

import enum

from tilewright.hw.commands import (
    COMMAND_LAYOUTS,
    Fault,
    Function,
    Opcode,
    Out,
    Post,
    RowOp,
    Unit,
    XMode,
)


class Run(enum.IntEnum):
    """STATUS bits of the run, lowest first."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    FAULT = 4
    RESETTING = 8
    FAULT_RESETTING = 12


def field_slice(net: str, opcode: Opcode, name: str) -> str:
    """Bits of a field in the resolved command of a unit, where fields follow each other."""
    place = 0
    for field in COMMAND_LAYOUTS[opcode].values():
        if field.name == name:
            return f"{net}[{place + field.width - 1}:{place}]"
        place += field.width
    raise ValueError(f"{opcode.name} has no field {name}")


# Label, enumeration, width, and the nets of the top it shows.
_LABELS: tuple[tuple[str, type[enum.IntEnum], int, str], ...] = (
    ("run", Run, 4, "registers_status"),
    ("fault", Fault, 4, "registers_fault_code"),
    ("fault_unit", Unit, 3, "registers_fault_unit"),
    ("decoded_opcode", Opcode, 8, "front_end_command[7:0]"),
    ("matmul_mode", XMode, 3, field_slice("dispatch_matmul_matmul", Opcode.MATMUL, "mode")),
    (
        "vector_function",
        Function,
        3,
        field_slice("dispatch_vector_vector", Opcode.VECTOR, "function"),
    ),
    ("vector_post", Post, 2, field_slice("dispatch_vector_vector", Opcode.VECTOR, "post")),
    ("vector_out", Out, 3, field_slice("dispatch_vector_vector", Opcode.VECTOR, "out")),
    ("row_op", RowOp, 2, field_slice("dispatch_vector_row", Opcode.ROW, "op")),
)


def _activity(prefix: str) -> str:
    flags = {
        "matmul": ("matmul_busy", "matmul_stall_weights", "matmul_stall_hazard", "matmul_draining"),
        "vector": ("vector_busy", "vector_stall_operand", "vector_stall_row", "vector_draining"),
    }[prefix]
    return "{" + ", ".join(reversed(flags)) + "}"


class MatmulState(enum.IntEnum):
    """What the MATMUL unit does, by its flags: the lowest one set counts."""

    IDLE = 0
    BUSY = 1
    WEIGHTS = 2
    HAZARD = 4
    DRAIN = 8


class VectorState(enum.IntEnum):
    """What the VECTOR unit does, by its flags."""

    IDLE = 0
    BUSY = 1
    OPERAND = 2
    ROW = 4
    DRAIN = 8


def labels(top: str) -> str:
    """Return SystemVerilog that binds readable names to the module `top`."""
    rows: list[tuple[str, type[enum.IntEnum], int, str]] = [
        *_LABELS,
        ("matmul_state", MatmulState, 4, _activity("matmul")),
        ("vector_state", VectorState, 4, _activity("vector")),
    ]
    lines = [f"module {top}_labels ("]
    lines += [f"    input wire [{width - 1}:0] {name}_bits," for name, _, width, _ in rows]
    lines[-1] = lines[-1].rstrip(",")
    lines.append(");")
    for name, kind, width, _ in rows:
        members = ", ".join(f"{kind.__name__}_{m.name} = {width}'d{int(m)}" for m in kind)
        lines.append(f"  typedef enum logic [{width - 1}:0] {{ {members} }} {name}_t;")
        value = f"{name}_bits"
        if kind in (MatmulState, VectorState):
            value = f"{value} & (~{value} + {width}'d1)"
        lines.append(f"  {name}_t {name} /* verilator public_flat_rd */;")
        lines.append(f"  assign {name} = {name}_t'({value});")
    lines.append("endmodule")
    connections = ", ".join(f".{name}_bits({net})" for name, _, _, net in rows)
    lines.append(f"bind {top} {top}_labels labels ({connections});")
    return "\n".join(lines) + "\n"
