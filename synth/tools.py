"""Runs the tools: in a process of their own, with a log file, a time limit and an end on Ctrl-C."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tilewright import Error
from tilewright.extras import install


class SynthesisError(Error):
    """A tool failed, or took too long; `output` holds the end of its log."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class ToolMissingError(SynthesisError):
    """A tool is not installed; the message has the command that mends it."""


def need(module: str, package: str) -> None:
    """Raise ToolMissingError unless the Python package of a tool is there; nothing is imported."""
    if importlib.util.find_spec(module) is None:
        raise ToolMissingError(f"{package} is not installed; type: {install('synth')}")


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    # The second for whatever of it did not listen: children may outlive the first process.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def _tail(log: Path, lines: int = 20) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def run_python(
    code: str,
    arguments: Sequence[str],
    *,
    name: str,
    folder: Path,
    log: Path,
    timeout: float | None,
) -> None:
    """Run Python code in a process of its own; what it prints goes to `log`.

    The process and all that it starts end with this call, however it ends.

    Parameters
    ----------
    code : str
        The program; `sys.argv[1:]` are `arguments`.
    name : str
        What errors call it.
    folder : Path
        Folder it runs in (WebAssembly tools see nothing outside).
    timeout : float, optional
        Seconds.

    Raises
    ------
    SynthesisError
        When it fails or takes too long.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code_of_exit = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise SynthesisError(f"{name} took over {timeout:g} s; its log is {log}") from None
        finally:
            _end_group(process)
    if code_of_exit != 0:
        raise SynthesisError(
            f"{name} ended with exit code {code_of_exit}; its log is {log}", _tail(log)
        )
