"""The cycle model: when each command of a program runs, without RTL."""

from tilewright.sim.cycles.bus import Memory
from tilewright.sim.cycles.model import Prediction, predict

__all__ = ["Memory", "Prediction", "predict"]
