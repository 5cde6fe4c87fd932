"""What runs on a machine: a program with its constants, its buffers and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilewright.hw.commands import PROGRAM_REGION, REGIONS, SCALARS
from tilewright.hw.config import Config
from tilewright.sw.arguments import array, instance, integer
from tilewright.sw.errors import InputError
from tilewright.sw.program.layouts import MAGNITUDES, Array, layout
from tilewright.sw.program.operation_names import OperationNames
from tilewright.sw.program.program import Program

Direction = Literal["input", "output", "internal"]
DIRECTIONS: tuple[Direction, ...] = ("input", "output", "internal")
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Buffer:
    """An array in DRAM.

    Attributes
    ----------
    region, offset, size : int
        Region, and bytes from its base.
    layout : str
        One of `tilewright.sw.program.layouts.BUFFER_LAYOUTS`.
    shape : tuple of int
        Logical shape.
    direction : str
        "input", "output" or "internal".
    of : str
        Of "u16 magnitudes", the buffer whose rows they belong to.
    """

    region: int
    offset: int
    size: int
    layout: str
    shape: tuple[int, ...]
    direction: Direction = "internal"
    of: str = ""

    @property
    def end(self) -> int:
        """The byte behind it, from the region's base."""
        return self.offset + self.size

    @property
    def derived(self) -> bool:
        """Whether `Executable.pack` makes it from another buffer."""
        return self.direction == "input" and self.layout == MAGNITUDES


