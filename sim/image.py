"""A run as data: program, regions, and what memory must hold afterwards, in one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import COMMAND_BYTES, PROGRAM_REGION
from tilewright.hw.config import Config
from tilewright.hw.registers import CONTROL_START, REGISTERS
from tilewright.sim.compare import Matrix

Bytes = npt.NDArray[np.uint8]

_ALIGNMENT = 4096


@dataclass(kw_only=True)
class Image:
    """One run of one configuration.

    Parameters
    ----------
    config : Config
    program : bytes
        Commands; in memory they stand behind the content of region 0.
    regions : dict of int to uint8 array
        Content of each region before the run.
    expected : dict of int to uint8 array
        Content of regions after it; those not named are not compared.
    scalars : dict of int to int
    buffers : dict of str to Matrix
        Names for what is in the regions, for messages.
    base : int
        Address of the first region.
    """

    config: Config
    program: bytes
    regions: dict[int, Bytes] = field(default_factory=dict)
    expected: dict[int, Bytes] = field(default_factory=dict)
    scalars: dict[int, int] = field(default_factory=dict)
    buffers: dict[str, Matrix] = field(default_factory=dict)
    base: int = 0x4000_0000

    @property
    def program_offset(self) -> int:
        """PROGRAM_OFFSET: behind the content of region 0."""
        content = self.regions.get(PROGRAM_REGION)
        return 0 if content is None else -(-content.size // COMMAND_BYTES) * COMMAND_BYTES

    def placement(self) -> dict[int, tuple[int, int]]:
        """(base, limit) of each region, page by page from `base`, a page between two."""
        sizes = {index: data.size for index, data in self.regions.items()}
        sizes[PROGRAM_REGION] = self.program_offset + len(self.program)
        at = self.base
        placed = {}
        for index in sorted(sizes):
            placed[index] = (at, at + sizes[index])
            at += (-(-sizes[index] // _ALIGNMENT) + 1) * _ALIGNMENT
        return placed

    def memory(self) -> Bytes:
        """All of memory from `base` on, before the run."""
        placed = self.placement()
        end = max(limit for _, limit in placed.values())
        memory = np.zeros(-(-(end - self.base) // _ALIGNMENT) * _ALIGNMENT, dtype=np.uint8)
        for index, data in self.regions.items():
            start = placed[index][0] - self.base
            memory[start : start + data.size] = data
        start = placed[PROGRAM_REGION][0] - self.base + self.program_offset
        memory[start : start + len(self.program)] = np.frombuffer(self.program, dtype=np.uint8)
        return memory

    def contents(self, memory: Bytes) -> dict[int, Bytes]:
        """The regions that `expected` names, out of all of memory."""
        placed = self.placement()
        found = {}
        for index, data in self.expected.items():
            start = placed[index][0] - self.base
            found[index] = memory[start : start + data.size]
        return found

    def registers(self, *, watchdog: int = 100_000) -> list[tuple[int, int]]:
        """(address, value) of every register to write before the start."""
        values = {"PROGRAM_OFFSET": self.program_offset, "WATCHDOG": watchdog, "IRQ_ENABLE": 1}
        values["PROGRAM_COUNT"] = len(self.program) // COMMAND_BYTES
        values |= {f"SCALAR{index}": value for index, value in self.scalars.items()}
        for index, (base, limit) in self.placement().items():
            for name, value in ((f"BASE{index}", base), (f"LIMIT{index}", limit)):
                values[f"{name}_LO"] = value & 0xFFFF_FFFF
                values[f"{name}_HI"] = value >> 32
        return [(REGISTERS[name].address, value) for name, value in values.items()]

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        header = {
            "config": self.config.to_dict(),
            "scalars": list(self.scalars.items()),
            "buffers": {name: buffer.to_dict() for name, buffer in self.buffers.items()},
            "base": self.base,
        }
        arrays: dict[str, npt.NDArray[np.uint8]] = {
            "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
            "program": np.frombuffer(self.program, dtype=np.uint8),
        }
        for kind, contents in (("region", self.regions), ("expected", self.expected)):
            arrays |= {f"{kind}{index}": data for index, data in contents.items()}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def export(self, folder: Path) -> list[Path]:
        """Write the run for a simulator that knows nothing of this project.

        Returns
        -------
        list of Path
            before.bin and after.bin, the bytes of memory before and after the run; run.json:
            "base", the address of the first of them, and "registers", the (address, value) to
            write one after the other, of which the last starts the run.
        """
        before = self.memory()
        after = before.copy()
        for index, content in self.contents(after).items():
            content[:] = self.expected[index]
        start = (REGISTERS["CONTROL"].address, CONTROL_START)
        run = {"base": self.base, "registers": [*self.registers(), start]}
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "before.bin": before.tobytes(),
            "after.bin": after.tobytes(),
            "run.json": json.dumps(run).encode(),
        }
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return [folder / name for name in files]

    @classmethod
    def load(cls, path: Path) -> "Image":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            return cls(
                config=Config.from_dict(header["config"]),
                program=arrays["program"].tobytes(),
                regions=_numbered(arrays, "region"),
                expected=_numbered(arrays, "expected"),
                scalars={int(index): int(value) for index, value in header["scalars"]},
                buffers={name: Matrix(**values) for name, values in header["buffers"].items()},
                base=header["base"],
            )


def _numbered(arrays: Mapping[str, Bytes], kind: str) -> dict[int, Bytes]:
    return {int(n.removeprefix(kind)): arrays[n] for n in arrays if n.startswith(kind)}
