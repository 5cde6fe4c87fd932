"""What the testbenches of single cells share: a clocked bench, memories behind ports, packing.

A cycle is what lies between two rising edges: `tick` drives its inputs behind the first edge, and
what is read then are the outputs of that cycle, settled, as the second edge saw them.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from tilewright.hw.commands import COMMAND_LAYOUTS, Opcode
from tilewright.hw.config import Config
from tilewright.hw.manifest import SP_READ_LATENCY
from tilewright.sim.testbenches.runner import parameters, simulate_verilog
from tilewright.sim.verilog import cell_verilog

Array = npt.NDArray[Any]

_INPUT = re.compile(r"^  input (?:signed )?(?:\[\d+:0\] )?\\?(\w+) ?;", re.MULTILINE)


def run_cell(
    config: Config,
    cell: str,
    *,
    module: str,
    simulator: str,
    folder: Any,
    tests: Sequence[str] | None = None,
    arrays: Mapping[str, Array] | None = None,
    text: str | None = None,
    **values: Any,
) -> None:
    """Run tests of a cocotb module on one cell.

    Parameters
    ----------
    config : Config
    cell : str
        Name of the cell in the configuration's machine.
    module : str
        Name of a module of `tilewright.sim.testbenches.units`.
    simulator, folder, tests
        As of `runner.simulate_verilog`.
    arrays : mapping, optional
        What `runner.recorded` returns within the testbench.
    text : str, optional
        Verilog of `cell`, if it is none of the machine.
    **values
        More of what `runner.parameters` returns there.
    """
    if text is None:
        text = cell_verilog(config, cell)
    # The cell is the first module; GPI does not tell directions.
    inputs = _INPUT.findall(text[: text.index("endmodule")])
    simulate_verilog(
        text,
        top=cell,
        module=f"tilewright.sim.testbenches.units.{module}",
        simulator=simulator,
        folder=folder,
        tests=tests,
        arrays=arrays,
        values={
            "config": config.to_dict(),
            "seed": 1,
            "inputs": [name for name in inputs if name not in ("clk", "rst")],
            **values,
        },
    )


def pack(values: Iterable[int] | Array, bits: int) -> int:
    """Numbers of `bits` bits side by side, the first one lowest."""
    array = np.asarray(values)
    if bits in (8, 16, 32):
        return int.from_bytes((array.astype(np.int64)).astype(f"<i{bits // 8}").tobytes(), "little")
    word = 0
    for value in reversed(array.tolist()):
        word = word << bits | value & ((1 << bits) - 1)
    return word


def unpack(word: int, bits: int, count: int, *, signed: bool = True) -> Array:
    """The reverse of `pack`, int64."""
    mask, half = (1 << bits) - 1, 1 << bits - 1
    values = [word >> bits * index & mask for index in range(count)]
    return np.array([v - 2 * half if signed and v >= half else v for v in values], dtype=np.int64)


def pack_command(opcode: Opcode, fields: Mapping[str, int]) -> int:
    """A resolved command as a unit takes it: its fields side by side, 0 where not given."""
    layout = COMMAND_LAYOUTS[opcode]
    assert not set(fields) - set(layout), set(fields) - set(layout)
    word, at = 0, 0
    for name, field in layout.items():
        word |= (int(fields.get(name, 0)) & ((1 << field.width) - 1)) << at
        at += field.width
    return word


class Bench:
    """A cell with clock and reset.

    Attributes
    ----------
    config : Config
    rng : numpy Generator
        Of the seed given, which is printed.
    cycle : int
        Cycles since the reset; the one whose outputs are read is `cycle - 1`.
    models : list
        Objects with `before()`, called before a cycle's inputs are driven, and `after()`, called
        when its outputs can be read.
    """

    def __init__(self, dut: Any, *, timeout: int = 200_000) -> None:
        self.dut = dut
        self.values = parameters()
        self.config = Config.from_dict(self.values["config"])
        self.seed = self.values["seed"]
        self.rng = np.random.default_rng(self.seed)
        self.ports = {port._name: port for port in dut}
        self.driven: dict[str, int] = {}
        self.cycle = 0
        self.timeout = timeout
        self.models: list[Any] = []
        print(f"{dut._name} of {self.config.name}: seed {self.seed}")

    async def start(self, **inputs: int) -> None:
        """Start the clock, reset, and drive all other inputs with 0 if not told otherwise."""
        Clock(self.dut.clk, 10, "ns").start()
        for name in self.values["inputs"]:
            self.set(name, inputs.get(name, 0))
        await self.reset()

    async def reset(self) -> None:
        """Reset for two cycles."""
        self.dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        self.cycle = 0

    def set(self, name: str, value: int) -> None:
        """Drive an input; a negative value as it is in the port's bits."""
        if self.driven.get(name) != value:
            self.driven[name] = value
            port = self.ports[name]
            port.value = int(value) & ((1 << len(port)) - 1)

    def get(self, name: str) -> int:
        """An output, or input, unsigned."""
        return int(self.ports[name].value)

    def signed(self, name: str) -> int:
        """An output as a signed number."""
        port = self.ports[name]
        value = int(port.value)
        return value - (1 << len(port)) if value >> len(port) - 1 else value

    async def tick(self, **inputs: int) -> None:
        """One cycle."""
        for model in self.models:
            model.before()
        for name, value in inputs.items():
            self.set(name, value)
        await RisingEdge(self.dut.clk)
        self.cycle += 1
        assert self.cycle <= self.timeout, f"no end after {self.timeout} cycles"
        for model in self.models:
            model.after()

    async def until(self, condition: Callable[[], Any], cycles: int, what: str) -> None:
        """Cycles until `condition` holds for the cycle that ended."""
        for _ in range(cycles):
            await self.tick()
            if condition():
                return
        raise AssertionError(f"{what}: not within {cycles} cycles")

    async def play(
        self, inputs: Mapping[str, Sequence[int] | Array], outputs: Sequence[str], *, drain: int = 0
    ) -> dict[str, list[int]]:
        """Drive sequences, one element a cycle, and record outputs, unsigned.

        Returns
        -------
        dict of str to list of int
            Element n: the output in the cycle of the inputs' elements n; `drain` cycles more. -1
            where it is unknown, as what has not come through from the reset yet is on Icarus.
        """
        sequences = {
            name: values.tolist() if isinstance(values, np.ndarray) else list(values)
            for name, values in inputs.items()
        }
        length = max(len(values) for values in sequences.values())
        assert all(len(values) == length for values in sequences.values())
        self.timeout += length + drain
        record: dict[str, list[int]] = {name: [] for name in outputs}
        for n in range(length + drain):
            if n < length:
                await self.tick(**{name: values[n] for name, values in sequences.items()})
            else:
                await self.tick()
            for name in outputs:
                value = self.ports[name].value
                record[name].append(int(value) if value.is_resolvable else -1)
        return record


