"""The cycle model: when each command of a program runs, without RTL."""

from sim.cycles.bus import Memory
from sim.cycles.model import Prediction, predict

__all__ = ["Memory", "Prediction", "predict"]
