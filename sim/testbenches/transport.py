"""Registers and memory of a core that is simulated by cocotb, in a process of its own."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cocotb_tools.runner import get_runner

from tilewright.hw.config import Config
from tilewright.sim.errors import SimulationError
from tilewright.sim.testbenches.runner import _BUILD_ARGUMENTS, SIMULATORS
from tilewright.sim.toolchain import ToolchainError, build_environment, check_no_blank

_CHUNK = 5_000
"""Cycles between two calls of a progress function."""
_START_SECONDS = 120
_LOG_LINES = 20


def build_core(text: str, folder: Path, simulator: str) -> None:
    """Build a simulator of the module `tilewright` for cocotb; the folder may be renamed later.

    Raises
    ------
    ValueError
        For a simulator not known.
    ToolchainError
        When it cannot be built.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator {simulator!r}: must be one of {', '.join(SIMULATORS)}")
    check_no_blank(folder)
    source = folder / "tilewright.v"
    source.write_text(text, encoding="utf-8")
    log = folder / "build.log"
    with build_environment():
        try:
            get_runner(simulator).build(
                sources=[source],
                hdl_toplevel="tilewright",
                build_dir=folder,
                build_args=_BUILD_ARGUMENTS[simulator],
                timescale=("1ns", "1ps"),
                always=True,
                log_file=log,
            )
        except (RuntimeError, SystemExit) as error:
            output = log.read_text(errors="replace") if log.exists() else ""
            raise ToolchainError(
                f"{simulator} for cocotb: {error}", "\n".join(output.splitlines()[-40:])
            ) from None


class CocotbTransport:
    """A core under cocotb, on Verilator or Icarus.

    Parameters
    ----------
    config : Config
    build : Path
        Where `build_core` put the simulator of that configuration.
    simulator : str
        "verilator" or "icarus".
    memory : (int, int)
        Base and size of the DRAM.
    latency, pause, interleave
        As of `tilewright.sim.testbenches.axi_memory.Manners`.
    seed : int
        Of all that is random.

    Raises
    ------
    SimulationError
        When the simulator does not start.

    Notes
    -----
    It has the methods of `tilewright.sw.driver.transport.Transport`. Time passes only within them.
    Methods raise `SimulationError` when the simulation has ended: the core broke a rule of AXI.
    """

    name = "cocotb"

    def __init__(
        self,
        config: Config,
        build: Path,
        *,
        simulator: str = "verilator",
        memory: tuple[int, int] = (0x4000_0000, 0x0400_0000),
        latency: int = 10,
        pause: float = 0.0,
        interleave: bool = False,
        seed: int = 0,
    ) -> None:
        self.memory_range = memory
        self._process: subprocess.Popen[bytes] | None = None
        # The one thread that uses the connection. Ctrl-C meets the thread that asks, never an
        # exchange: an answer that nobody waits for any more is not taken for that to the next.
        self._exchanges = ThreadPoolExecutor(1, thread_name_prefix=self.name)
        self._folder = tempfile.TemporaryDirectory(prefix="tw")
        folder = Path(self._folder.name)
        self._log = folder / "log"
        key = secrets.token_hex(16)
        values: dict[str, Any] = {
            "folder": os.fspath(folder),
            "build": os.fspath(build),
            "simulator": simulator,
            "address": os.fspath(folder / "socket"),
            "key": key,
            "memory": memory,
            "beat": config.axi_bytes,
            "limits": (config.axi_max_burst, 2 * config.axi_outstanding),
            "latency": latency,
            "pause": pause,
            "interleave": interleave,
            "seed": seed,
        }
        try:
            with Listener(values["address"], authkey=bytes.fromhex(key)) as listener:
                with self._log.open("wb") as log:
                    self._process = subprocess.Popen(
                        [
                            sys.executable,
                            "-P",
                            "-m",
                            "tilewright.sim.testbenches.serve",
                            json.dumps(values),
                        ],
                        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                self._connection = self._accept(listener)
        except BaseException:
            self.close()
            raise

    def _accept(self, listener: Listener) -> Connection:
        """The simulator's connection, as long as the simulator runs."""
        assert self._process is not None
        found: list[Connection] = []

        def accept() -> None:
            with contextlib.suppress(OSError, EOFError):
                found.append(listener.accept())

        waiter = threading.Thread(target=accept, daemon=True)
        waiter.start()
        for _ in range(10 * _START_SECONDS):
            waiter.join(0.1)
            if not waiter.is_alive() or self._process.poll() is not None:
                break
        waiter.join(0.1)
        if not found:
            raise SimulationError(self._ended("the simulator did not start"))
        return found[0]

    def _ended(self, what: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([what, *lines])

    def _exchange(self, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        self._connection.send((name, arguments))
        answer: tuple[bool, Any] = self._connection.recv()
        return answer

    def _ask(self, name: str, *arguments: Any) -> Any:
        if self._process is None:
            raise SimulationError("the simulator is closed")
        try:
            good, answer = self._exchanges.submit(self._exchange, name, arguments).result()
        except (EOFError, OSError):
            raise SimulationError(self._ended("the simulation has ended")) from None
        if not good:
            raise answer
        return answer

    # ---- the interface ----

    def read32(self, address: int) -> int:
        """Read a register."""
        value: int = self._ask("read32", address)
        return value

    def write32(self, address: int, value: int) -> None:
        """Write a register."""
        self._ask("write32", address, value)

    def read_memory(self, address: int, length: int) -> npt.NDArray[np.uint8]:
        """Copy bytes out of the memory; takes no cycles."""
        return np.frombuffer(self._ask("read_memory", address, length), dtype=np.uint8).copy()

    def write_memory(self, address: int, data: npt.ArrayLike) -> None:
        """Copy an array's bytes into the memory; takes no cycles."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._ask("write_memory", address, raw.tobytes())

    def wait(self, cycles: int, progress: Callable[[int], None] | None = None) -> bool:
        """Wait for the interrupt, at most `cycles`; whether it is there."""
        done = 0
        while True:
            chunk = min(_CHUNK, cycles - done)
            if self._ask("wait", chunk):
                return True
            done += chunk
            if progress is not None:
                progress(done)
            if done >= cycles:
                return False

    def reset(self) -> None:
        """Assert the hardware's reset; memory stays."""
        self._ask("reset")

    def close(self) -> None:
        """End the simulation; a second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        if hasattr(self, "_connection"):
            self._exchanges.submit(self._connection.close)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5 if hasattr(self, "_connection") else 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._exchanges.shutdown()
        self._folder.cleanup()
