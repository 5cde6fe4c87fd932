"""The whole machine: units, memories, DMA, control, registers."""

from typing import Any

from amaranth.hdl import Cat, ClockDomain, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, Unwarned, place
from tilewright.hw.commands import Fault, Opcode, Unit
from tilewright.hw.config import Config, ConfigError
from tilewright.hw.control.counters import Counters
from tilewright.hw.control.front_end import FrontEnd
from tilewright.hw.control.holders import CommandHolder, TransferHolder
from tilewright.hw.control.issue import Issue
from tilewright.hw.control.register_file import RegisterFile
from tilewright.hw.dma.axi import connect_flat, flat_members
from tilewright.hw.dma.dma import Dma
from tilewright.hw.dma.records import Transfer
from tilewright.hw.manifest import manifest_hash
from tilewright.hw.memories.accumulator import Accumulators
from tilewright.hw.memories.row_table import RowTable
from tilewright.hw.memories.scratchpad import Scratchpad
from tilewright.hw.registers import COUNTERS
from tilewright.hw.systolic.matmul import MatmulUnit
from tilewright.hw.vector.unit import VectorUnit

ACTIVE_HIGH, ACTIVE_LOW = "active-high", "active-low"
RESETS = {ACTIVE_HIGH: "rst", ACTIVE_LOW: "rst_n"}
"""Polarities of the top's reset, and the name of its port; either is synchronous."""


