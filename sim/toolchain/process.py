"""Running tools, and the versions they tell."""

import contextlib
import importlib.metadata
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tilewright import Error


class ToolchainError(Error, OSError):
    """A tool is missing or failed.

    The message is one line that names the tool and what mends it; `output` is the end of what the
    tool printed, for people.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


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


def first_number(text: str) -> str | None:
    """The first version in a text, `None` if there is none."""
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