@dataclass(frozen=True, kw_only=True)
class Executable:
    """A program that is ready to be loaded, saved or inspected.

    Attributes
    ----------
    config : Config
        The machine it was made for.
    program : Program
        Region 0 holds nothing else.
    constants : mapping of int to bytes
        Content of the regions that are only read: weights, parameters, tables.
    regions : mapping of int to int
        Bytes of every other region and of those with constants; region 0 is not named.
    buffers : mapping of str to Buffer
        What inputs, outputs and intermediate results are called and where they lie. What regions
        without inputs and outputs hold stays from one run to the next.
    scalars : mapping of str to int
        Scalar registers by meaning, for example "length".
    metadata : mapping of str to JSON-able values
        Quantization parameters, shapes; "macs": multiply-accumulates of the work itself;
        "estimate": {"cycles": …, "busy": {unit: …}}; "operations": what each command belongs to
        (`tilewright.sw.program.operation_names`).

    Raises
    ------
    ValueError
        When the parts do not fit together.
    """

    config: Config
    program: Program
    constants: Mapping[int, bytes] = field(default_factory=dict)
    regions: Mapping[int, int] = field(default_factory=dict)
    buffers: Mapping[str, Buffer] = field(default_factory=dict)
    scalars: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.program.config != self.config:
            raise ValueError(
                f"program for {self.program.config.title!r}, executable for {self.config.title!r}"
            )
        for region, size in self.regions.items():
            if not 0 <= region < REGIONS or region == PROGRAM_REGION:
                raise ValueError(f"region {region}: must be 1 to {REGIONS - 1}")
            if size < 0:
                raise ValueError(f"region {region} of {size} bytes: must be 0 or more")
        for region, content in self.constants.items():
            if len(content) != self.regions.get(region):
                raise ValueError(
                    f"region {region}: {len(content)} bytes of constants, "
                    f"{self.regions.get(region)} of region"
                )
        for name, buffer in self.buffers.items():
            self._check_buffer(name, buffer)
        for name, register in self.scalars.items():
            if not 0 <= register < SCALARS:
                raise ValueError(f"scalar {name!r} = s{register}: must be 0 to {SCALARS - 1}")
        if len(self.operations) not in (0, len(self.program.body)):
            raise ValueError(
                f"operations of {len(self.operations)} commands, there are "
                f"{len(self.program.body)} between BEGIN and END"
            )

    def _check_buffer(self, name: str, buffer: Buffer) -> None:
        if buffer.region not in self.regions or not (
            0 <= buffer.offset <= buffer.end <= self.regions[buffer.region]
        ):
            raise ValueError(
                f"buffer {name!r}: bytes {buffer.offset} to {buffer.end} of region "
                f"{buffer.region}, which has {self.regions.get(buffer.region, 0)}"
            )
        size = layout(buffer.layout).size(buffer.shape, self.config.panel)
        if size != buffer.size:
            raise ValueError(
                f"buffer {name!r}: {buffer.size} bytes, {buffer.layout!r} of shape {buffer.shape} "
                f"takes {size}"
            )
        if buffer.direction not in DIRECTIONS:
            raise ValueError(f"buffer {name!r}: direction {buffer.direction!r}")
        if buffer.direction != "internal" and buffer.region in self.constants:
            raise ValueError(f"buffer {name!r}: an {buffer.direction} among constants")
        if buffer.derived:
            source = self.buffers.get(buffer.of)
            fits = source is not None and source.direction == "input" and not source.derived
            if source is None or not fits or source.shape[:-1] != buffer.shape:
                raise ValueError(f"buffer {name!r}: magnitudes of {buffer.of!r}, which is no match")

    # ---- what is where ----

    @cached_property
    def operations(self) -> OperationNames:
        """What each command belongs to; empty where that is not known."""
        found = self.metadata.get("operations")
        return OperationNames() if found is None else OperationNames.from_metadata(found)

    @cached_property
    def commands(self) -> bytes:
        """The program as it stands in DRAM."""
        return self.program.to_bytes()

    @property
    def inputs(self) -> dict[str, Buffer]:
        """The arrays a run needs."""
        return {n: b for n, b in self.buffers.items() if b.direction == "input" and not b.derived}

    @property
    def outputs(self) -> dict[str, Buffer]:
        """The arrays a run gives."""
        return {n: b for n, b in self.buffers.items() if b.direction == "output"}

    def regions_of(self, direction: Direction) -> set[int]:
        """Regions that hold a buffer of a direction; "internal": those with no other, no constants.

        A region may hold inputs and outputs.
        """
        moved = {b.region: set[str]() for b in self.buffers.values()}
        for buffer in self.buffers.values():
            moved[buffer.region].add(buffer.direction)
        if direction == "internal":
            busy = {r for r, found in moved.items() if found & {"input", "output"}}
            return set(self.regions) - set(self.constants) - busy
        return {region for region, found in moved.items() if direction in found}

    # ---- arrays to bytes and back ----

    def pack(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[int, Bytes]:
        """Content of the regions with inputs; the rows' magnitudes are derived.

        Parameters
        ----------
        inputs : mapping of str to integer arrays
            Exactly the names of `inputs`.

        Raises
        ------
        InputError
            If a name is missing or unknown, or an array does not fit its buffer.
        """
        wanted = self.inputs
        instance("inputs", inputs, Mapping)  # type: ignore[type-abstract]
        for name in wanted:
            if name not in inputs:
                raise InputError(f"input {name!r} is missing; expected {', '.join(wanted)}")
        for name in inputs:
            if name not in wanted:
                raise InputError(f"there is no input {name!r}; expected {', '.join(wanted)}")
        images = {r: np.zeros(self.regions[r], np.uint8) for r in self.regions_of("input")}
        arrays: dict[str, Array] = {name: array(name, value) for name, value in inputs.items()}
        for name, buffer in wanted.items():
            layout(buffer.layout).check(name, arrays[name], buffer.shape)
        for name, buffer in self.buffers.items():
            if buffer.direction != "input":
                continue
            if buffer.derived:
                values = arrays[buffer.of].astype(np.int64)
                content: Array = np.abs(values).max(axis=-1, initial=0)
            else:
                content = arrays[name]
            data = layout(buffer.layout).pack(content, self.config.panel)
            images[buffer.region][buffer.offset : buffer.end] = np.frombuffer(data, np.uint8)
        return images

    def unpack(self, regions: Mapping[int, bytes | Bytes]) -> dict[str, Array]:
        """The outputs, from the content of the regions that hold them."""
        values = {}
        for name, buffer in self.outputs.items():
            content = regions[buffer.region]
            if isinstance(content, bytes):
                content = np.frombuffer(content, np.uint8)
            data = content[buffer.offset : buffer.end]
            values[name] = layout(buffer.layout).unpack(data, buffer.shape, self.config.panel)
        return values

    def registers(self, scalars: Mapping[str, int]) -> dict[int, int]:
        """Scalar registers from values by meaning.

        Raises
        ------
        InputError
            If one is missing, unknown, or no u32.
        """
        for name in self.scalars:
            if name not in scalars:
                raise InputError(f"scalar {name!r} is missing; expected {', '.join(self.scalars)}")
        for name in scalars:
            if name not in self.scalars:
                known = ", ".join(self.scalars) or "none"
                raise InputError(f"there is no scalar {name!r}; expected {known}")
        return {
            register: integer(f"scalar {name}", scalars[name], 0, (1 << 32) - 1)
            for name, register in self.scalars.items()
        }

    # ---- figures ----

    def utilization(self, cycles: int | None = None) -> float:
        """The work's own MACs over cycles times processing elements; 0 where either is not known.

        Parameters
        ----------
        cycles : int, optional
            Measured; the estimate's if not given.
        """
        if cycles is None:
            cycles = int(self.metadata.get("estimate", {}).get("cycles", 0))
        elements = self.config.rows * self.config.columns
        return int(self.metadata.get("macs", 0)) / (cycles * elements) if cycles else 0.0