class Tilewright(Unwarned, wiring.Component):
    """The accelerator; ports as in `docs/architecture.md`.

    A run: CONTROL.start fetches the program of region 0; the decoder hands commands to the
    dispatchers of four units; END completes when all others have. A fault latches its record, stops
    dispatch and the DMA's new bursts; CONTROL.soft_reset drains the bus, then clears the machine
    (the rw registers and the memories keep their contents).

    Parameters
    ----------
    config : Config
    reset : str
        Polarity of the top's reset port, a key of `RESETS`.
    """

    def __init__(self, config: Config, *, reset: str = ACTIVE_HIGH) -> None:
        if reset not in RESETS:
            raise ConfigError(f"reset must be {' or '.join(RESETS)}, got {reset!r}")
        self.config = config
        self.reset = reset
        self.registers = RegisterFile(config)
        self.front_end = FrontEnd(config, digest=manifest_hash(config))
        self.issue = Issue(config)
        self.counters = Counters()
        self.matmul = MatmulUnit(config)
        self.vector = VectorUnit(config)
        self.scratchpad = Scratchpad(config)
        self.accumulators = Accumulators(config)
        self.row_table = RowTable(config)
        self.transfer_holder = TransferHolder(config)
        self.holders: dict[Unit, Cell] = {
            Unit.LOAD: self.transfer_holder,
            Unit.MATMUL: CommandHolder("matmul", (Opcode.MATMUL,)),
            Unit.VECTOR: CommandHolder("vector", (Opcode.VECTOR, Opcode.ROW)),
            Unit.STORE: self.transfer_holder,
        }
        super().__init__(
            {
                "clk": In(1),
                RESETS[reset]: In(1),
                **flat_members(config),
                **self.registers.bus,
                "irq": Out(1),
            },
        )

    def cells(self) -> list[Cell]:
        """Return the cells the top places."""
        return [
            self.registers,
            self.front_end,
            self.issue,
            self.counters,
            self.matmul,
            self.vector,
            self.scratchpad,
            self.accumulators,
            self.row_table,
            *self.holders.values(),
        ]

    def _clocked(self, m: Module) -> ClockDomain:
        """The domain of the ports: the clock is the port itself, so no simulator sees it later."""
        domain = ClockDomain("sync")
        domain.clk = self.clk
        if self.reset == ACTIVE_LOW:
            m.d.comb += domain.rst.eq(~self.rst_n)
        else:
            domain.rst = self.rst
        return domain

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.domains.sync = self._clocked(m)

        def put(name: str, cell: Cell, reset: Value | None = None) -> dict[str, Signal]:
            """Place a cell; its members become signals of a net."""
            net = {
                key: Signal(member.shape, name=f"{name}_{key}")
                for key, member in cell.signature.members.items()
            }
            place(m, name, cell, reset=clear if reset is None else reset, **net)
            return net

        # --- The state of the run.
        running, finished, resetting, irq_pending = Signal(), Signal(), Signal(), Signal()
        clear = Signal()  # soft reset of everything but rw registers
        halt = Signal()
        faulted = Signal()
        fault_code, fault_unit = Signal(4), Signal(3)
        fault_index = Signal(32, reset_less=True)
        fault_address = Signal(64, reset_less=True)
        starts = Signal()

        m.submodules.dma = dma = Dma(config)
        connect_flat(m, config, dma.axi, self)

        registers = {
            name: Signal(member.shape, name=f"registers_{name}")
            for name, member in self.registers.signature.members.items()
            if name not in self.registers.bus
        }
        place(
            m,
            "registers",
            self.registers,
            **registers,
            **{name: getattr(self, name) for name in self.registers.bus},
        )
        # They remember END, faults and tokens: a run begins with fresh ones.
        front_end = put("front_end", self.front_end, reset=clear | starts)
        issue = put("issue", self.issue, reset=clear | starts)
        counters = put("counters", self.counters)
        matmul = put("matmul", self.matmul)
        vector = put("vector", self.vector)
        scratchpad = put("scratchpad", self.scratchpad)
        accumulators = put("accumulators", self.accumulators)
        row_table = put("row_table", self.row_table)
        program = put("program", self.transfer_holder)
        holders = {
            unit: put(f"dispatch_{unit.name.lower()}", cell) for unit, cell in self.holders.items()
        }

        # --- Front end.
        place_of = data.View(Transfer(config), program["transfer"])
        resolves, fetch_start = Signal(), Signal()
        m.d.comb += [
            front_end["start"].eq(resolves),
            front_end["count"].eq(registers["program_count"]),
            front_end["command"].eq(dma.command.payload.data),
            front_end["index"].eq(dma.command.payload.index),
            front_end["last_command"].eq(dma.command.payload.last),
            front_end["command_valid"].eq(dma.command.valid & ~halt),
            dma.command.ready.eq(front_end["command_ready"]),
            registers["resolve"].eq(front_end["register"]),
            front_end["value"].eq(registers["resolved"]),
            registers["busy"].eq(running),
            program["valid"].eq(front_end["program_valid"]),
            program["number"].eq(front_end["number"]),
            program["word"].eq(front_end["word"]),
            dma.fetch.valid.eq(fetch_start & ~halt),
            dma.fetch.payload.address.eq(place_of.address),
            dma.fetch.payload.overflow.eq(place_of.overflow),
            dma.fetch.payload.base.eq(place_of.base),
            dma.fetch.payload.limit.eq(place_of.limit),
            dma.fetch.payload.count.eq(registers["program_count"]),
        ]
        with m.If(dma.fetch.valid & dma.fetch.ready):
            m.d.sync += fetch_start.eq(0)
        with m.If(front_end["program_ready"]):
            m.d.sync += fetch_start.eq(1)

        # --- Queues, tokens and units.
        m.d.comb += [
            *(
                issue[name].eq(front_end[name])
                for name in ("word", "number", "unit", "word_valid", "commit")
            ),
            front_end["room"].eq(issue["room"]),
            issue["halt"].eq(halt),
        ]
        for unit, net in holders.items():
            m.d.comb += [
                net["valid"].eq(issue["bus_unit"][unit]),
                net["number"].eq(issue["bus_number"]),
                net["word"].eq(issue["bus_word"]),
            ]
        for unit, stream, done in (
            (Unit.LOAD, dma.load, dma.load_done),
            (Unit.STORE, dma.store, dma.store_done),
        ):
            m.d.comb += [
                stream.payload.eq(data.View(Transfer(config), holders[unit]["transfer"])),
                stream.valid.eq(issue["command_valid"][unit]),
                issue["command_ready"][unit].eq(stream.ready),
                issue["done"][unit].eq(done),
            ]
        for unit, worker in ((Unit.MATMUL, matmul), (Unit.VECTOR, vector)):
            m.d.comb += [
                worker["command"].eq(holders[unit][unit.name.lower()]),
                worker["command_valid"].eq(issue["command_valid"][unit]),
                issue["command_ready"][unit].eq(worker["command_ready"]),
                issue["done"][unit].eq(worker["done"]),
            ]
        m.d.comb += [
            vector["row_command"].eq(holders[Unit.VECTOR]["row"]),
            vector["is_row"].eq(holders[Unit.VECTOR]["is_last"]),
        ]

        # --- Memories.
        for reader, net, prefix in (
            ("feeder", matmul, "feeder_read"),
            ("loader", matmul, "loader_read"),
            ("vector", vector, "sp_read"),
        ):
            m.d.comb += [
                scratchpad[f"{reader}_read_valid"].eq(net[f"{prefix}_valid"]),
                scratchpad[f"{reader}_read_address"].eq(net[f"{prefix}_address"]),
                net[f"{prefix}_data"].eq(scratchpad[f"{reader}_read_data"]),
            ]
            if f"{prefix}_ready" in net:
                m.d.comb += net[f"{prefix}_ready"].eq(scratchpad[f"{reader}_read_ready"])
        half_mask = len(scratchpad["dma_write_mask"]) // 2
        m.d.comb += [
            scratchpad["dma_read_valid"].eq(dma.sp_read.valid),
            scratchpad["dma_read_address"].eq(dma.sp_read.payload),
            dma.sp_read.ready.eq(scratchpad["dma_read_ready"]),
            dma.sp_read_data.eq(scratchpad["dma_read_data"]),
            scratchpad["dma_write_valid"].eq(dma.sp_write.valid),
            scratchpad["dma_write_address"].eq(dma.sp_write.payload.addr),
            scratchpad["dma_write_data"].eq(dma.sp_write.payload.data),
            scratchpad["dma_write_mask"].eq(
                Cat(bit.replicate(half_mask) for bit in dma.sp_write.payload.mask)
            ),
            dma.sp_write.ready.eq(scratchpad["dma_write_ready"]),
            *(
                scratchpad[f"vector_write_{part}"].eq(vector[f"sp_write_{part}"])
                for part in ("valid", "address", "data", "mask")
            ),
            accumulators["sums"].eq(matmul["sums"]),
            accumulators["valid"].eq(matmul["sum_valid"]),
            accumulators["accumulate"].eq(matmul["sum_accumulate"]),
            accumulators["address"].eq(matmul["sum_address"]),
            *(
                accumulators[name].eq(matmul[f"sum_{name}"])
                for name in ("top", "top_first", "top_left", "top_stat")
            ),
            accumulators["top_read_data"].eq(row_table["top_read_data"]),
            accumulators["read_valid"].eq(vector["acc_read_valid"]),
            accumulators["read_address"].eq(vector["acc_read_address"]),
            vector["acc_read_ready"].eq(accumulators["read_ready"]),
            vector["acc_read_data"].eq(accumulators["read_data"]),
            row_table["feeder_scale"].eq(matmul["scale_address"]),
            matmul["scale_m"].eq(row_table["feeder_m"]),
            matmul["scale_e"].eq(row_table["feeder_e"]),
            row_table["vector_scale"].eq(vector["scale_address"]),
            vector["scale_m"].eq(row_table["vector_m"]),
            vector["scale_e"].eq(row_table["vector_e"]),
        ]
        for name, member in self.row_table.signature.members.items():
            if name.startswith("top") and member.flow == In:
                m.d.comb += row_table[name].eq(accumulators[name])
            if name.startswith(("feeder", "vector", "top")):
                continue
            if member.flow == Out:
                m.d.comb += vector[name].eq(row_table[name])
            else:
                m.d.comb += row_table[name].eq(vector[name])

        # --- Completion.
        completed = Signal(32)
        ends = Signal()
        m.d.comb += ends.eq(running & ~faulted & ~resetting & front_end["ended"] & issue["empty"])
        with m.If(front_end["began"] | issue["retired"].any() | ends):
            m.d.sync += completed.eq(completed + 1)

        # --- Faults, in the order of their priority.
        # Both a cycle late: what moved, and who waits.
        moves = Cat(
            dma.axi.r.valid & dma.axi.r.ready,
            dma.axi.w.valid & dma.axi.w.ready,
            dma.axi.b.valid & dma.axi.b.ready,
            dma.axi.ar.valid & dma.axi.ar.ready,
            dma.axi.aw.valid & dma.axi.aw.ready,
            matmul["busy"],
            vector["busy"],
            vector["write_factor"],
            vector["write_scale"],
            vector["sp_write_valid"],
            issue["took"],
        )
        moved = Signal(len(moves))
        m.d.sync += moved.eq(moves)
        progress = moved.any()
        idle_cycles = Signal(32)
        m.d.sync += idle_cycles.eq(idle_cycles + 1)
        with m.If(progress | ~running):
            m.d.sync += idle_cycles.eq(0)
        bites = Signal()
        m.d.sync += bites.eq(
            running & (registers["watchdog"] != 0) & (idle_cycles >= registers["watchdog"])
        )
        m.d.comb += [issue["bites"].eq(bites & running), issue["completed"].eq(completed)]
        found, code, unit_code = Signal(), Signal(4), Signal(3)
        index, address = Signal(32), Signal(64)

        causes: list[tuple[Value, Any, Any, Any, Any]] = [
            (starts & (registers["program_count"] == 0), Fault.PROGRAM_LENGTH, Unit.FETCH, 0, 0),
            (
                front_end["fault"],
                front_end["fault_code"],
                Unit.FETCH,
                dma.command.payload.index,
                0,
            ),
        ]
        for record, unit in (
            (dma.fetch_fault, Unit.FETCH),
            (dma.load_fault, Unit.LOAD),
            (dma.store_fault, Unit.STORE),
        ):
            causes.append((record.valid, record.code, unit, record.index, record.address))
        causes.append(
            (issue["fault"], issue["fault_code"], issue["fault_unit"], issue["fault_index"], 0)
        )
        for cause, *record in reversed(causes):
            with m.If(cause):
                m.d.comb += found.eq(1)
                m.d.comb += [
                    target.eq(value)
                    for target, value in zip((code, unit_code, index, address), record, strict=True)
                ]
        # An event of the same cycle is newer than what is cleared.
        with m.If(registers["irq_clear"] | starts):
            m.d.sync += irq_pending.eq(0)
        running_or_starting = running | starts
        with m.If(found & running_or_starting & ~faulted & ~resetting):
            m.d.sync += [
                faulted.eq(1),
                fault_code.eq(code),
                fault_unit.eq(unit_code),
                fault_index.eq(index),
                fault_address.eq(address),
                running.eq(0),
                irq_pending.eq(1),
            ]
        with m.Elif(ends):
            m.d.sync += [running.eq(0), finished.eq(1), irq_pending.eq(1)]

        # --- Start and soft reset.
        m.d.comb += [
            starts.eq(registers["start"] & ~running & ~faulted & ~resetting),
            halt.eq(faulted | resetting),
            dma.halt.eq(halt),
            dma.quiesce.eq(resetting),
            self.irq.eq(registers["irq_enable"] & irq_pending),
        ]
        restart = starts & (registers["program_count"] != 0)
        m.d.sync += resolves.eq(restart)
        with m.If(starts):
            m.d.sync += [finished.eq(0), completed.eq(0)]
        with m.If(restart):
            m.d.sync += running.eq(1)
        with m.If(registers["soft_reset"]):
            m.d.sync += resetting.eq(1)
        with m.If(resetting & dma.quiet):
            m.d.sync += [
                resetting.eq(0),
                running.eq(0),
                finished.eq(0),
                faulted.eq(0),
                fault_code.eq(0),
                fault_unit.eq(0),
                fault_index.eq(0),
                fault_address.eq(0),
                irq_pending.eq(0),
                fetch_start.eq(0),
                completed.eq(0),
            ]
        m.d.comb += clear.eq(resetting & dma.quiet)

        # --- Counters and status.
        flags = {
            "load": (
                dma.load_activity.busy,
                issue["waiting"][Unit.LOAD] & ~dma.load_activity.as_value().any(),
                dma.load_activity.wait_memory,
                dma.load_activity.wait_port,
            ),
            "matmul": (
                matmul["busy"],
                issue["waiting"][Unit.MATMUL] & ~matmul["stall_weights"] & ~matmul["stall_hazard"],
                matmul["stall_weights"],
                matmul["stall_hazard"],
                matmul["draining"],
            ),
            "vector": (
                vector["busy"],
                issue["waiting"][Unit.VECTOR] & ~vector["stall_operand"] & ~vector["stall_row"],
                vector["stall_operand"],
                vector["stall_row"],
                vector["draining"],
            ),
            "store": (
                dma.store_activity.busy,
                issue["waiting"][Unit.STORE] & ~dma.store_activity.as_value().any(),
                dma.store_activity.wait_memory,
                dma.store_activity.wait_port,
            ),
        }
        # Counted a cycle later: some of the reasons are known late in theirs.
        counted = Signal()
        counted_flags = Signal(len(counters["flags"]))
        m.d.sync += [
            counted.eq(running & ~clear),
            counted_flags.eq(Cat(Cat(*flags[unit], 0) for unit in COUNTERS)),
        ]
        m.d.comb += [
            counters["run"].eq(counted),
            counters["flags"].eq(counted_flags),
            counters["clear"].eq(starts),
            counters["select"].eq(registers["counter_select"]),
            counters["read"].eq(registers["counter_read"]),
            registers["counter_there"].eq(counters["there"]),
            registers["counter_value"].eq(counters["value"]),
            registers["commands"].eq(completed),
            registers["status"].eq(Cat(running, finished, faulted, resetting)),
            registers["fault_code"].eq(fault_code),
            registers["fault_unit"].eq(fault_unit),
            registers["fault_index"].eq(fault_index),
            registers["fault_address"].eq(fault_address),
        ]
        return m
