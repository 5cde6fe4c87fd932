"""Clocks of the units while commands are emitted: which work is ready first.

Units work through their queues in order; a command starts when it has been fetched into its queue,
the one before it is through and its tokens are there. Rough and quick: what is decided by it is the
order of emission. How long a program takes the cycle model says
(`tilewright.sw.compiler.estimate`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.hw.commands import Opcode, RowOp, parameter_rows
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, Scalar
from tilewright.sw.rounding import ceil_div

MEMORY_LATENCY = 30
"""Cycles from an accepted address to the first beat."""
DMA_OVERHEAD = 12
"""Cycles of a transfer besides the memory: address generation, alignment, last scratchpad write."""
VECTOR_DRAIN = 32
"""Cycles from the last element's read to its visible write."""
FEED_LATENCY = 14
"""Cycles from a MATMUL's start to its first pass, its weights aside, and from the array's last row
to the accumulator's write, the array's own skew aside."""
TOKEN_LATENCY = 3
"""Cycles from a post to the start it allows."""
FETCH_START = 60
"""Cycles from the doorbell to the first command in a queue."""
PASS_MIN = 8
GROUP_MIN = 8
DIVIDE_ROW = 20
RSQRT_ROW = 60


@dataclass(frozen=True)
class Cost:
    """Cycles of a command.

    Attributes
    ----------
    busy : int
        For which the unit is taken.
    setup : int
        Before that, where the unit had run dry; hidden behind the command before it otherwise.
    drain : int
        After that until the tokens are posted.
    blocking : bool
        The next command waits for the drain.
    """

    busy: int
    setup: int = 0
    drain: int = 0
    blocking: bool = True


def cost(command: Command, config: Config) -> Cost:
    """Cycles of one command; scalar counts (masks) do not matter to time."""
    f = {k: 0 if isinstance(v, Scalar) else v for k, v in command.fields.items()}
    if command.opcode in (Opcode.LOAD, Opcode.STORE):
        runs = f["runs"] * f["planes"]
        beats = ceil_div(f["length"], config.axi_bytes) + bool(f["offset"] % config.axi_bytes)
        chunks = ceil_div(f["length"], config.panel if f["half"] else config.word_bytes)
        return Cost(runs * max(beats, chunks), drain=MEMORY_LATENCY + DMA_OVERHEAD)
    if command.opcode == Opcode.MATMUL:
        least = max(f["m"], config.rows, PASS_MIN)
        load = max(config.rows, config.columns) if f["transposed"] else config.rows
        return Cost(
            f["kt"] * f["nt"] * max(least, load),
            setup=load + FEED_LATENCY,
            drain=config.rows + config.columns + FEED_LATENCY,
            blocking=False,
        )
    if command.opcode == Opcode.VECTOR:
        groups = f["panels"] * config.panel // config.lanes
        group = max(f["m"] * (f["parts"] + 1), GROUP_MIN) + len(parameter_rows(f))
        return Cost(groups * group, drain=VECTOR_DRAIN)
    if command.opcode == Opcode.ROW:
        row = {RowOp.DIVIDE: DIVIDE_ROW, RowOp.RSQRT: RSQRT_ROW}.get(RowOp(f["op"]))
        return Cost((ceil_div(f["m"], config.row_engines) * row if row else f["m"]) + 8)
    return Cost(0)


@dataclass
class Timing:
    """When a command started, and when its tokens were posted."""

    start: int
    done: int


@dataclass
class Timeline:
    """Clocks of the units while commands are added in program order."""

    config: Config
    fetched: int = FETCH_START
    free: list[int] = field(default_factory=lambda: [0] * 4)
    starts: list[list[int]] = field(default_factory=lambda: [[] for _ in range(4)])
    last: int = 0

    def add(self, command: Command, ready: int) -> Timing:
        """Add a command whose tokens are all posted at `ready`."""
        unit = command.unit
        what = cost(command, self.config)
        starts = self.starts[unit]
        depth = self.config.queue_depth
        # In-order fetch: a full queue holds up the commands for all other units.
        self.fetched += max(4, 64 // self.config.axi_bytes)
        if len(starts) > depth:
            self.fetched = max(self.fetched, starts[-depth])
        entered = max(self.fetched + 4, ready + TOKEN_LATENCY if ready else 0)
        start = max(entered, self.free[unit])
        setup = max(0, min(what.setup, entered + what.setup - self.free[unit]))
        end = start + setup + what.busy
        done = end + what.drain
        self.free[unit] = done if what.blocking else end
        starts.append(start)
        self.last = max(self.last, done)
        return Timing(start, done)