class Memory:
    """A memory of words behind read ports.

    A grant in the cycle of a write, or in one of the `unsure` cycles behind it, gets the old word
    or the new one, by chance; later ones get the new one.

    Attributes
    ----------
    words : list of int
    """

    def __init__(self, bench: Bench, words: Iterable[int], unsure: int = 1) -> None:
        self.bench = bench
        self.words = list(words)
        self.unsure = unsure
        self.fresh: deque[tuple[int, int, int]] = deque()

    def read(self, address: int) -> int:
        """The word a grant in the cycle that ended gets."""
        while self.fresh and self.fresh[0][0] + self.unsure < self.bench.cycle - 1:
            self.fresh.popleft()
        for _, at, old in self.fresh:
            if at == address and self.bench.rng.random() < 0.5:
                return old
        return self.words[address]

    def write(self, address: int, word: int) -> None:
        """A write in the cycle that ended."""
        self.fresh.append((self.bench.cycle - 1, address, self.words[address]))
        self.words[address] = word


class ReadPort:
    """A reader's port on a `Memory`: refused at random, garbage wherever no word is due.

    Parameters
    ----------
    bench : Bench
    prefix : str
        Of `_valid`, `_address`, `_data` and, if the port can be refused, `_ready`.
    memory : Memory
    refuse : float
        Probability that a cycle's request is refused.
    """

    def __init__(
        self,
        bench: Bench,
        prefix: str,
        memory: Memory,
        *,
        refuse: float = 0.0,
        latency: int = SP_READ_LATENCY,
    ) -> None:
        self.bench, self.prefix, self.memory = bench, prefix, memory
        self.refuse, self.latency = refuse, latency
        self.bits = len(bench.ports[f"{prefix}_data"])
        self.refusable = f"{prefix}_ready" in bench.ports
        self.due: deque[int | None] = deque([None] * (latency - 1))
        self.garbage = int.from_bytes(bench.rng.bytes(self.bits // 8 + 1), "little")
        self.ready = True
        self.grants = 0
        bench.models.append(self)

    def before(self) -> None:
        bench = self.bench
        if self.refusable:
            self.ready = bench.rng.random() >= self.refuse
            bench.set(f"{self.prefix}_ready", int(self.ready))
        word = self.due.popleft() if len(self.due) >= self.latency else None
        if word is None:
            # Changes with each cycle, cheaply.
            self.garbage = (self.garbage * 5 + 0x9E3779B9) & ((1 << self.bits) - 1)
            word = self.garbage
        bench.set(f"{self.prefix}_data", word)

    def after(self) -> None:
        bench = self.bench
        granted = self.ready and bench.get(f"{self.prefix}_valid")
        if granted:
            self.grants += 1
        self.due.append(self.memory.read(bench.get(f"{self.prefix}_address")) if granted else None)
