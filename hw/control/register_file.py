"""The AXI4-Lite register file."""

from collections.abc import Callable

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright import __version__
from tilewright.hw.cells import Cell
from tilewright.hw.config import Config
from tilewright.hw.control.counters import COUNTER_BITS, CYCLES, NAMES
from tilewright.hw.dma.axi import RESP_ERROR
from tilewright.hw.manifest import manifest_hash
from tilewright.hw.registers import (
    ADDRESS_WIDTH,
    CONTROL_IRQ_CLEAR,
    CONTROL_SOFT_RESET,
    CONTROL_START,
    IDENTIFICATION,
    READABLE,
    REGISTERS,
    RESOLVE_BITS,
    WRITABLE,
    Register,
)


def version_word() -> int:
    """Return register VERSION of this generator."""
    major, minor, patch = (int(part) for part in __version__.split(".")[:3])
    return major << 16 | minor << 8 | patch


def _counter_numbers() -> dict[str, int]:
    """Number of each counter, by the name of its registers without the half."""
    names = [f"COUNT_{unit}_{reason}".upper() for unit, reason in NAMES]
    return {"CYCLES": CYCLES, **{name: number for number, name in enumerate(names)}}


def _is_one_of(address: Signal, which: Callable[[Register], bool]) -> Value:
    """Whether a byte address is that of a register of a kind."""
    return address[2:].matches(*sorted(r.address >> 2 for r in REGISTERS.values() if which(r)))


