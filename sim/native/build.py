"""Builds the native simulator: Verilog and harness in, one shared library out.

`build_key` names a build by everything that goes into it, so that a cache can keep the result; the
cache itself is not known here (see `tilewright.sw.driver.simulators`).
"""

import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tilewright.hw.names import TOP_NAME
from tilewright.sim import toolchain

LIBRARY = "simulator.so"
"""Name of the library in the folder of a build."""

SOURCES = ("harness.cpp", "axi_memory.h", "axi_lite.h", "memory.h", "ports.h", "spans.h")
_HERE = Path(__file__).parent

_VERILATE = (
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
    "--no-timing",
    # Files small enough that two cores share the work; one compiler takes below 1 GB.
    "--output-split",
    "8000",
    # The generator's own name for a signal may be a keyword of SystemVerilog.
    "--default-language",
    "1364-2005",
    "+1800-2017ext+sv",
    # Warnings are the business of lint.
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "--top-module",
    TOP_NAME,
    "--prefix",
    "Vtilewright",
)
# Width and array limits of Verilator leave out the wide words one wants to see.
_TRACE = ("--trace-fst", "--trace-max-width", "4096")

_COMPILE = (
    "-std=c++20",
    "-fPIC",
    # Simulators of several configurations live in one process: nothing of one is seen by another.
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-DVL_USER_FATAL",
    "-Wno-unknown-warning-option",
)
# Only what runs every cycle is worth the time of the optimiser.
_OPTIMISE = {"OPT_FAST": "-O3", "OPT_SLOW": "-O0", "OPT_GLOBAL": "-O1"}
_LINK = ("-shared", "-Wl,-Bsymbolic")


@functools.cache
def native_flags() -> tuple[tuple[str, ...], str]:
    """Flags for this machine's processor, and what the compiler makes of them (for the key)."""
    flag = "-march=native"
    probe: list[str | Path] = [toolchain.cxx(), flag, "-E", "-v", "-x", "c++", os.devnull]
    result = toolchain.run(probe, check=False)
    if result.returncode != 0:
        return (), ""
    meaning = [line for line in result.stdout.splitlines() if "cc1" in line]
    return (flag,), "\n".join(meaning)


def build_key(verilog: str, *, trace: bool = False, labels: str = "", probes: str = "") -> str:
    """Name of a build: SHA-256 of Verilog, harness, flags, tools and processor, as 32 digits."""
    digest = hashlib.sha256()

    def add(name: str, value: bytes) -> None:
        digest.update(f"{name} {len(value)}\n".encode())
        digest.update(value)

    add("verilog", verilog.encode())
    add("labels", labels.encode())
    add("probes", probes.encode())
    for source in SOURCES:
        add(source, (_HERE / source).read_bytes())
    flags = [*_VERILATE, *(_TRACE if trace else ()), *_COMPILE, *_LINK, str(_OPTIMISE)]
    add("flags", "\n".join(flags).encode())
    add("tools", toolchain.toolchain_id().encode())
    add("processor", native_flags()[1].encode())
    return digest.hexdigest()[:32]


def build(
    verilog: str,
    folder: Path,
    *,
    trace: bool = False,
    labels: str = "",
    probes: str = "",
    progress: Callable[[str], None] | None = None,
    timeout: float = 3600,
) -> Path:
    """Build the simulator of `verilog` in the existing `folder` and return the library's path.

    Only the library is left in the folder.

    Parameters
    ----------
    verilog : str
        Text with the module `tilewright`.
    trace : bool
        Able to write waveforms; slower to build and to run.
    labels : str
        SystemVerilog bound to the top that names states in waveforms
        (`tilewright.sim.native.labels`).
    probes : str
        SystemVerilog bound to the top that shows what spans are recorded from
        (`tilewright.sim.native.probes`); none are without it.
    progress : callable, optional
        Told what is being done, one line at a time.
    timeout : float
        Seconds for the longest step.

    Raises
    ------
    tilewright.sim.toolchain.ToolchainError
        When a tool is missing or fails; a build that fails leaves its files behind.
    """
    if trace and not toolchain.fst_works():
        raise toolchain.ToolchainError(
            "waveforms need the headers of lz4 and zlib; see `tilewright doctor`"
        )
    tell = progress or (lambda text: None)
    toolchain.check_no_blank(folder)
    objects = folder / "objects"
    objects.mkdir()
    (folder / f"{TOP_NAME}.v").write_text(verilog, encoding="utf-8")
    bound = {"labels.sv": labels, "probes.sv": probes}
    for name, text in bound.items():
        (folder / name).write_text(text, encoding="utf-8")
    for source in SOURCES:
        shutil.copy(_HERE / source, objects / source)
    compile_flags = [*_COMPILE, *native_flags()[0]]
    link_flags = list(_LINK)
    if trace:
        compile_flags.append("-DTILEWRIGHT_TRACE")
        link_flags += ["-llz4", "-lz"]
    if probes:
        compile_flags.append("-DTILEWRIGHT_SPANS")
    env = toolchain.build_env()

    tell(f"Verilator reads {len(verilog) // 1024} KiB of Verilog")
    command: list[str | Path] = [toolchain.verilator(), *_VERILATE, *(_TRACE if trace else ())]
    command += ["-CFLAGS", " ".join(compile_flags), "-LDFLAGS", " ".join(link_flags)]
    command += ["--exe", "-o", LIBRARY, "--Mdir", "objects", f"{TOP_NAME}.v", "harness.cpp"]
    command += [name for name, text in bound.items() if text]
    toolchain.run(command, cwd=folder, env=env, timeout=timeout)

    files = len(list(objects.glob("*.cpp")))
    tell(f"compiling {files} C++ files{' (with waveforms)' if trace else ''}")
    settings = [f"{name}={value}" for name, value in _OPTIMISE.items()]
    toolchain.run(
        [
            *(toolchain.make(), "-C", objects, "-f", "Vtilewright.mk"),
            *(f"-j{os.cpu_count() or 1}", "VM_PARALLEL_BUILDS=1", *settings, LIBRARY),
        ],
        env=env,
        timeout=timeout,
    )
    library = folder / LIBRARY
    os.replace(objects / LIBRARY, library)
    shutil.rmtree(objects)
    (folder / f"{TOP_NAME}.v").unlink()
    for name in bound:
        (folder / name).unlink()
    return library
