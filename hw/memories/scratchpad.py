"""The scratchpad: banks behind a crossbar of readers and writers with fixed priority."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell, place
from tilewright.hw.config import Config
from tilewright.hw.memories.bank import Bank

READERS = ("feeder", "loader", "vector", "dma")
"""In the order of their priority."""
WRITERS = ("vector", "dma")


class Scratchpad(Cell):
    """`sp_banks` banks; four readers and two writers, each at most one word a cycle.

    A reader holds `*_read_valid` and its address until `*_read_ready`; the word is at
    `*_read_data` SP_READ_LATENCY = 3 cycles after the cycle in which both were high. `ready` of
    a reader depends on the valids of those before it only. The first reader is always ready.
    A writer's word is visible to reads granted two cycles later.

    The mask has a bit each `lanes` bytes, little end first.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cell_name = "tilewright_scratchpad"
        width = 8 * config.word_bytes
        address = (config.sp_words - 1).bit_length()
        self.mask_bits = config.word_bytes // config.lanes
        self.bank = Bank(width=width, depth=config.sp_depth, granularity=8 * config.lanes)
        members: dict = {}
        for name in READERS:
            members[f"{name}_read_valid"] = In(1)
            members[f"{name}_read_ready"] = Out(1)
            members[f"{name}_read_address"] = In(address)
            members[f"{name}_read_data"] = Out(width)
        for name in WRITERS:
            members[f"{name}_write_valid"] = In(1)
            members[f"{name}_write_ready"] = Out(1)
            members[f"{name}_write_address"] = In(address)
            members[f"{name}_write_data"] = In(width)
            members[f"{name}_write_mask"] = In(self.mask_bits)
        super().__init__(members)

    def cells(self) -> list[Cell]:
        return [self.bank]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        width = 8 * config.word_bytes
        low = (config.sp_depth - 1).bit_length()

        def port(kind: str, name: str, part: str) -> Signal:
            return getattr(self, f"{name}_{kind}_{part}")

        def grants(kind: str, names: tuple[str, ...]) -> None:
            for index, name in enumerate(names):
                blocked = [
                    port(kind, other, "valid")
                    & (port(kind, other, "address")[low:] == port(kind, name, "address")[low:])
                    for other in names[:index]
                ]
                m.d.comb += port(kind, name, "ready").eq(~Cat(blocked).any() if blocked else 1)

        grants("read", READERS)
        grants("write", WRITERS)

        bank_data = []
        for bank in range(config.sp_banks):

            def here(kind: str, name: str, bank: int = bank) -> Signal:
                hit = Signal(name=f"{name}_{kind}_bank{bank}")
                m.d.comb += hit.eq(
                    port(kind, name, "valid") & (port(kind, name, "address")[low:] == bank)
                )
                return hit

            read_address = port("read", READERS[-1], "address")[:low]
            for name in reversed(READERS[:-1]):
                read_address = Mux(
                    here("read", name), port("read", name, "address")[:low], read_address
                )
            first, second = (here("write", name) for name in WRITERS)
            vector, dma = WRITERS
            data = Signal(width, name=f"bank{bank}_data")
            bank_data.append(data)
            place(
                m,
                f"bank{bank}",
                self.bank,
                read_address=read_address,
                read_data=data,
                write_mask=Mux(
                    first,
                    port("write", vector, "mask"),
                    Mux(second, port("write", dma, "mask"), 0),
                ),
                write_address=Mux(
                    first,
                    port("write", vector, "address")[:low],
                    port("write", dma, "address")[:low],
                ),
                write_data=Mux(first, port("write", vector, "data"), port("write", dma, "data")),
            )

        # The bank a word comes from follows the address through the bank's two registers.
        for name in READERS:
            select1 = Signal(range(config.sp_banks), name=f"{name}_select1", reset_less=True)
            select2 = Signal(range(config.sp_banks), name=f"{name}_select2", reset_less=True)
            word = Signal(width, name=f"{name}_word", reset_less=True)
            m.d.sync += [select1.eq(port("read", name, "address")[low:]), select2.eq(select1)]
            with m.Switch(select2):
                for bank in range(config.sp_banks):
                    with m.Case(bank):
                        m.d.sync += word.eq(bank_data[bank])
            m.d.comb += port("read", name, "data").eq(word)
        return m