class RegisterFile(Cell):
    """AXI4-Lite slave, one access at a time; unused addresses read 0 and ignore what is written.

    Every access answers OKAY, or by `Config.register_errors` SLVERR where there is nothing to read
    or to write. Reading the low half of a counter takes a snapshot, of which the high half is then
    read.

    Attributes
    ----------
    s_axi_* : the bus
    start, soft_reset, irq_clear : pulses
    irq_enable, program_count, watchdog : rw registers
    resolve, resolved : word address of an rw register, its content a cycle later
    busy : a run is on, what is constant during one is not written
    status : 4 bits; fault_code, fault_unit, fault_index, fault_address : fault record
    commands : of the run
    counter_select, counter_read, counter_there, counter_value : to the counters
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_registers"
        self.bus = {
            "s_axi_awaddr": In(ADDRESS_WIDTH),
            "s_axi_awprot": In(3),
            "s_axi_awvalid": In(1),
            "s_axi_awready": Out(1),
            "s_axi_wdata": In(32),
            "s_axi_wstrb": In(4),
            "s_axi_wvalid": In(1),
            "s_axi_wready": Out(1),
            "s_axi_bresp": Out(2),
            "s_axi_bvalid": Out(1),
            "s_axi_bready": In(1),
            "s_axi_araddr": In(ADDRESS_WIDTH),
            "s_axi_arprot": In(3),
            "s_axi_arvalid": In(1),
            "s_axi_arready": Out(1),
            "s_axi_rdata": Out(32),
            "s_axi_rresp": Out(2),
            "s_axi_rvalid": Out(1),
            "s_axi_rready": In(1),
        }
        super().__init__(
            {
                **self.bus,
                "start": Out(1),
                "soft_reset": Out(1),
                "irq_clear": Out(1),
                "irq_enable": Out(1),
                "program_count": Out(32),
                "watchdog": Out(32),
                "resolve": In(RESOLVE_BITS),
                "resolved": Out(32),
                "busy": In(1),
                "status": In(4),
                "fault_code": In(4),
                "fault_unit": In(3),
                "fault_index": In(32),
                "fault_address": In(64),
                "commands": In(32),
                "counter_select": Out(range(CYCLES + 1)),
                "counter_read": Out(1),
                "counter_there": In(1),
                "counter_value": In(COUNTER_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        # All rw registers stand in a memory; some that are always looked at elsewhere too.
        m.submodules.memory = memory = Memory(
            shape=32, depth=1 << RESOLVE_BITS, init=[], attrs={"no_rw_check": 1}
        )
        store = memory.write_port(granularity=8)
        recall, resolve = memory.read_port(), memory.read_port()
        copies = {
            name: Signal(32, name=name.lower())
            for name in ("IRQ_ENABLE", "PROGRAM_COUNT", "WATCHDOG")
        }
        # A reset sets them to 0, one a cycle.
        clears = Signal(init=1)
        cleared = Signal(RESOLVE_BITS)
        with m.If(clears):
            m.d.sync += [cleared.eq(cleared + 1), clears.eq(~cleared.all())]

        # Write: address and data may come in either order.
        address = Signal(ADDRESS_WIDTH, reset_less=True)
        data = Signal(32, reset_less=True)
        strobe = Signal(4, reset_less=True)
        has_address, has_data, answers = Signal(), Signal(), Signal()
        writes = Signal()
        m.d.comb += [
            self.s_axi_awready.eq(~has_address),
            self.s_axi_wready.eq(~has_data),
            self.s_axi_bvalid.eq(answers),
            writes.eq(has_address & has_data & ~answers & ~clears),
        ]
        with m.If(self.s_axi_awvalid & self.s_axi_awready):
            m.d.sync += [address.eq(self.s_axi_awaddr), has_address.eq(1)]
        with m.If(self.s_axi_wvalid & self.s_axi_wready):
            m.d.sync += [data.eq(self.s_axi_wdata), strobe.eq(self.s_axi_wstrb), has_data.eq(1)]
        with m.If(answers & self.s_axi_bready):
            m.d.sync += [answers.eq(0)]
        control = Signal(3)
        stored, constant = Signal(), Signal()
        m.d.comb += [
            stored.eq(_is_one_of(address, lambda r: r.access == "rw")),
            constant.eq(_is_one_of(address, lambda r: r.constant)),
            store.addr.eq(Mux(clears, cleared, address[2:])),
            store.data.eq(Mux(clears, 0, data)),
            store.en.eq(
                Mux(clears, 0xF, Mux(writes & stored & ~(constant & self.busy), strobe, 0))
            ),
        ]
        with m.If(writes):
            m.d.sync += [answers.eq(1), has_address.eq(0), has_data.eq(0)]
            with m.Switch(address[2:]):
                for name, signal in copies.items():
                    with m.Case(REGISTERS[name].address >> 2):
                        for byte in range(4):
                            with m.If(store.en[byte]):
                                m.d.sync += signal.word_select(byte, 8).eq(
                                    data.word_select(byte, 8)
                                )
                with m.Case(REGISTERS["CONTROL"].address >> 2):
                    m.d.comb += control.eq(Mux(strobe[0], data[:3], 0))
        if config.register_errors:
            refused = ~_is_one_of(address, lambda r: r.address in WRITABLE) | constant & self.busy
            self._answer_errors(m, self.s_axi_bresp, writes, refused)
        m.d.comb += [
            self.start.eq((control & CONTROL_START) != 0),
            self.soft_reset.eq((control & CONTROL_SOFT_RESET) != 0),
            self.irq_clear.eq((control & CONTROL_IRQ_CLEAR) != 0),
            self.irq_enable.eq(copies["IRQ_ENABLE"][0]),
            self.program_count.eq(copies["PROGRAM_COUNT"]),
            self.watchdog.eq(copies["WATCHDOG"]),
            resolve.en.eq(1),
            resolve.addr.eq(self.resolve),
            self.resolved.eq(resolve.data),
        ]

        # Read: select, then answer.
        values = {
            "ID": IDENTIFICATION,
            "VERSION": version_word(),
            "HASH_LO": manifest_hash(config) & 0xFFFFFFFF,
            "HASH_HI": manifest_hash(config) >> 32,
            "ARRAY": config.rows | config.columns << 8 | config.lanes << 16,
            "STATUS": self.status,
            "FAULT_CODE": self.fault_code | (self.fault_unit << 8),
            "FAULT_INDEX": self.fault_index,
            "FAULT_ADDRESS_LO": self.fault_address[:32],
            "FAULT_ADDRESS_HI": self.fault_address[32:],
            "COMMANDS": self.commands,
            **{name: recall.data for name, r in REGISTERS.items() if r.access == "rw"},
        }
        read_address = Signal(ADDRESS_WIDTH, reset_less=True)
        looks, recalled, has_value = Signal(), Signal(), Signal()
        value = Signal(32, reset_less=True)
        low_half = Signal()  # of a counter
        answers_read = Signal()
        m.d.comb += [
            self.s_axi_arready.eq(~looks & ~has_value & ~clears),
            recall.en.eq(1),
            recall.addr.eq(read_address[2:]),
            self.s_axi_rvalid.eq(has_value),
            self.s_axi_rdata.eq(value),
            self.counter_read.eq(looks & low_half),
            answers_read.eq(recalled & (~low_half | self.counter_there)),
        ]
        m.d.sync += recalled.eq(looks & ~answers_read)
        with m.If(self.s_axi_arvalid & self.s_axi_arready):
            m.d.sync += [read_address.eq(self.s_axi_araddr), looks.eq(1)]
        with m.Switch(read_address[2:]):
            for name, number in _counter_numbers().items():
                with m.Case(REGISTERS[f"{name}_LO"].address >> 2):
                    m.d.comb += [low_half.eq(1), self.counter_select.eq(number)]
        with m.If(answers_read):
            m.d.sync += [looks.eq(0), has_value.eq(1), value.eq(0)]
            with m.Switch(read_address[2:]):
                for name, source in values.items():
                    with m.Case(REGISTERS[name].address >> 2):
                        m.d.sync += value.eq(source)
                for name in _counter_numbers():
                    with m.Case(REGISTERS[f"{name}_LO"].address >> 2):
                        m.d.sync += value.eq(self.counter_value[:32])
                    with m.Case(REGISTERS[f"{name}_HI"].address >> 2):
                        m.d.sync += value.eq(self.counter_value[32:])
        if config.register_errors:
            unknown = ~_is_one_of(read_address, lambda r: r.address in READABLE)
            self._answer_errors(m, self.s_axi_rresp, looks, unknown)
        with m.If(has_value & self.s_axi_rready):
            m.d.sync += has_value.eq(0)
        return m

    @staticmethod
    def _answer_errors(m: Module, response: Signal, accepted: Signal, refused: Value) -> None:
        """Answer an access from the cycle after it was `accepted` on: SLVERR if it is `refused`."""
        wrong = Signal(name=f"{response.name}_wrong", reset_less=True)
        m.d.comb += response.eq(Mux(wrong, RESP_ERROR, 0))
        with m.If(accepted):
            m.d.sync += wrong.eq(refused)
