"""What all operations emit through: commands, the weights' ring, turns of accumulator slots."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.hw.commands import PARAMETER_ROWS, Opcode, RowOp
from tilewright.hw.encoding import Command, Value
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.pack import Chunk, WeightImage
from tilewright.sw.compiler.plan import Placed, Slots
from tilewright.sw.compiler.schedule import Issued, Schedule

WEIGHTS, INPUT, OUTPUT, SCRATCH = 1, 2, 3, 4
"""Regions; 0 holds the program."""
UNTRACKED = frozenset({0, WEIGHTS, INPUT, OUTPUT})
"""Regions that are only read, or only written."""


@dataclass(frozen=True)
class StatePlace:
    """Where an s16 matrix of all rows and its magnitudes stand in DRAM: region and offsets."""

    region: int
    panels: int
    magnitudes: int


@dataclass
class Ring:
    """A stretch of scratchpad that chunks of weights pass through, oldest overwritten first."""

    start: int
    words: int
    head: int = 0
    live: dict[tuple[str, int, int], tuple[int, int]] = field(default_factory=dict)

    def find(self, chunk: Chunk) -> int | None:
        """Address of a chunk that is still there."""
        span = self.live.get(chunk.key)
        return None if span is None else span[0]

    def room(self, words: int) -> int:
        """Where the next chunk would go."""
        return 0 if self.head + words > self.words else self.head

    def take(self, chunk: Chunk) -> int:
        """Make room for a chunk and return its address.

        Raises
        ------
        CompileError
            If the ring is smaller than the chunk.
        """
        words = chunk.words
        if words > self.words:
            raise CompileError(
                f"{chunk.product.name}: {words} words of weights: must be at most {self.words}"
            )
        first = self.start + self.room(words)
        self.head = first + words - self.start
        self.live = {
            key: span
            for key, span in self.live.items()
            if span[1] <= first or first + words <= span[0]
        }
        self.live[chunk.key] = (first, first + words)
        return first

    def spares(self, chunk: Chunk, kept: Chunk | None) -> bool:
        """Whether room for a chunk can be made without overwriting another."""
        if chunk.words > self.words:
            return False
        span = self.live.get(kept.key) if kept is not None else None
        first = self.start + self.room(chunk.words)
        return span is None or span[1] <= first or first + chunk.words <= span[0]


@dataclass(frozen=True)
class Weights:
    """A chunk in the scratchpad."""

    chunk: Chunk
    address: int

    def parameters(self, panel: int = 0) -> int:
        """Address of the parameters of a panel of the chunk."""
        return self.address + self.chunk.parameter_offset + panel * PARAMETER_ROWS


@dataclass(frozen=True)
class Rows:
    """Row block of an s16 matrix in the scratchpad, and the scale row of its first row."""

    address: int
    stride: int
    rows: int
    scale: int = 0

    def panel(self, index: int) -> int:
        """Address of a panel."""
        return self.address + index * self.stride


class Emitter:
    """Emits commands of one plan.

    Parameters
    ----------
    schedule : Schedule
        Takes the commands.
    plan : Placed
    image : WeightImage
        Grows as chunks are fetched.
    x, y : StatePlace
        Input and output.
    length : int
        Scalar register with the number of valid tokens.
    owner : str
        What the operations are part of: before their names.
    """

    def __init__(
        self,
        schedule: Schedule,
        plan: Placed,
        image: WeightImage,
        *,
        x: StatePlace,
        y: StatePlace,
        length: int = 0,
        owner: str = "",
    ) -> None:
        self.config = schedule.config
        self.placed = plan
        self.shape = plan.shape
        self.geometry = plan.shape.geometry
        self.image = image
        self.schedule = schedule
        self.x = x
        self.y = y
        self.length = length
        self.owner = owner
        self.rings: dict[tuple[int, int], Ring] = {}
        self._current: Ring | None = None
        self._turns: dict[Slots, int] = {}

    def begin(self, operation: str) -> None:
        """Name what the commands that follow belong to."""
        self.schedule.operation = self.owner + operation

    def emit(self, opcode: Opcode, **fields: Value) -> Issued:
        """Append a command."""
        return self.schedule.emit(Command(opcode, dict(fields)))

    def area(self, name: str) -> int:
        """Address of a placed buffer."""
        return self.placed.areas[name].start

    def turn(self, slots: Slots) -> int:
        """Number of the next slot; they take turns."""
        number = self._turns.get(slots, 0)
        self._turns[slots] = number + 1
        return number % slots.count

    def slot(self, slots: Slots) -> int:
        """Address of the next slot."""
        return slots.start + self.turn(slots) * slots.size

    # Transfers.

    def transfer(
        self,
        opcode: Opcode,
        *,
        sp: int,
        region: int,
        offset: int,
        length: int,
        runs: int = 1,
        run_stride: int = 0,
        sp_run: int = 0,
        planes: int = 1,
        plane_stride: int = 0,
        sp_plane: int = 0,
    ) -> Issued:
        """LOAD or STORE of runs of contiguous words."""
        return self.emit(
            opcode,
            sp_addr=sp,
            region=region,
            offset=offset,
            length=length,
            runs=runs,
            planes=planes,
            run_stride=run_stride,
            plane_stride=plane_stride,
            sp_chunk=1,
            sp_run=sp_run,
            sp_plane=sp_plane,
        )

    def move_rows(
        self,
        opcode: Opcode,
        block: Rows,
        *,
        region: int,
        offset: int,
        first: int,
        panels: tuple[int, int],
    ) -> Issued:
        """LOAD or STORE panels [a, b) of a row block of an s16 matrix of `sequence` rows in DRAM.

        Parameters
        ----------
        offset : int
            Of the matrix's panel 0, row 0.
        first : int
            The block's first row.
        """
        word = self.config.word_bytes
        low, high = panels
        pitch = self.shape.sequence * word
        return self.transfer(
            opcode,
            sp=block.panel(low),
            region=region,
            offset=offset + low * pitch + first * word,
            length=block.rows * word,
            runs=high - low,
            run_stride=pitch,
            sp_run=block.stride,
        )

    def ring(self, phase: str) -> Ring:
        """The weights' ring of a phase.

        A new one goes on where the one before stands, so that loads run on from phase to phase.
        """
        span = self.placed.ring[phase]
        if span not in self.rings:
            self.rings[span] = Ring(*span)
            if self._current is not None:
                ahead = self._current.start + self._current.head - span[0]
                self.rings[span].head = min(max(ahead, 0), span[1])
        self._current = self.rings[span]
        return self._current

    def fetch(self, chunk: Chunk, phase: str) -> Weights:
        """Bring a chunk into the ring unless it is there.

        What is fetched may be overwritten by the next `fetch`: use it at once.
        """
        ring = self.ring(phase)
        address = ring.find(chunk)
        if address is None:
            address = ring.take(chunk)
            word = self.config.word_bytes
            self.transfer(
                Opcode.LOAD,
                sp=address,
                region=WEIGHTS,
                offset=self.image.offset(chunk),
                length=chunk.words * word,
            )
        return Weights(chunk, address)

    def prefetch(self, chunk: Chunk, phase: str, kept: Chunk | None) -> None:
        """Fetch a chunk early, unless that would overwrite `kept`, whose uses are not all emitted.

        A LOAD far behind other commands is fetched late when one of their queues is full.
        """
        ring = self.ring(phase)
        if ring.find(chunk) is None and ring.spares(chunk, kept):
            self.fetch(chunk, phase)

    # Row scales.

    def get_scales(self, sp: int, *, region: int, offset: int, rows: int, scale: int) -> None:
        """Magnitudes from DRAM into scale rows."""
        self.transfer(Opcode.LOAD, sp=sp, region=region, offset=offset, length=2 * rows)
        self.emit(Opcode.ROW, op=RowOp.GET, m=rows, scale=scale, sp_addr=sp)

    def put_scales(self, sp: int, *, region: int, offset: int, rows: int, scale: int) -> None:
        """Scale rows to magnitudes in DRAM."""
        self.emit(Opcode.ROW, op=RowOp.PUT, m=rows, scale=scale, sp_addr=sp)
        self.transfer(Opcode.STORE, sp=sp, region=region, offset=offset, length=2 * rows)
