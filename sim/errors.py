"""What goes wrong with a simulation itself."""

from tilewright import Error


class SimulationError(Error, RuntimeError):
    """The simulation cannot go on, or a register access has no answer or an error for one."""


def answered_error(access: str, address: int) -> SimulationError:
    """The error of an access ("reading", "writing") that the machine answered with one."""
    return SimulationError(f"{access} register 0x{address:03x}: answered with an error")
