"""Random legal programs: what one command class can do, its result visible in DRAM.

A program loads a part of the scratchpad (the arena), gives accumulators, scale rows and statistics
rows values, runs random commands of a kind over it, and stores all of the arena and what can be
made visible of the other memories: accumulators and scale rows exactly, statistics as saturated
views. Commands of different units are ordered by tokens only where they touch the same words, so
that units overlap as much as the program allows. Comparing all of DRAM after a run with
`RandomProgram.expected` compares two machines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hw.commands import (
    BYTE_OUTS,
    COMMAND_BYTES,
    GROUP_ROWS,
    PARAMETER_ROWS,
    SCALARS,
    Function,
    Mul,
    Opcode,
    Out,
    Parts,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
    Unit,
    WeightFormat,
    XMode,
)
from hw.config import Config
from hw.encoding import Command, Scalar, Token, Value, encode
from hw.manifest import manifest_hash
from sim.iss import Machine, UndefinedError
from sim.iss.machine import ACTIONS

KINDS = ("transfer", "matmul", "vector", "row", "mixed")
PROGRAM, INPUT, OUTPUT = 0, 1, 5
"""Regions used."""

Words = npt.NDArray[np.int64]
_WEIGHTS = {
    "transfer": {"load": 3, "store": 2},
    "matmul": {"matmul": 1},
    "vector": {"vector": 8, "softmax": 1, "layernorm": 1},
    "row": {"row": 4, "vector": 1},
    "mixed": {"load": 2, "store": 2, "matmul": 3, "vector": 5, "row": 2, "softmax": 1},
}
_BARRIER = 16
"""Commands after which every unit waits for all others, which bounds the token counters."""


@dataclass
class RandomProgram:
    """A program with all that a run of it needs.

    Attributes
    ----------
    config : Config
    name : str
        Kind, seed and distribution: what makes it again.
    commands : list of Command
        BEGIN and END included.
    memory : uint8 [n]
        DRAM from address 0 before the run, the program in it.
    regions : dict of region to (base, limit)
    program_offset : int
    scalars : list of int
    expected : uint8 [n]
        DRAM after the run, by the instruction-set simulator.
    """

    config: Config
    name: str
    commands: list[Command]
    memory: npt.NDArray[np.uint8]
    regions: dict[int, tuple[int, int]]
    program_offset: int
    scalars: list[int]
    expected: npt.NDArray[np.uint8] = field(repr=False)

    def machine(self, memory: npt.NDArray[np.uint8], *, check: bool = False) -> Machine:
        """A simulator with registers set and a memory attached."""
        machine = Machine(self.config, memory, check=check)
        for region, (base, limit) in self.regions.items():
            machine.set_region(region, base, limit)
        machine.scalars = list(self.scalars)
        return machine

    def run(self, *, check: bool = False) -> npt.NDArray[np.uint8]:
        """Run it from its bytes on a fresh simulator and return DRAM."""
        memory = self.memory.copy()
        machine = self.machine(memory, check=check)
        machine.run(offset=self.program_offset, count=len(self.commands))
        return memory


class _Order:
    """Tokens for true dependences: who touched each word last, and who already knows."""

    def __init__(self, rng: np.random.Generator, sizes: dict[str, int]) -> None:
        self.rng = rng
        self.writer = {space: np.full(size, -1, dtype=np.int64) for space, size in sizes.items()}
        self.reader = {
            space: np.full((4, size), -1, dtype=np.int64) for space, size in sizes.items()
        }
        self.commands: list[Command] = []
        self.clocks: list[npt.NDArray[np.int64]] = []
        self.latest = [-1] * 4
        self.barrier = 0

    def add(
        self,
        item: Command,
        reads: Iterable[tuple[str, Words]],
        writes: Iterable[tuple[str, Words]],
    ) -> None:
        """Append a command, with the waits it needs, and the posts on those it waits for."""
        index = len(self.commands)
        unit = item.unit
        needed = np.full(4, -1, dtype=np.int64)
        for space, words in (*reads, *writes):
            self._need(needed, self.writer[space][words])
        for space, words in writes:
            for other in range(4):
                self._need(needed, self.reader[space][other, words])
        if index - self.barrier >= _BARRIER:
            self.barrier = index
        for other in range(4):
            # The first command of a unit behind a barrier waits for all that is before it.
            if self.latest[unit] < self.barrier:
                before = [i for i in range(self.barrier) if self.commands[i].unit == other]
                needed[other] = max(int(needed[other]), before[-1] if before else -1)
        mine = self.latest[unit]
        clock = self.clocks[mine].copy() if mine >= 0 else np.full(4, -1, dtype=np.int64)
        for other in range(4):
            rival = int(needed[other])
            if other == unit or rival <= clock[other]:
                continue
            semaphore = 3 * other + (unit if unit < other else unit - 1)
            amount = int(self.rng.integers(1, 3))
            poster = self.commands[rival]
            poster.posts = (*poster.posts, Token(semaphore, amount))
            item.waits = (*item.waits, Token(semaphore, amount))
            np.maximum(clock, self.clocks[rival], out=clock)
        clock[unit] = index
        self.commands.append(item)
        self.clocks.append(clock)
        self.latest[unit] = index
        for space, words in reads:
            self.reader[space][unit, words] = index
        for space, words in writes:
            self.writer[space][words] = index

    def _need(self, needed: npt.NDArray[np.int64], touched: npt.NDArray[np.int64]) -> None:
        for index in np.unique(touched[touched >= 0]).tolist():
            unit = self.commands[index].unit
            needed[unit] = max(int(needed[unit]), index)


def _words(base: int, *steps: tuple[int, int]) -> Words:
    out = np.array([base], dtype=np.int64)
    for count, stride in steps:
        out = (out[:, None] + np.arange(count) * stride).reshape(-1)
    return out


class _Generator:
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
        self.partition()
        self.order = _Order(
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
        self.lay_out()

    def acc_start_across_banks(self) -> int:
        border = self.config.acc_depth
        return max(0, min(border - self.acc_count // 2, self.config.acc_words - self.acc_count))

    # Numbers.

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

    # Layout.

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
            raise ValueError(f"words = {self.end - self.first}: at least {least}")

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
        self.machine = Machine(self.config, memory.copy(), check=True)
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

    # Emitting.

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
        item = Command(opcode, dict(fields))
        try:
            ACTIONS[opcode](self.machine, item.resolve({}))
        except UndefinedError:
            return False
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

    # Commands.

    def store_words(self, first: int, count: int) -> None:
        """STORE words of the scratchpad to fresh output bytes."""
        size = count * self.config.word_bytes
        fields = {
            "sp_addr": first,
            "region": OUTPUT,
            "offset": self.used,
            "length": size,
            "runs": 1,
            "planes": 1,
            "sp_chunk": 1,
        }
        self.used += size
        self.emit(Opcode.STORE, fields, [("sp", _words(first, (count, 1)))], [])

    def load_arena(self) -> None:
        place = self.first
        while place < self.end:
            count = min(self.integer(200, 400), self.end - place)
            fields = {
                "sp_addr": place,
                "region": INPUT,
                "offset": (place - self.first) * self.config.word_bytes,
                "length": count * self.config.word_bytes,
                "runs": 1,
                "planes": 1,
                "sp_chunk": 1,
            }
            self.emit(Opcode.LOAD, fields, [], [("sp", _words(place, (count, 1)))])
            place += count

    def transfer(self, load: bool) -> None:
        """Random nesting of chunks, runs and planes, both sides; no chunk over another."""
        half = self.integer(0, 1)
        width = self.config.panel if half else self.config.word_bytes
        runs, planes = self.integer(1, 9), self.integer(1, 3)
        length = self.choose([self.integer(1, 3 * width), width * self.integer(1, 3), 1])
        chunks = -(-length // width)
        extents = {
            "sp_chunk": chunks,
            "sp_run": -(-runs // 2) if half else runs,
            "sp_plane": planes,
        }
        place, span = {}, 1
        for name in self.rng.permutation(list(extents)):
            place[name] = span + (self.integer(0, 2) if self.chance(0.3) else 0)
            span = place[name] * (extents[name] - 1) + span
        low, high = self.free
        if span > high - low:
            return
        base = self.integer(low, high - span)
        words = _words(base, *((extents[n], place[n]) for n in ("sp_plane", "sp_run", "sp_chunk")))
        fields = {str(k): v for k, v in place.items()}
        fields |= {"sp_addr": base, "half": half, "length": length, "runs": runs, "planes": planes}
        # DRAM: runs in planes or planes in runs, upwards or downwards.
        inner, outer = ("run", runs), ("plane", planes)
        if self.chance(0.5):
            inner, outer = outer, inner
        pitch = length + self.choose([0, 0, self.integer(0, 70)])
        above = pitch * inner[1] + self.choose([0, self.integer(0, 70)])
        lowest = 0
        for (name, count), step in ((inner, pitch), (outer, above)):
            signed = -step if self.chance(0.3) else step
            fields[f"{name}_stride"] = signed
            lowest += min(0, signed * (count - 1))
        size = pitch * (inner[1] - 1) + above * (outer[1] - 1) + length
        region = INPUT if load else OUTPUT
        start, limit = self.regions[region]
        if load:
            if size > limit - start:
                return
            offset = self.choose([0, limit - start - size, self.integer(0, limit - start - size)])
        else:
            offset = self.used + self.integer(0, 9)
            if offset + size > (limit - start) // 4:
                return
            self.used = offset + size
        offset -= lowest
        fields |= {"region": region, "offset": offset}
        if self.chance(0.2):
            known = [i for i, held in self.scalars.items() if held <= offset]
            index = known[0] if known else len(self.scalars)
            if not known and index < SCALARS:
                self.scalars[index] = self.integer(0, offset)
            if index < SCALARS:
                fields |= {"scalar_on": 1, "scalar": index}
                fields["offset"] = offset - self.scalars[index]
        if load:
            self.emit(Opcode.LOAD, fields, [], [("sp", words)])
        else:
            self.emit(Opcode.STORE, fields, [("sp", words)], [])

    def matmul(self, whole: bool = False) -> None:
        config = self.config
        rows, columns, width = config.rows, config.columns, config.panel
        m, kt, nt = self.integer(1, 24), self.integer(1, 5), self.integer(1, 4)
        if self.chance(0.2):
            m = self.choose([1, 2, rows, 8])
        mode = self.choose([int(v) for v in XMode])
        accumulate = self.integer(0, 1)
        if whole:
            m = min(self.acc_count, self.stat_count)
            kt, nt, accumulate = self.integer(1, 2), self.acc_count // m, 0
        transposed = self.integer(0, 1)
        k_panels, n_panels = -(-kt * rows // width), -(-nt * columns // width)
        depth = -(-m // 2) if mode in (XMode.S8, XMode.U8) else m
        panels, words = (k_panels, nt * columns) if transposed else (n_panels, kt * rows)
        packed = not transposed and config.weight_bits == 8 and self.chance(0.3)
        words //= 4 if packed else 2
        group_words = -(-kt * rows // (4 * GROUP_ROWS))
        x = self.matrix(depth, k_panels, self.first, self.end, apart=False)
        w = self.matrix(words, panels, *self.weights, apart=False)
        group = self.matrix(group_words, panels, *self.weights, apart=False)
        acc_end = self.acc_first + self.acc_count
        acc = self.matrix(m, nt, self.acc_first, acc_end, apart=True)
        if whole:
            acc = (self.acc_first, m)
        if x is None or w is None or group is None or acc is None:
            return
        scale = self.scale_first + self.integer(0, self.scale_count - m)
        fields = {
            "m": m,
            "kt": kt,
            "nt": nt,
            "x_addr": x[0],
            "x_stride": x[1],
            "w_addr": w[0],
            "w_stride": w[1],
            "acc_addr": acc[0],
            "acc_stride": acc[1],
            "scale": scale,
            "mode": mode,
            "transposed": transposed,
            "k_outer": self.integer(0, 1),
            "accumulate": accumulate,
            "weights": WeightFormat.S4 if packed else WeightFormat.S8,
            "group_addr": group[0],
            "group_stride": group[1],
            "valid": self.choose([nt * columns, self.integer(0, nt * columns + 3)]),
            "row0": self.integer(0, nt * columns),
            "stat": self.stat_first,
            "row_max": int(whole or (m <= self.stat_count and self.chance(0.4))),
            "causal": int(self.chance(0.3)),
        }
        writes = [("acc", _words(acc[0], (nt, acc[1]), (m, 1)))]
        if fields["row_max"]:
            if not whole:
                fields["stat"] += self.integer(0, self.stat_count - m)
            writes.append(("stat", _words(fields["stat"], (m, 1))))
        reads = [
            ("sp", _words(x[0], (k_panels, x[1]), (depth, 1))),
            ("sp", _words(w[0], (panels, w[1]), (words, 1))),
        ]
        if packed:
            reads.append(("sp", _words(group[0], (panels, group[1]), (group_words, 1))))
        if mode == XMode.SCALED:
            reads.append(("scale", _words(scale, (m, 1))))
        self.emit(Opcode.MATMUL, fields, reads, writes)

    def flags(self) -> dict[str, int]:
        """A point of the legal flag space, numbers chosen so that outputs are not all saturated."""
        functions = [Function.NONE, Function.EXP2]
        functions += [Function[name.upper()] for name in self.config.functions]
        f = {
            "source": self.integer(0, 1),
            "pre": self.choose([int(v) for v in Pre]),
            "mul": self.choose([int(v) for v in Mul]),
            "bias": self.integer(0, 1),
            "function": self.choose([int(v) for v in functions]),
            "post": self.choose([int(v) for v in Post]),
            "out": self.choose([1, 1, *(int(v) for v in Out)]),
            "stat_op": self.choose([int(v) for v in Stat]),
            "magnitude": self.integer(0, 1),
            "first": self.integer(0, 1),
            "causal": int(self.chance(0.25)),
            "shift": self.choose([0, self.integer(0, 34), self.integer(4, 24)]),
            "shift1": self.choose([0, self.integer(0, 30), self.integer(4, 20)]),
            "shift2": self.choose([0, self.integer(0, 40), self.integer(4, 20)]),
            "imm": self.choose([1, self.integer(0, 65535), self.integer(32768, 65535)]),
        }
        if f["post"] == Post.AFFINE:
            f["bias"] = 0
        if f["source"] == Source.ACC and self.chance(0.3):
            f["parts"] = self.choose([Parts.TWO, Parts.THREE])
        if f["pre"] == Pre.CENTER:
            f["imm"] = self.choose([1, 4096, self.integer(1, 4096)])
        if f["pre"] in (Pre.MAX_MINUS, Pre.CENTER):
            f["stat_op"] = self.choose([Stat.NONE, Stat.SUM])
        if self.corner and self.chance(0.3):
            f["shift"], f["shift1"], f["shift2"] = (self.choose([0, 34]) for _ in range(3))
        return f

    def shape(self, most: int = 24) -> dict[str, int]:
        width = self.config.panel
        m, panels = self.integer(1, most), self.integer(1, 3)
        if self.chance(0.2):
            m = 1
        columns = panels * width
        valid = self.choose([columns, columns, self.integer(0, columns), columns + 7])
        return {"m": m, "panels": panels, "valid": valid, "row0": self.integer(0, columns)}

    def vector(self, f: dict[str, int] | None = None, shape: dict[str, int] | None = None) -> bool:
        """One vector command with the given flags and shape, or random ones."""
        config = self.config
        f = {**(f or self.flags()), **(shape or self.shape())}
        m, panels = f["m"], f["panels"]
        tiles = panels * config.panel // config.columns
        reads: list[tuple[str, Words]] = []
        writes: list[tuple[str, Words]] = []
        taken = [np.zeros(0, dtype=np.int64)]

        def place(name: str, spot: tuple[int, int] | None) -> bool:
            if spot is None:
                return False
            f.setdefault(f"{name}_addr", spot[0])
            f.setdefault(f"{name}_stride", spot[1])
            return True

        acc_end = self.acc_first + self.acc_count
        if not place("acc", self.matrix(m, tiles, self.acc_first, acc_end, apart=False)):
            return False
        parts = f.setdefault("parts", Parts.ONE)
        if parts:
            room = acc_end - f["acc_addr"] - (tiles - 1) * f["acc_stride"] - m
            f["acc_part"] = self.integer(0, room // parts)
        if not place("in", self.matrix(m, panels, self.first, self.end, apart=False)):
            return False
        blocks = self.par_blocks
        end = self.par_first + PARAMETER_ROWS * blocks
        spot = self.matrix(PARAMETER_ROWS, panels, self.par_first, end, apart=False)
        if spot is not None and panels > 1:
            # Every block on a block: the rows' meaning differs.
            most = (blocks - 1) // (panels - 1)
            step = self.integer(0, most)
            first = self.integer(0, blocks - 1 - step * (panels - 1))
            spot = (self.par_first + PARAMETER_ROWS * first, PARAMETER_ROWS * step)
        elif spot is not None:
            first = self.integer(0, blocks - 1)
            spot = (self.par_first + PARAMETER_ROWS * first, spot[1])
        place("par", spot)
        f.setdefault("scale_in", self.scale_first + self.integer(0, self.scale_count - m))
        f.setdefault("scale_out", self.scale_first + self.integer(0, self.scale_count - m))
        f.setdefault("stat", self.stat_first + self.integer(0, self.stat_count - m))
        if (
            f["pre"] == Pre.ROW_SCALE
            and f["magnitude"]
            and (abs(f["scale_in"] - f["scale_out"]) < m)
        ):
            f["magnitude"] = 0
        if f["source"] == Source.ACC:
            steps = (parts + 1, f.get("acc_part", 0)), (tiles, f["acc_stride"]), (m, 1)
            reads.append(("acc", _words(f["acc_addr"], *steps)))
        operand = _words(f["in_addr"], (panels, f["in_stride"]), (m, 1))
        if f["source"] == Source.SP or f["post"] == Post.RESIDUAL:
            reads.append(("sp", operand))
            taken.append(operand)
        if f["mul"] == Mul.CHANNEL or f["bias"] or f["post"] != Post.NONE:
            # All five rows: more than is read, so ordered with a little to spare.
            reads.append(
                ("sp", _words(f["par_addr"], (panels, f["par_stride"]), (PARAMETER_ROWS, 1)))
            )
        if f["pre"] == Pre.ROW_SCALE:
            reads.append(("scale", _words(f["scale_in"], (m, 1))))
        if f["magnitude"]:
            writes.append(("scale", _words(f["scale_out"], (m, 1))))
        rows = _words(f["stat"], (m, 1))
        reads.append(("stat", rows))
        if f["stat_op"] != Stat.NONE:
            writes.append(("stat", rows))
        if f["out"] != Out.NONE and "out_addr" not in f and not self.place_output(f, taken):
            return False
        if f["out"] != Out.NONE:
            depth = -(-m // 2) if f["out"] in BYTE_OUTS else m
            writes.append(("sp", _words(f["out_addr"], (panels, f["out_stride"]), (depth, 1))))
        f.setdefault("out_addr", 0)
        f.setdefault("out_stride", 0)
        return self.emit(Opcode.VECTOR, f, reads, writes)

    def place_output(self, f: dict[str, int], taken: list[Words]) -> bool:
        """Output over the operand, element over element, or clear of everything read."""
        m, panels = f["m"], f["panels"]
        low, high = self.free
        operand = _words(f["in_addr"], (panels, f["in_stride"]), (m, 1))
        over = (
            f["out"] not in BYTE_OUTS
            and low <= operand.min()
            and len(np.unique(operand)) == len(operand)
        )
        if over and self.chance(0.3):
            f["out_addr"], f["out_stride"] = f["in_addr"], f["in_stride"]
            return True
        depth = -(-m // 2) if f["out"] in BYTE_OUTS else m
        for _ in range(20):
            spot = self.matrix(depth, panels, low, high, apart=True)
            if spot is None:
                return False
            words = _words(spot[0], (panels, spot[1]), (depth, 1))
            if not np.isin(words, np.concatenate(taken)).any():
                f["out_addr"], f["out_stride"] = spot
                return True
        return False

    def row(self, op: RowOp | None = None, stat: int | None = None, m: int | None = None) -> None:
        chosen = RowOp(self.integer(0, 3)) if op is None else op
        f = {"op": int(chosen), "rms": self.integer(0, 1), "sp_addr": self.first}
        f["n"] = self.choose([1, 4096, self.integer(1, 4096)])
        f["eps"] = self.choose([0, (1 << 40) - 1, self.integer(0, 1 << 30)])
        f["scale"] = self.scale_first
        f["stat"] = self.stat_first
        reads: list[tuple[str, Words]] = []
        writes: list[tuple[str, Words]] = []
        width = self.config.panel
        if chosen in (RowOp.GET, RowOp.PUT):
            f["m"] = self.integer(1, self.scale_count) if m is None else m
            f["scale"] += self.integer(0, self.scale_count - f["m"])
            words = -(-f["m"] // width)
            rows = ("scale", _words(f["scale"], (f["m"], 1)))
            if chosen == RowOp.GET:
                spare = -(-self.scale_count // width) - words
                f["sp_addr"] = self.scale_words + self.integer(0, spare)
                reads.append(("sp", _words(f["sp_addr"], (words, 1))))
                writes.append(rows)
            else:
                f["sp_addr"] = self.integer(self.free[0], self.free[1] - words)
                reads.append(rows)
                writes.append(("sp", _words(f["sp_addr"], (words, 1))))
        else:
            f["m"] = self.integer(1, self.stat_count) if m is None else m
            f["stat"] = (
                self.stat_first + self.integer(0, self.stat_count - f["m"])
                if stat is None
                else stat
            )
            writes.append(("stat", _words(f["stat"], (f["m"], 1))))
        self.emit(Opcode.ROW, f, reads, writes)

    def plain(self, **fields: int) -> dict[str, int]:
        """Flags that do nothing, changed by `fields`."""
        names = "source pre mul bias function post out stat_op magnitude first causal"
        return {**dict.fromkeys((names + " shift shift1 shift2 imm").split(), 0), **fields}

    def softmax(self) -> None:
        """Maximum, exponentials and their sum, division, product: with sensible numbers."""
        shape = self.shape()
        m = shape["m"]
        stat = self.stat_first + self.integer(0, self.stat_count - m)
        source = self.integer(0, 1)
        causal = self.integer(0, 1)
        spot = self.matrix(m, shape["panels"], self.first, self.end, apart=True)
        tiles = shape["panels"] * self.config.panel // self.config.columns
        acc = self.matrix(m, tiles, self.acc_first, self.acc_first + self.acc_count, apart=False)
        if spot is None or acc is None:
            return
        same = {**shape, "stat": stat, "in_addr": spot[0], "in_stride": spot[1]}
        same |= {"acc_addr": acc[0], "acc_stride": acc[1]}
        top = self.plain(source=source, causal=causal, stat_op=Stat.MAX, first=1)
        if not self.vector(top, same):
            return
        e8 = self.plain(
            source=source,
            causal=causal,
            pre=Pre.MAX_MINUS,
            mul=Mul.IMMEDIATE,
            imm=self.integer(32768, 65535),
            shift=self.integer(14, 22),
            function=Function.EXP2,
            out=Out.U8,
            stat_op=Stat.SUM,
            first=1,
        )
        if not self.vector(e8, same):
            return
        self.row(RowOp.DIVIDE, stat, m)
        self.vector(self.plain(mul=Mul.ROW, shift=8, out=Out.S16), {**shape, "stat": stat})

    def layernorm(self) -> None:
        """Moments, rsqrt, and the normalized output."""
        shape = self.shape()
        shape["valid"] = shape["panels"] * self.config.panel
        m = shape["m"]
        stat = self.stat_first + self.integer(0, self.stat_count - m)
        spot = self.matrix(m, shape["panels"], *self.free, apart=True)
        if spot is None:
            return
        same = {**shape, "stat": stat}
        z = {"out_addr": spot[0], "out_stride": spot[1]}
        moments = self.plain(stat_op=Stat.MOMENTS, first=1, out=Out.S16, mul=Mul.CHANNEL, bias=1)
        if not self.vector(moments, {**same, **z}):
            return
        self.row(RowOp.RSQRT, stat, m)
        normal = self.plain(
            source=Source.SP,
            pre=Pre.CENTER,
            imm=shape["valid"],
            mul=Mul.ROW,
            shift=6,
            post=Post.AFFINE,
            shift2=self.integer(8, 16),
            out=Out.S16,
            magnitude=1,
            first=1,
        )
        self.vector(normal, {**same, "in_addr": spot[0], "in_stride": spot[1]})

    # The whole.

    def prepare(self) -> None:
        """Give every memory of the machine values that the program knows."""
        self.load_arena()
        self.matmul(whole=True)
        rows = min(self.stat_count, self.scale_count)
        self.vector(
            self.plain(source=Source.SP, stat_op=Stat.MOMENTS, first=1),
            {"m": rows, "panels": 1, "valid": self.config.panel, "row0": 0}
            | {"stat": self.stat_first},
        )
        self.row(RowOp.RSQRT, self.stat_first, self.stat_count)
        self.row(RowOp.GET, m=self.scale_count)

    def finish(self) -> None:
        """Store the arena, then views of accumulators, scale rows and statistics."""
        self.used = -(-self.used // 64) * 64
        self.store_words(self.first, self.end - self.first)
        config = self.config
        low = self.free[0]
        m = min(self.acc_count, 32)
        panels = -(-self.acc_count * config.columns // (m * config.panel))
        whole = {"m": m, "panels": panels, "valid": panels * config.panel, "row0": 0}
        acc = {"acc_addr": self.acc_first, "acc_stride": m}
        size = m * panels
        views = [
            self.plain(out=Out.WRAP16),
            self.plain(mul=Mul.IMMEDIATE, imm=1, shift=16, out=Out.WRAP16),
        ]
        for number, flags in enumerate(views):
            out = {"out_addr": low + number * size, "out_stride": m}
            if not self.vector(flags, {**whole, **acc, **out}):
                raise AssertionError("a view of the accumulators is undefined")
        self.store_words(low, len(views) * size)
        rows = self.stat_count
        shape = {"m": rows, "panels": 1, "valid": config.panel, "row0": 0}
        shape |= {"stat": self.stat_first, "in_addr": self.first, "in_stride": 0}
        place = low
        for pre, mul, shift in (
            (Pre.MAX_MINUS, Mul.IMMEDIATE, 0),
            (Pre.MAX_MINUS, Mul.IMMEDIATE, 14),
            (Pre.MAX_MINUS, Mul.IMMEDIATE, 28),
            (Pre.TOP_MINUS, Mul.IMMEDIATE, 0),
            (Pre.TOP_MINUS, Mul.IMMEDIATE, 14),
            (Pre.NONE, Mul.ROW, 0),
            (Pre.NONE, Mul.ROW, 8),
        ):
            flags = self.plain(source=Source.SP, pre=pre, mul=mul, imm=1, shift=shift, out=Out.S16)
            self.vector(flags, {**shape, "out_addr": place, "out_stride": 0})
            place += rows
        words = -(-self.scale_count // config.panel)
        self.emit(
            Opcode.ROW,
            {"op": RowOp.PUT, "m": self.scale_count, "scale": self.scale_first, "sp_addr": place},
            [("scale", _words(self.scale_first, (self.scale_count, 1)))],
            [("sp", _words(place, (words, 1)))],
        )
        self.store_words(low, place + words - low)

    def build(self, kind: str, count: int, name: str) -> RandomProgram:
        self.prepare()
        weights = _WEIGHTS[kind]
        names = list(weights)
        share = np.array([weights[n] for n in names], dtype=np.float64)
        target = len(self.order.commands) + count
        for _ in range(20 * count):
            if len(self.order.commands) >= target:
                break
            what = str(self.rng.choice(names, p=share / share.sum()))
            if what in ("load", "store"):
                self.transfer(what == "load")
            else:
                getattr(self, what)()
        self.finish()
        body = self.order.commands
        begin = {"hash": manifest_hash(self.config), "commands": len(body) + 2}
        commands = [Command(Opcode.BEGIN, dict(begin)), *body, Command(Opcode.END)]
        program = b"".join(encode(item) for item in commands)
        start = self.regions[PROGRAM][0] + self.program_offset
        for memory in (self.memory, self.machine.dram.buffers[0]):
            memory[start : start + len(program)] = np.frombuffer(program, dtype=np.uint8)
        return RandomProgram(
            config=self.config,
            name=name,
            commands=commands,
            memory=self.memory,
            regions=self.regions,
            program_offset=self.program_offset,
            scalars=[self.scalars.get(i, 0) for i in range(SCALARS)],
            expected=self.machine.dram.buffers[0],
        )


def random_program(
    config: Config,
    seed: int,
    *,
    kind: str = "mixed",
    commands: int = 24,
    corner: bool = False,
    words: int | None = None,
) -> RandomProgram:
    """Make a random legal program.

    Parameters
    ----------
    config : Config
    seed : int
    kind : str
        Commands between preparation and the final stores: "transfer", "matmul", "vector", "row" or
        "mixed".
    commands : int
        How many of them (a softmax or LayerNorm counts each of its commands).
    corner : bool
        Data and parameters from the ends of their ranges.
    words : int, optional
        Scratchpad words used, loaded first and stored last; 768 where there are as many.

    Returns
    -------
    RandomProgram
        Race-free, and defined in every step.

    Raises
    ------
    ValueError
        If the kind is unknown, or the words too few.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: one of {', '.join(KINDS)}")
    if not 0 <= commands <= 500:
        raise ValueError(f"commands = {commands}: 0 to 500 is needed")
    name = f"{config.name}-{kind}-{seed}{'-corner' if corner else ''}"
    return _Generator(config, seed, corner, words).build(kind, commands, name)


def unit_counts(commands: Iterable[Command]) -> dict[str, int]:
    """How many commands each unit has."""
    counts = dict.fromkeys((unit.name for unit in Unit), 0)
    for item in commands:
        counts[item.unit.name] += 1
    return counts
