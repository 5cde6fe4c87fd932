"""A hash of the project's own sources, to tell whether a result is still theirs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""What holds `hw`, `sim`, `sw` and `synth`: a clone, or the installed package."""

_SUFFIXES = (".py", ".h", ".cpp", ".json", ".toml")


@functools.cache
def source_hash(sources: tuple[str, ...], root: Path = ROOT) -> str:
    """`files_hash` of what does not change while a program runs."""
    return files_hash(sources, root)


def files_hash(sources: Iterable[str], root: Path) -> str:
    """SHA-256 over the files named, and the sources in the folders named.

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
        inside = (file for file in path.rglob("*") if file.is_file() and file.suffix in _SUFFIXES)
        for file in sorted(inside) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
