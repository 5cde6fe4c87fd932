"""What a machine holds, and how its units reach it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilewright import Error
from tilewright.hw.commands import REGIONS, SCALARS, SEMAPHORES, Fault, Unit
from tilewright.hw.config import Config
from tilewright.sim.iss.dram import Dram

Index = npt.NDArray[np.int64]

F1_BITS, F2_BITS = 44, 48
F1_LOWEST = -(1 << F1_BITS - 1)
TOP_LOWEST = -(1 << 31)
DENOMINATOR_BITS = 20
MAGNITUDE_MAX = 32768


@dataclass(frozen=True)
class FaultRecord:
    """What the fault registers hold.

    Attributes
    ----------
    code : Fault
    unit : Unit
    index : int
        Command, BEGIN being 0.
    address : int
        DRAM address of a bus or window fault, else 0.
    """

    code: Fault
    unit: Unit
    index: int
    address: int = 0


class MachineFault(Error):
    """The machine stopped; `record` is what its registers say, the state is left readable."""

    def __init__(self, record: FaultRecord, detail: str) -> None:
        self.record = record
        super().__init__(
            f"{record.code.name} in {record.unit.name}, command {record.index}, "
            f"address {record.address:#x}: {detail}"
        )


class UndefinedError(Error):
    """Check mode: a command whose result the machine does not define; the message names it."""


class WindowError(Exception):
    """A transfer that must fault: code and address, before its index is known."""

    def __init__(self, code: Fault, address: int, detail: str) -> None:
        self.code = code
        self.address = address
        super().__init__(detail)


class State:
    """Memories and registers of one machine.

    Attributes
    ----------
    sp : uint8 [sp_words, 2W]
        Scratchpad; `sp16` (int16 [sp_words, W]) and `sp_halves` (uint8 [2 · sp_words, W]) view the
        same bytes.
    acc : int32 [acc_words, C]
    scale : uint16 [scale_rows]
    f1, f2, factor, exponent, top : int64 [stat_rows]
    base, limit : list of int, [8]
    scalars : list of int, [16]
    tokens : list of int, [16]
    """

    def __init__(self, config: Config, check: bool) -> None:
        self.config = config
        self.check = check
        self.dram = Dram()
        self.sp = np.zeros((config.sp_words, config.word_bytes), dtype=np.uint8)
        self.sp16 = self.sp.view("<i2")
        self.sp_halves = self.sp.reshape(2 * config.sp_words, config.panel)
        self.acc = np.zeros((config.acc_words, config.columns), dtype=np.int32)
        self.scale = np.zeros(config.scale_rows, dtype=np.uint16)
        self.f1 = np.zeros(config.stat_rows, dtype=np.int64)
        self.f2 = np.zeros(config.stat_rows, dtype=np.int64)
        self.factor = np.zeros(config.stat_rows, dtype=np.int64)
        self.exponent = np.zeros(config.stat_rows, dtype=np.int64)
        self.top = np.zeros(config.stat_rows, dtype=np.int64)
        self.base = [0] * REGIONS
        self.limit = [0] * REGIONS
        self.scalars = [0] * SCALARS
        self.tokens = [0] * SEMAPHORES

    def undefined(self, condition: bool | np.bool_, detail: str) -> None:
        """In check mode refuse what the machine does not define."""
        if self.check and condition:
            raise UndefinedError(detail)

    def index(self, name: str, base: int, size: int, *steps: tuple[int, int]) -> Index:
        """Addresses `base + Σ place · stride` over (count, stride) steps, [count, …], wrapped."""
        out = np.array(base, dtype=np.int64)
        for count, stride in steps:
            out = out[..., None] + np.arange(count, dtype=np.int64) * stride
        if out.size and int(out.flat[-1]) >= size:
            self.undefined(True, f"{name}: address {int(out.flat[-1])}, the last is {size - 1}")
            out &= size - 1
        return out

    def rows16(self, name: str, base: int, panels: int, stride: int, rows: int) -> np.ndarray:
        """An s16 panel matrix as int16 [rows, panels · W]."""
        index = self.index(name, base, len(self.sp), (panels, stride), (rows, 1))
        return self.sp16[index].transpose(1, 0, 2).reshape(rows, -1)

    def rows8(self, name: str, base: int, panels: int, stride: int, rows: int) -> np.ndarray:
        """An s8/u8 panel matrix as uint8 [rows, panels · W]."""
        index = self._halves(name, base, panels, stride, rows)
        return self.sp_halves[index].transpose(1, 0, 2).reshape(rows, -1)

    def rows4(self, name: str, base: int, panels: int, stride: int, rows: int) -> np.ndarray:
        """A panel matrix of 4 bits, four rows a word, as uint8 [rows, panels · W] of 0 … 15."""
        quarters = self.sp.reshape(4 * len(self.sp), self.config.panel // 2)
        index = self.index(name, 4 * base, len(quarters), (panels, 4 * stride), (rows, 1))
        pairs = quarters[index].transpose(1, 0, 2).reshape(rows, -1, 1)
        return np.concatenate((pairs & 15, pairs >> 4), axis=-1).reshape(rows, -1)

    def put16(self, name: str, base: int, stride: int, values: np.ndarray) -> None:
        """Write [rows, panels · W] as s16 panels."""
        rows, panels = len(values), values.shape[1] // self.config.panel
        index = self.index(name, base, len(self.sp), (panels, stride), (rows, 1))
        self.sp16[index] = self._panels(values)

    def put8(self, name: str, base: int, stride: int, values: np.ndarray) -> None:
        """Write the low bytes of [rows, panels · W] as s8/u8 panels."""
        rows, panels = len(values), values.shape[1] // self.config.panel
        index = self._halves(name, base, panels, stride, rows)
        self.sp_halves[index] = self._panels(values).astype(np.uint8)

    def _halves(self, name: str, base: int, panels: int, stride: int, rows: int) -> Index:
        # Twice the word address wraps where the word address does.
        size = len(self.sp_halves)
        return self.index(name, 2 * base, size, (panels, 2 * stride), (rows, 1))

    def _panels(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), -1, self.config.panel).transpose(1, 0, 2)

    def tiles(self, name: str, base: int, count: int, stride: int, rows: int) -> Index:
        """Accumulator words of `count` tiles, [count, rows]."""
        return self.index(name, base, len(self.acc), (count, stride), (rows, 1))

    def stat_rows(self, base: int, rows: int) -> Index:
        """Statistics rows from `base` on."""
        return self.index("stat", base, len(self.f1), (rows, 1))

    def scale_rows(self, name: str, base: int, rows: int) -> Index:
        """Scale rows from `base` on."""
        return self.index(name, base, len(self.scale), (rows, 1))

    def magnitudes(self, name: str, base: int, rows: int) -> npt.NDArray[np.int64]:
        """Largest magnitudes from which (m, e) are derived."""
        a = self.scale[self.scale_rows(name, base, rows)].astype(np.int64)
        over = a > MAGNITUDE_MAX
        if over.any():
            self.undefined(True, f"{name}: a magnitude of {int(a.max())}, {MAGNITUDE_MAX} at most")
            a[over] = MAGNITUDE_MAX
        return a
