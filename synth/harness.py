"""A harness of two shift registers, so that place and route sees a core and not its pins.

In a chip the bus goes to other logic; here hundreds of pins all around the device would pull the
core apart, and their unregistered paths would take the tool's effort. Each input of the core is a
flip-flop of a chain fed by one pin, each output goes into a chain of exclusive ors that ends at
another: nothing is constant and nothing unused, so nothing can be dropped.
"""

import json
from pathlib import Path
from typing import Any

NAME = "harness"
CLOCK = "clk"

_FF = {
    # Yosys writes a blank behind strings that look like numbers.
    "CEMUX": "1 ",
    "CLKMUX": "CLK",
    "GSR": "DISABLED",
    "LSRMUX": "LSR",
    "REGSET": "RESET",
    "SRMODE": "LSR_OVER_CE",
}
_XOR = {"INIT": "0110" * 4}  # of A and B


def _cell(
    kind: str, parameters: dict[str, str], inputs: dict[str, Any], outputs: dict[str, Any]
) -> dict[str, Any]:
    return {
        "hide_name": 0,
        "type": kind,
        "parameters": parameters,
        "attributes": {},
        "port_directions": {
            **dict.fromkeys(inputs, "input"),
            **dict.fromkeys(outputs, "output"),
        },
        "connections": {port: [bit] for port, bit in {**inputs, **outputs}.items()},
    }


def harness(ports: dict[str, Any], top: str) -> dict[str, Any]:
    """Return the module, as Yosys writes it to JSON, around a module with these ports."""
    clock, first, last = 2, 3, 4
    free = 5
    cells: dict[str, Any] = {}
    connections: dict[str, list[int]] = {}
    bit_in = first
    for name, port in ports.items():
        if port["direction"] != "input":
            continue
        if name == CLOCK:
            connections[name] = [clock]
            continue
        connections[name] = []
        for _ in port["bits"]:
            cells[f"in_{free}"] = _cell(
                "TRELLIS_FF", _FF, {"CLK": clock, "DI": bit_in, "LSR": "0"}, {"Q": free}
            )
            connections[name].append(free)
            bit_in = free
            free += 1
    chain: int = bit_in
    for name, port in ports.items():
        if port["direction"] != "output":
            continue
        connections[name] = []
        for _ in port["bits"]:
            out, mixed, held = free, free + 1, free + 2
            free += 3
            connections[name].append(out)
            cells[f"mix_{out}"] = _cell(
                "LUT4", _XOR, {"A": out, "B": chain, "C": "0", "D": "0"}, {"Z": mixed}
            )
            cells[f"out_{out}"] = _cell(
                "TRELLIS_FF", _FF, {"CLK": clock, "DI": mixed, "LSR": "0"}, {"Q": held}
            )
            chain = held
    cells["out_pin"] = _cell(
        "TRELLIS_FF", _FF, {"CLK": clock, "DI": chain, "LSR": "0"}, {"Q": last}
    )
    cells["core"] = {
        "hide_name": 0,
        "type": top,
        "parameters": {},
        "attributes": {},
        "port_directions": {name: port["direction"] for name, port in ports.items()},
        "connections": connections,
    }
    pins = {
        CLOCK: {"direction": "input", "bits": [clock]},
        "in": {"direction": "input", "bits": [first]},
        "out": {"direction": "output", "bits": [last]},
    }
    return {
        "attributes": {"top": f"{1:032b}"},
        "ports": pins,
        "cells": cells,
        "netnames": {
            name: {"hide_name": 0, "bits": pin["bits"], "attributes": {}}
            for name, pin in pins.items()
        },
    }


def add_harness(netlist: Path, top: str, result: Path) -> int:
    """Write a netlist with the harness as its top; return the harness's flip-flops."""
    document = json.loads(netlist.read_text(encoding="utf-8"))
    modules = document["modules"]
    modules[top]["attributes"].pop("top", None)
    modules[NAME] = harness(modules[top]["ports"], top)
    result.write_text(json.dumps(document), encoding="utf-8")
    return sum(cell["type"] == "TRELLIS_FF" for cell in modules[NAME]["cells"].values())
