"""A program in the making: its numbers, its memories, its commands so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import COMMAND_BYTES, PARAMETER_ROWS, SCALARS, Opcode
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, Scalar, Value
from tilewright.sim.iss import IssMachine, UndefinedError
from tilewright.sim.iss.machine import ACTIONS
from tilewright.sim.random_program.order import Order, Words

PROGRAM, INPUT, OUTPUT = 0, 1, 5
"""Regions used."""


def words_at(base: int, *steps: tuple[int, int]) -> Words:
    """Word addresses: `base` and (count, stride) of each loop, the outermost first."""
    out = np.array([base], dtype=np.int64)
    for count, stride in steps:
        out = (out[:, None] + np.arange(count) * stride).reshape(-1)
    return out


class Draft:
    """What recipes draw numbers from and append commands to.

    Parameters
    ----------
    config : Config
    seed : int
    corner : bool
        Data from the ends of its ranges.
    words : int, optional
        Scratchpad words in use.

    Attributes
    ----------
    first, end : int
        The arena: scratchpad words loaded first and stored last. Parameter blocks lie from
        `par_first`, scale rows from `scale_words`, weights and what commands may write within
        `weights` and `free` (low, high).
    acc_first, acc_count, scale_first, scale_count, stat_first, stat_count : int
        Rows of the other memories in use.
    rows : int
        The most a command may have that touches scale rows and statistics.
    order : Order
        The commands.
    machine : IssMachine
        Has executed them.
    used : int
        Bytes of the output region that are written.
    scalars : dict
        Registers in use, and their values.
    drawn, without : int, set of int
        Commands so far, and the numbers of those that are neither executed nor appended.
    """

    def __init__(self, config: Config, seed: int, corner: bool, words: int | None) -> None:
        self.config = config
        self.corner = corner
        self.rng = np.random.default_rng([seed, int(corner)])
        arena = min(config.sp_words, 768 if words is None else words)
        # Somewhere across a border of banks, or up to the very last word.
        border = config.sp_depth * self.integer(1, config.sp_banks)
        low = max(0, min(border - arena // 2, config.sp_words - arena))
        self.first = self.choose([low, 0, config.sp_words - arena])
        self.end = self.first + arena
        self.acc_count = min(config.acc_words, 128)
        self.acc_first = self.choose(
            [0, config.acc_words - self.acc_count, self.acc_start_across_banks()]
        )
        self.scale_count = min(config.scale_rows, 64)
        self.scale_first = self.integer(0, config.scale_rows - self.scale_count)
        self.stat_count = min(config.stat_rows, 32)
        self.stat_first = self.integer(0, config.stat_rows - self.stat_count)
        self.rows = min(self.scale_count, self.stat_count)
        self.partition()
        self.order = Order(
            self.rng,
            {
                "sp": config.sp_words,
                "acc": config.acc_words,
                "scale": config.scale_rows,
                "stat": config.stat_rows,
                "out": 1,
            },
        )
        self.scalars: dict[int, int] = {}
        self.without: frozenset[int] = frozenset()
        self.drawn = 0
        self.lay_out()

    def acc_start_across_banks(self) -> int:
        border = self.config.acc_depth
        return max(0, min(border - self.acc_count // 2, self.config.acc_words - self.acc_count))

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, max(low, high) + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, values: list[int]) -> int:
        return values[self.integer(0, len(values) - 1)]

    def bytes(self, count: int) -> npt.NDArray[np.uint8]:
        """Operand data: s16 and s8 at once."""
        if self.corner:
            ends = np.array(
                [0, 1, -1, 32767, -32768, 32639, -32639, 127, 128, -128, -129, 255, 0x7F80, 0x7F7F],
                dtype=np.int16,
            )
            half = self.rng.choice(ends, -(-count // 2))
        else:
            # Magnitudes of all sizes, or every sum would look alike.
            half = self.rng.integers(-32768, 32768, -(-count // 2)).astype(np.int16)
            half >>= self.rng.choice([0, 0, 4, 8], half.size).astype(np.int16)
        return half.view(np.uint8)[:count]

    def partition(self) -> None:
        """Cut the arena: parameters, scale rows' source, weights when narrow, general words."""
        config = self.config
        self.par_blocks = 8
        place = self.first
        self.par_first = place
        place += PARAMETER_ROWS * self.par_blocks
        self.scale_words = place
        place += -(-self.scale_count // config.panel)
        self.weights = (self.first, self.end)
        if config.weight_bits < 8:
            self.weights = (place, place + 3 * config.panel)
            place += 3 * config.panel
        self.free = (place, self.end)
        if self.end - place < 4 * self.acc_count:
            least = place - self.first + 4 * self.acc_count
            raise ValueError(f"words = {self.end - self.first}: must be at least {least}")

    def lay_out(self) -> None:
        """DRAM: program, image of the arena, output; odd gaps between them."""
        word = self.config.word_bytes
        arena = self.end - self.first
        self.program_offset = COMMAND_BYTES * self.integer(0, 3)
        program = 4096
        space = self.program_offset + COMMAND_BYTES * 1024
        source = program + space + self.integer(0, 130)
        target = source + arena * word + self.integer(0, 130)
        # The arena, the accumulators' views, random stores.
        size = arena * word * 4 + (1 << 16)
        self.regions = {
            PROGRAM: (program, program + space),
            INPUT: (source, source + arena * word),
            OUTPUT: (target, target + size),
        }
        memory = np.zeros(target + size + 64, dtype=np.uint8)
        image = self.bytes(arena * word)
        self.fill_special(image.reshape(arena, word))
        memory[source : source + arena * word] = image
        # What lies around a store must survive it.
        memory[target - 16 :] = self.rng.integers(0, 256, size + 80, dtype=np.uint8)
        self.memory = memory
        self.used = 0
        self.machine = IssMachine(self.config, memory.copy(), check=True)
        for region, (base, limit) in self.regions.items():
            self.machine.set_region(region, base, limit)

    def fill_special(self, image: npt.NDArray[np.uint8]) -> None:
        """Words that are not just any data."""
        rng, width = self.rng, self.config.panel
        words = image.view("<i2")
        count = self.par_blocks
        block = words[: PARAMETER_ROWS * count].reshape(count, PARAMETER_ROWS, width)
        unsigned = block.view("<u2")
        shape = (count, width)
        if self.corner:
            unsigned[:, 0] = rng.choice([0, 1, 32768, 65535], shape)
            shift = rng.choice([9, 10, 17, 24, 32, 61], shape)
            bias = rng.choice([0, 1, -1, 127, 128, (1 << 31) - 1, -(1 << 31), 1 << 28], shape)
            unsigned[:, 4] = rng.choice([0, 1, 32767, 32768, 65535], shape)
        else:
            unsigned[:, 0] = rng.integers(32768, 65536, shape)
            shift = rng.integers(9, 40, shape)
            bias = rng.integers(-(1 << 31), 1 << 31, shape) >> rng.integers(0, 24, shape)
            unsigned[:, 4] = rng.integers(0, 65536, shape) >> rng.integers(0, 12, shape)
        # Bits above the six of the shift are ignored.
        unsigned[:, 1] = shift | rng.integers(0, 1024, shape) << 6
        unsigned[:, 2] = bias & 0xFFFF
        block[:, 3] = bias >> 16
        rows = self.scale_words - self.first
        scale = words[rows : rows + -(-self.scale_count // width)].view("<u2")
        largest = rng.integers(0, 32769, scale.shape) >> rng.integers(0, 10, scale.shape)
        ends = rng.choice([0, 1, 127, 128, 509, 510, 16384, 32639, 32767, 32768], scale.shape)
        scale[...] = ends if self.corner else largest
        if self.config.weight_bits < 8:
            low = self.weights[0] - self.first
            part = image[low : self.weights[1] - self.first].view(np.int8)
            part >>= 8 - self.config.weight_bits

    def emit(
        self,
        opcode: Opcode,
        fields: dict[str, int],
        reads: list[tuple[str, Words]],
        writes: list[tuple[str, Words]],
    ) -> bool:
        """Execute on the side and append; an undefined command is dropped."""
        if opcode == Opcode.STORE or opcode == Opcode.LOAD:
            self.machine.scalars = [self.scalars.get(i, 0) for i in range(SCALARS)]
        if self.drawn in self.without:
            self.drawn += 1
            return False
        item = Command(opcode, dict(fields))
        try:
            ACTIONS[opcode](self.machine, item.resolve({}))
        except UndefinedError:
            return False
        self.drawn += 1
        for name in ("m", "kt", "nt", "panels", "valid", "row0", "runs", "planes"):
            if name in fields and self.chance(0.15):
                item[name] = self.register(fields[name])
        self.order.add(item, reads, writes)
        return True

    def register(self, value: int) -> Value:
        """A register whose low half is the value, or the value itself when none is left."""
        for index, held in self.scalars.items():
            if held & 0xFFFF == value:
                return Scalar(index)
        if len(self.scalars) == SCALARS:
            return value
        index = len(self.scalars)
        self.scalars[index] = self.integer(0, 0xFFFF) << 16 | value
        return Scalar(index)

    def matrix(
        self, rows: int, panels: int, low: int, high: int, *, apart: bool
    ) -> tuple[int, int] | None:
        """Address and stride of `panels` blocks of `rows` words in [low, high)."""
        room = high - low - rows
        least = rows if apart else 0
        if room < 0 or (panels > 1 and room < least * (panels - 1)):
            return None
        stride = self.integer(0, 65535)
        span = 0
        if panels > 1:
            most = room // (panels - 1)
            stride = self.integer(least, most) if self.chance(0.3) else min(rows, most)
            span = stride * (panels - 1)
        base = low + self.choose([0, room - span, self.integer(0, room - span)])
        return base, stride
