"""The instruction-set simulator: the program's bytes, executed in order, in NumPy.

It knows no timing; what it leaves in DRAM is what the RTL must leave there.
"""

from sim.iss.dram import Dram
from sim.iss.machine import Machine
from sim.iss.state import FaultRecord, MachineFault, UndefinedError

__all__ = ["Dram", "FaultRecord", "Machine", "MachineFault", "UndefinedError"]
