"""RTL against the simulator, with a report that tells where to look."""

import os
import shlex
from collections.abc import Mapping

import numpy as np

from tilewright.hw.encoding import encode
from tilewright.sim.compare import Matrix, compare
from tilewright.sim.random_program import RandomProgram
from tilewright.sw.program import Buffer, Executable

PLAIN = {
    "s16 panels": ("int16", True),
    "u16 panels": ("uint16", True),
    "u16 magnitudes": ("uint16", False),
}
"""Layouts whose elements can be named; of others, bytes are."""


def rerun() -> str:
    """The command line of the test that runs."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    return shlex.join(["python", "-m", "pytest", "-n0", "-m", "slow or not slow", test])


def _matrix(buffer: Buffer, panel: int) -> Matrix:
    dtype, panels = PLAIN[buffer.layout]
    return Matrix(
        region=buffer.region,
        offset=buffer.offset,
        shape=buffer.shape,
        dtype=dtype,
        panel=panel if panels else 0,
    )


def assert_same(
    executable: Executable,
    expected: Mapping[int, np.ndarray],
    got: Mapping[int, np.ndarray],
    scalars: Mapping[str, int],
) -> None:
    """Compare every byte of the regions of a run; `scalars` by name."""
    panel = executable.config.panel
    plain = {n: b for n, b in executable.buffers.items() if b.layout in PLAIN}
    found = compare(
        expected,
        got,
        {name: _matrix(buffer, panel) for name, buffer in plain.items()},
        program=executable.commands,
        scalars=executable.registers(scalars),
        operations=list(executable.operations.commands()),
        rerun=rerun(),
    )
    assert found.equal, f"RTL differs from the simulator\n{found}"


def assert_same_memory(program: RandomProgram, got: np.ndarray) -> None:
    """Compare all of memory after a random program."""

    def regions(memory: np.ndarray) -> dict[int, np.ndarray]:
        return {r: memory[base:limit] for r, (base, limit) in program.regions.items()}

    found = compare(
        regions(program.expected),
        regions(got),
        program=b"".join(encode(command) for command in program.commands),
        scalars=dict(enumerate(program.scalars)),
        rerun=rerun(),
    )
    assert found.equal, f"{program.name}: RTL differs from the simulator\n{found}"
    # What no region holds is nobody's to write.
    unequal = np.flatnonzero(got != program.expected)
    assert not unequal.size, f"{program.name}: {unequal.size} bytes, first at {unequal[0]:#x}"
