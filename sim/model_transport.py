"""Registers and memory of a machine in front of instruction-set simulator and cycle model."""

from collections.abc import Callable

from tilewright.hw.commands import COMMAND_BYTES, SCALARS
from tilewright.hw.config import Config
from tilewright.hw.encoding import decode
from tilewright.hw.registers import COUNTERS, READABLE, STATUS_DONE
from tilewright.sim.cycles import Memory, Prediction, predict
from tilewright.sim.iss_transport import IssTransport
from tilewright.sim.trace import Span


class ModelTransport(IssTransport):
    """The instruction-set simulator with time: CYCLES, counters and spans are the cycle model's.

    Parameters
    ----------
    config : Config
    latency : int
        Cycles from an accepted address to the first beat.
    bandwidth : float
        Beats a cycle in each direction, above 0 up to 1.
    values : bool
        Compute what the program computes, too; without, outputs stay as they are, and arrays of any
        size take no longer than their cycles.
    memory : (int, int)
        As of `IssTransport`.

    Notes
    -----
    A run that faults has no time.
    """

    name = "model"

    def __init__(
        self,
        config: Config,
        *,
        latency: int = 30,
        bandwidth: float = 1.0,
        values: bool = True,
        memory: tuple[int, int] = (0x4000_0000, 0x4000_0000),
    ) -> None:
        self.config = config
        self.behind = Memory(latency=latency, bandwidth=bandwidth)
        self.values = values
        self.prediction: Prediction | None = None
        super().__init__(config, memory=memory)

    def _soft_reset(self) -> None:
        super()._soft_reset()
        self.prediction = None

    def read32(self, address: int) -> int:
        """Read a register."""
        name = self._name(address, "reading", READABLE)
        if self.prediction is not None and name in ("CYCLES_LO", "CYCLES_HI"):
            return self.prediction.cycles >> (32 if name == "CYCLES_HI" else 0) & 0xFFFF_FFFF
        if self.prediction is not None and name.startswith("COUNT_"):
            unit, reason, half = name.removeprefix("COUNT_").lower().split("_")
            assert reason in COUNTERS[unit]
            count = self.prediction.counters[unit][reason]
            return count >> (32 if half == "hi" else 0) & 0xFFFF_FFFF
        return super().read32(address)

    def _run(self, limit: int, progress: Callable[[int], None] | None) -> None:
        self.prediction = None
        if self.values:
            super()._run(limit, progress)
        else:
            self._ran = True
            self._status = STATUS_DONE
            self._completed = self._registers["PROGRAM_COUNT"]
            self._interrupt = True
        if not self._status & STATUS_DONE:
            return
        start = self._wide("BASE0") + self._registers["PROGRAM_OFFSET"]
        size = self._registers["PROGRAM_COUNT"] * COMMAND_BYTES
        raw = self.read_memory(start, size).tobytes()
        program = [decode(raw[at : at + COMMAND_BYTES]) for at in range(0, size, COMMAND_BYTES)]
        scalars = {number: self._registers[f"SCALAR{number}"] for number in range(SCALARS)}
        self.prediction = predict(program, self.config, scalars, self.behind)

    def spans(self) -> tuple[Span, ...]:
        """When each command of the last run ran."""
        return self.prediction.spans if self.prediction is not None else ()
