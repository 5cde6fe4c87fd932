"""What optional parts of the project need, and the command that installs it."""

import importlib.metadata
import re
import shlex
import sys


def requirements(extra: str) -> list[str]:
    """What an extra of pyproject.toml asks for, as pip takes it; none if it is not known.

    Parameters
    ----------
    extra : str
        "onnx", "plot", "sweep", "synth" or "waves".

    Returns
    -------
    list of str
        Such as "onnx>=1.19".
    """
    try:
        lines = importlib.metadata.requires("tilewright") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    asked = re.compile(rf"extra == ['\"]{re.escape(extra)}['\"]")
    parts = (line.partition(";") for line in lines)
    return [package.strip() for package, _, marker in parts if asked.search(marker)]


def pip_install(*packages: str) -> str:
    """The command that installs packages where this Python finds them."""
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])


def install(extra: str) -> str:
    """The command that installs what an extra asks for.

    It names the packages: no index has `tilewright`, so `pip install 'tilewright[onnx]'` only works
    where pip finds it installed already.
    """
    return pip_install(*requirements(extra))
