"""Cells that join a few of the machine's, where one alone would need half of it modelled."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.config import Config
from tilewright.hw.control.counters import Counters
from tilewright.hw.control.register_file import RegisterFile
from tilewright.hw.memories.accumulator import Accumulators
from tilewright.hw.systolic.matmul import MatmulUnit

JOINED = {
    "sums": "sums",
    "sum_valid": "valid",
    "sum_accumulate": "accumulate",
    "sum_address": "address",
    "sum_top": "top",
    "sum_top_first": "top_first",
    "sum_top_left": "top_left",
    "sum_top_stat": "top_stat",
}


class MatmulBench(Cell):
    """MATMUL unit with its accumulators; `acc_read_*` is the vector unit's port, `top_*` the row
    table's.
    """

    def __init__(self, config: Config) -> None:
        self.cell_name = "matmul_bench"
        self.unit, self.accumulators = MatmulUnit(config), Accumulators(config)
        self.outer = {
            name: member
            for name, member in self.unit.signature.members.items()
            if name not in JOINED
        }
        self.reader = {
            name if name.startswith("top") else f"acc_{name}": member
            for name, member in self.accumulators.signature.members.items()
            if name not in JOINED.values()
        }
        super().__init__({**self.outer, **self.reader})

    def cells(self) -> list[Cell]:
        return [self.unit, self.accumulators]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        members = self.unit.signature.members
        nets = {name: Signal(members[name].shape, name=name) for name in JOINED}
        assert all(members[name].flow == Out for name in JOINED)
        place(m, "unit", self.unit, **nets, **{name: getattr(self, name) for name in self.outer})
        place(
            m,
            "accumulators",
            self.accumulators,
            **{JOINED[name]: net for name, net in nets.items()},
            **{name.removeprefix("acc_"): getattr(self, name) for name in self.reader},
        )
        return m


class RegisterBench(Cell):
    """Register file with the counters it reads."""

    SHARED = {f"counter_{name}": name for name in ("select", "read", "there", "value")}

    def __init__(self, config: Config) -> None:
        self.cell_name = "register_bench"
        self.registers, self.counters = RegisterFile(config), Counters()
        members = {
            name: member
            for name, member in self.registers.signature.members.items()
            if name not in self.SHARED
        }
        self.count_members = {
            name: member
            for name, member in self.counters.signature.members.items()
            if name not in self.SHARED.values()
        }
        self.own = list(members)
        super().__init__({**members, **self.count_members})

    def cells(self) -> list[Cell]:
        return [self.registers, self.counters]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        members = self.registers.signature.members
        nets = {name: Signal(members[name].shape, name=name) for name in self.SHARED}
        place(
            m,
            "registers",
            self.registers,
            **nets,
            **{name: getattr(self, name) for name in self.own},
        )
        place(
            m,
            "counters",
            self.counters,
            **{self.SHARED[name]: net for name, net in nets.items()},
            **{name: getattr(self, name) for name in self.count_members},
        )
        return m
