"""The instruction-set simulator: the program's bytes, executed in order, in NumPy.

It knows no timing; what it leaves in DRAM is what the RTL must leave there.
"""

from tilewright.sim.iss.dram import Dram
from tilewright.sim.iss.machine import IssMachine
from tilewright.sim.iss.state import FaultRecord, MachineFault, UndefinedError

__all__ = ["Dram", "FaultRecord", "IssMachine", "MachineFault", "UndefinedError"]
