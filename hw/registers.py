"""The AXI4-Lite register map: defined once for RTL, driver, C header and documentation."""

from dataclasses import dataclass

from tilewright.hw.commands import REGIONS, SCALARS

IDENTIFICATION = 0x54575254
"""Value of register ID: "TWRT"."""
ADDRESS_WIDTH = 12
"""Bits of the AXI4-Lite byte address."""
RESOLVE_BITS = 7
"""Bits of the word address of a register that commands may name."""


@dataclass(frozen=True)
class Register:
    """One 32-bit register.

    Attributes
    ----------
    name : str
    address : int
        Byte offset.
    access : str
        "ro", "rw", "w1" (write one to act, reads zero).
    doc : str
    constant : bool
        A write while a run is on does nothing.
    """

    name: str
    address: int
    access: str
    doc: str

    @property
    def constant(self) -> bool:
        return self.access == "rw" and self.name not in ("IRQ_ENABLE", "WATCHDOG")


CONTROL_START = 1 << 0
CONTROL_SOFT_RESET = 1 << 1
CONTROL_IRQ_CLEAR = 1 << 2

STATUS_BUSY = 1 << 0
STATUS_DONE = 1 << 1
STATUS_FAULT = 1 << 2
STATUS_RESETTING = 1 << 3

BITS = {
    "CONTROL_START": CONTROL_START,
    "CONTROL_SOFT_RESET": CONTROL_SOFT_RESET,
    "CONTROL_IRQ_CLEAR": CONTROL_IRQ_CLEAR,
    "STATUS_BUSY": STATUS_BUSY,
    "STATUS_DONE": STATUS_DONE,
    "STATUS_FAULT": STATUS_FAULT,
    "STATUS_RESETTING": STATUS_RESETTING,
}
"""Masks of the registers' bits, for the C header."""

# What every unit does in a cycle of a run: exactly one of these, so each unit's counters add up to
# CYCLES. "busy" is useful work; the rest are the reasons for having none.
COUNTERS: dict[str, tuple[str, ...]] = {
    "load": ("busy", "token", "memory", "port", "idle"),
    "matmul": ("busy", "token", "weights", "hazard", "drain", "idle"),
    "vector": ("busy", "token", "operand", "row", "drain", "idle"),
    "store": ("busy", "token", "memory", "port", "idle"),
}
COUNTER_DOC = {
    "busy": "a beat, an array row or a lane group moved",
    "token": "the next command waits for tokens",
    "memory": "waiting for the AXI bus",
    "port": "waiting for a scratchpad port",
    "weights": "the next tile is not in the shadow weights yet",
    "hazard": "a row waits for an accumulator word that is being written",
    "operand": "parameters are fetched, or a scratchpad or accumulator port is taken",
    "row": "the row unit works (division, rsqrt, scale rows in and out)",
    "drain": "the pipeline empties before the command's tokens are posted",
    "idle": "no command in the queue",
}


def _build() -> dict[str, Register]:
    registers: list[Register] = []

    def add(name: str, address: int, access: str, doc: str) -> None:
        registers.append(Register(name, address, access, doc))

    # Where these four are, no version changes: by them software tells that the rest is another.
    add("ID", 0x000, "ro", f"identification, 0x{IDENTIFICATION:08X} ('TWRT')")
    add("VERSION", 0x004, "ro", "generator version, major << 16 | minor << 8 | patch")
    add("HASH_LO", 0x008, "ro", "manifest hash, bits 31 … 0: the parameters")
    add("HASH_HI", 0x00C, "ro", "manifest hash, bits 63 … 32: registers, commands, arithmetic")
    add("ARRAY", 0x010, "ro", "rows | columns << 8 | lanes << 16")
    add("CONTROL", 0x020, "w1", "bit 0 start, bit 1 soft reset, bit 2 clear the interrupt")
    add("STATUS", 0x024, "ro", "bit 0 busy, bit 1 done, bit 2 fault, bit 3 resetting")
    add("IRQ_ENABLE", 0x028, "rw", "bit 0: interrupt when a run is done or faults")
    add("PROGRAM_OFFSET", 0x030, "rw", "first command, bytes from the base of region 0")
    add("PROGRAM_COUNT", 0x034, "rw", "commands in the program, BEGIN and END included")
    add("WATCHDOG", 0x038, "rw", "cycles without progress until a fault; 0: off")
    add("FAULT_CODE", 0x040, "ro", "code of the first fault | unit << 8; 0: none")
    add("FAULT_INDEX", 0x044, "ro", "index of the command that faulted")
    add("FAULT_ADDRESS_LO", 0x048, "ro", "DRAM address of the fault, bits 31 … 0")
    add("FAULT_ADDRESS_HI", 0x04C, "ro", "DRAM address of the fault, bits 63 … 32")
    add("CYCLES_LO", 0x050, "ro", "cycles of the run, start to done, bits 31 … 0")
    add("CYCLES_HI", 0x054, "ro", "cycles of the run, bits 63 … 32")
    add("COMMANDS", 0x058, "ro", "commands completed in the run")
    for index in range(SCALARS):
        add(f"SCALAR{index}", 0x080 + 4 * index, "rw", f"scalar register {index}")
    for index in range(REGIONS):
        base = 0x100 + 16 * index
        add(f"BASE{index}_LO", base, "rw", f"first byte of region {index}, bits 31 … 0")
        add(f"BASE{index}_HI", base + 4, "rw", f"first byte of region {index}, bits 63 … 32")
        add(f"LIMIT{index}_LO", base + 8, "rw", f"byte behind region {index}, bits 31 … 0")
        add(f"LIMIT{index}_HI", base + 12, "rw", f"byte behind region {index}, bits 63 … 32")
    address = 0x200
    for unit, reasons in COUNTERS.items():
        for reason in reasons:
            for half, bits in (("LO", "31 … 0"), ("HI", "63 … 32")):
                add(
                    f"COUNT_{unit}_{reason}_{half}".upper(),
                    address,
                    "ro",
                    f"{unit}: {COUNTER_DOC[reason]}; cycles of the run, bits {bits}",
                )
                address += 4
    return {register.name: register for register in registers}


REGISTERS: dict[str, Register] = _build()
READABLE = frozenset(register.address for register in REGISTERS.values())
"""Addresses that are no error to read."""
WRITABLE = frozenset(r.address for r in REGISTERS.values() if r.access != "ro")
"""Addresses that are no error to write."""
