"""A hash of the project's own sources, to tell whether a result is still theirs."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""What holds `hw`, `sim`, `sw` and `synth`: a clone, or the installed package."""

_SUFFIXES = (".py", ".h", ".cpp", ".json", ".toml")


@functools.cache
def source_hash(sources: tuple[str, ...], root: Path = ROOT) -> str:
    """SHA-256 over the files named, and those in the folders named.

    Raises
    ------
    FileNotFoundError
        If there is none of a name.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = root / source
        if not path.exists():
            raise FileNotFoundError(path)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and file.suffix in _SUFFIXES:
                digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
