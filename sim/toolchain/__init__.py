"""The tools around the RTL: running them, the environment they build in, and what the doctor asks.

The rest of the project uses what is imported here.
"""

from tilewright.sim.toolchain.doctor import (
    NEEDED_PYTHON,
    Tool,
    libpython,
    tools,
    try_build,
)
from tilewright.sim.toolchain.environment import (
    NEEDED_VERILATOR,
    build_env,
    build_environment,
    check_no_blank,
    cxx,
    cxx_version,
    fst_works,
    make,
    perl_works,
    toolchain_id,
    verilator,
    verilator_bin,
    verilator_root,
    verilator_version,
)
from tilewright.sim.toolchain.process import ToolchainError, package_version, run, version_tuple

__all__ = [
    "NEEDED_PYTHON",
    "NEEDED_VERILATOR",
    "Tool",
    "ToolchainError",
    "build_env",
    "build_environment",
    "check_no_blank",
    "cxx",
    "cxx_version",
    "fst_works",
    "libpython",
    "make",
    "package_version",
    "perl_works",
    "run",
    "toolchain_id",
    "tools",
    "try_build",
    "verilator",
    "verilator_bin",
    "verilator_root",
    "verilator_version",
    "version_tuple",
]
