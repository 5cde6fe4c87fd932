"""A run recorded for simulators that know nothing of this project."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tilewright.hw.registers import CONTROL_START, REGISTERS, STATUS_DONE
from tilewright.sim.image import Image
from tilewright.sim.iss_transport import IssTransport
from tilewright.sw.driver.errors import DeviceError
from tilewright.sw.program import Executable


def record(
    executable: Executable,
    inputs: Mapping[str, npt.ArrayLike],
    scalars: Mapping[str, int] | None = None,
    *,
    base: int = 0,
) -> Image:
    """Run a program on the instruction-set simulator; what it took and what it gave.

    Parameters
    ----------
    executable : Executable
    inputs : mapping of str to integer arrays
        As for a run on a device.
    scalars : mapping of str to int, optional
    base : int
        Address of the memory.

    Returns
    -------
    Image
        Its `expected` has every region; `Image.export` writes it for others.

    Raises
    ------
    InputError
        If an input or a scalar is missing, unknown or does not fit.
    DeviceError
        When the program faults.
    """
    contents = {region: np.zeros(size, np.uint8) for region, size in executable.regions.items()}
    constants = executable.constants.items()
    contents |= {region: np.frombuffer(content, np.uint8) for region, content in constants}
    image = Image(
        config=executable.config,
        program=executable.commands,
        regions=contents | executable.pack(inputs),
        scalars=executable.registers(scalars or {}),
        base=base,
    )
    memory = image.memory()
    transport = IssTransport(image.config, memory=(image.base, memory.size))
    transport.write_memory(image.base, memory)
    for address, value in image.registers():
        transport.write32(address, value)
    transport.write32(REGISTERS["CONTROL"].address, CONTROL_START)
    transport.wait(len(executable.program))
    if transport.read32(REGISTERS["STATUS"].address) != STATUS_DONE:
        raise DeviceError(f"the program cannot be recorded: {transport.machine.fault}")
    for region, (base, limit) in image.placement().items():
        if region in executable.regions:
            image.expected[region] = transport.read_memory(base, limit - base)
    return image
