"""The whole machine: units, memories, DMA, control, registers."""

from typing import Any

from amaranth.hdl import Cat, ClockDomain, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, Unwarned, place
from tilewright.hw.commands import Fault, Opcode, Unit
from tilewright.hw.config import Config, ConfigError
from tilewright.hw.control.counters import Counters
from tilewright.hw.control.decoder import QUEUES, Decoder
from tilewright.hw.control.dispatcher import Dispatcher
from tilewright.hw.control.register_file import RegisterFile
from tilewright.hw.control.tokens import Semaphores
from tilewright.hw.control.transfers import TransferUnit, clipped_limit
from tilewright.hw.dma.axi import connect_flat, flat_members
from tilewright.hw.dma.dma import Dma
from tilewright.hw.dma.records import Transfer
from tilewright.hw.layouts import INDEX_BITS
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
        self.decoder = Decoder(config)
        self.semaphores = Semaphores(units=len(QUEUES))
        self.counters = Counters()
        self.matmul = MatmulUnit(config)
        self.vector = VectorUnit(config)
        self.scratchpad = Scratchpad(config)
        self.accumulators = Accumulators(config)
        self.row_table = RowTable(config)
        self.transfers = TransferUnit(config)
        depth = config.queue_places
        self.dispatchers = {
            Unit.LOAD: Dispatcher("load", (Opcode.LOAD,), queue_depth=depth),
            Unit.MATMUL: Dispatcher("matmul", (Opcode.MATMUL,), queue_depth=depth),
            Unit.VECTOR: Dispatcher("vector", (Opcode.VECTOR, Opcode.ROW), queue_depth=depth),
            Unit.STORE: Dispatcher("store", (Opcode.STORE,), queue_depth=depth),
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
            self.decoder,
            self.semaphores,
            self.counters,
            self.matmul,
            self.vector,
            self.scratchpad,
            self.accumulators,
            self.row_table,
            self.transfers,
            *self.dispatchers.values(),
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
        # The decoder remembers END and a fault: a run begins with a fresh one.
        decoder = put("decoder", self.decoder, reset=clear | starts)
        semaphores = put("semaphores", self.semaphores)
        counters = put("counters", self.counters)
        matmul = put("matmul", self.matmul)
        vector = put("vector", self.vector)
        scratchpad = put("scratchpad", self.scratchpad)
        accumulators = put("accumulators", self.accumulators)
        row_table = put("row_table", self.row_table)
        load = put("load_transfers", self.transfers)
        store = put("store_transfers", self.transfers)
        dispatch = {
            unit: put(f"dispatch_{unit.name.lower()}", cell)
            for unit, cell in self.dispatchers.items()
        }

        # --- Front end.
        width = config.axi_addr_width
        base = registers["bases"][:64]
        program = Signal(65)
        fetch_start = Signal()
        m.d.comb += [
            program.eq(base + registers["program_offset"]),
            dma.fetch.valid.eq(fetch_start & ~halt),
            dma.fetch.payload.address.eq(program),
            dma.fetch.payload.overflow.eq(program[width:].any()),
            dma.fetch.payload.base.eq(base),
            dma.fetch.payload.limit.eq(clipped_limit(registers["limits"][:64], width)),
            dma.fetch.payload.count.eq(registers["program_count"]),
            decoder["hash"].eq(manifest_hash(config)),
            decoder["count"].eq(registers["program_count"]),
            decoder["command"].eq(dma.command.payload.data),
            decoder["index"].eq(dma.command.payload.index),
            decoder["command_valid"].eq(dma.command.valid & ~halt),
            dma.command.ready.eq(decoder["command_ready"] & ~halt),
        ]
        with m.If(dma.fetch.valid & dma.fetch.ready):
            m.d.sync += fetch_start.eq(0)

        # --- Dispatch and tokens.
        for number, unit in enumerate(QUEUES):
            net = dispatch[unit]
            m.d.comb += [
                net["raw"].eq(decoder["raw"]),
                net["raw_index"].eq(decoder["raw_index"]),
                net["raw_valid"].eq(decoder["unit_valid"][number]),
                decoder["unit_ready"][number].eq(net["raw_ready"]),
                net["scalars"].eq(registers["scalars"]),
                net["halt"].eq(halt),
                net["wait_met"].eq(semaphores["wait_met"][number]),
                semaphores["take"][number].eq(net["take"]),
                semaphores["post"][number].eq(net["post"]),
            ]
            for key in ("wait_semaphore", "wait_count", "post_semaphore", "post_count"):
                m.d.comb += semaphores[key].word_select(number, 4).eq(net[key])
        m.d.comb += semaphores["clear"].eq(starts)

        for net, transfers, stream, done in (
            (dispatch[Unit.LOAD], load, dma.load, dma.load_done),
            (dispatch[Unit.STORE], store, dma.store, dma.store_done),
        ):
            m.d.comb += [
                transfers["command"].eq(net["command"]),
                transfers["index"].eq(net["index"]),
                transfers["command_valid"].eq(net["command_valid"]),
                net["command_ready"].eq(transfers["command_ready"]),
                transfers["bases"].eq(registers["bases"]),
                transfers["limits"].eq(registers["limits"]),
                transfers["scalars"].eq(registers["scalars"]),
                stream.payload.eq(data.View(Transfer(config), transfers["transfer"])),
                stream.valid.eq(transfers["transfer_valid"] & ~halt),
                transfers["transfer_ready"].eq(stream.ready & ~halt),
                net["done"].eq(done),
            ]
        for net, worker in (
            (dispatch[Unit.MATMUL], matmul),
            (dispatch[Unit.VECTOR], vector),
        ):
            m.d.comb += [
                worker["command"].eq(net["command"]),
                worker["command_valid"].eq(net["command_valid"]),
                net["command_ready"].eq(worker["command_ready"]),
                net["done"].eq(worker["done"]),
            ]
        m.d.comb += vector["is_row"].eq(dispatch[Unit.VECTOR]["is_second"])

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
        issued, retired = Signal(32), Signal(32)
        sent = (decoder["unit_valid"] & decoder["unit_ready"]).any()
        retiring: Value | int = 0
        for net in dispatch.values():
            retiring = retiring + net["retired"]
        # A cycle late: a run must not end before an overflow of its last posts is known.
        retiring_later = Signal(range(len(dispatch) + 1))
        m.d.sync += [
            issued.eq(issued + sent),
            retiring_later.eq(Mux(clear, 0, retiring)),
            retired.eq(retired + retiring_later),
        ]
        begun = decoder["begun"]
        ends = Signal()
        m.d.comb += ends.eq(
            running & ~faulted & ~resetting & decoder["ended"] & (issued == retired)
        )

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
            *(net["take"] for net in dispatch.values()),
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
        culprit = Signal(3)
        culprit_index = Signal(INDEX_BITS)
        order = (Unit.LOAD, Unit.STORE, Unit.MATMUL, Unit.VECTOR)
        m.d.sync += [culprit.eq(Unit.FETCH), culprit_index.eq(retired + begun)]
        waiting = {unit: Signal(name=f"{unit.name.lower()}_waited") for unit in order}
        m.d.sync += [waiting[unit].eq(dispatch[unit]["waiting"]) for unit in order]
        holds = {unit: dispatch[unit]["holds"] for unit in order}
        for states, index in ((waiting, "index"), (holds, "oldest_index")):
            for unit in reversed(order):
                with m.If(states[unit]):
                    m.d.sync += [
                        culprit.eq(unit),
                        culprit_index.eq(dispatch[unit][index]),
                    ]
        found, code, unit_code = Signal(), Signal(4), Signal(3)
        index, address = Signal(32), Signal(64)

        causes: list[tuple[Value, Any, Any, Any, Any]] = [
            (starts & (registers["program_count"] == 0), Fault.PROGRAM_LENGTH, Unit.FETCH, 0, 0),
            (decoder["fault"], decoder["fault_code"], Unit.FETCH, decoder["raw_index"], 0),
        ]
        for record, unit in (
            (dma.fetch_fault, Unit.FETCH),
            (dma.load_fault, Unit.LOAD),
            (dma.store_fault, Unit.STORE),
        ):
            causes.append((record.valid, record.code, unit, record.index, record.address))
        for number, unit in enumerate(QUEUES):
            # The command that was the oldest when it posted, two cycles ago.
            index1 = Signal(INDEX_BITS, name=f"{unit.name.lower()}_index1", reset_less=True)
            index2 = Signal(INDEX_BITS, name=f"{unit.name.lower()}_index2", reset_less=True)
            m.d.sync += [index1.eq(dispatch[unit]["oldest_index"]), index2.eq(index1)]
            causes.append((semaphores["overflow"][number], Fault.TOKEN_OVERFLOW, unit, index2, 0))
        causes.append((bites & running, Fault.WATCHDOG, culprit, culprit_index, 0))
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
        with m.If(starts):
            m.d.sync += [finished.eq(0), issued.eq(0), retired.eq(0)]
        with m.If(restart):
            m.d.sync += [running.eq(1), fetch_start.eq(1)]
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
                issued.eq(0),
                retired.eq(0),
            ]
        m.d.comb += clear.eq(resetting & dma.quiet)

        # --- Counters and status.
        flags = {
            "load": (
                dma.load_activity.busy,
                dispatch[Unit.LOAD]["waiting"] & ~dma.load_activity.as_value().any(),
                dma.load_activity.wait_memory,
                dma.load_activity.wait_port,
            ),
            "matmul": (
                matmul["busy"],
                dispatch[Unit.MATMUL]["waiting"]
                & ~matmul["stall_weights"]
                & ~matmul["stall_hazard"],
                matmul["stall_weights"],
                matmul["stall_hazard"],
                matmul["draining"],
            ),
            "vector": (
                vector["busy"],
                dispatch[Unit.VECTOR]["waiting"] & ~vector["stall_operand"] & ~vector["stall_row"],
                vector["stall_operand"],
                vector["stall_row"],
                vector["draining"],
            ),
            "store": (
                dma.store_activity.busy,
                dispatch[Unit.STORE]["waiting"] & ~dma.store_activity.as_value().any(),
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
            registers["commands"].eq(retired + begun + finished),
            registers["status"].eq(Cat(running, finished, faulted, resetting)),
            registers["fault_code"].eq(fault_code),
            registers["fault_unit"].eq(fault_unit),
            registers["fault_index"].eq(fault_index),
            registers["fault_address"].eq(fault_address),
        ]
        return m
