"""The command that installs what an extra of the package brings."""

import importlib.metadata
import re
import shlex
import sys


def install_command(extra: str) -> str:
    """The command that installs the packages of an extra, such as "onnx", into this Python.

    It names the packages and not this project, which may be a clone, a wheel or a copy on the path,
    and is on no index.
    """
    return shlex.join([sys.executable, "-m", "pip", "install", *_packages(extra)])


def _packages(extra: str) -> list[str]:
    try:
        lines = importlib.metadata.requires("tilewright") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    mark = re.compile(rf";\s*extra == ['\"]{re.escape(extra)}['\"]$")
    # Not installed, it is run from a clone.
    return [mark.sub("", line).strip() for line in lines if mark.search(line)] or [
        "-e",
        f".[{extra}]",
    ]
