"""Programs as files: one safetensors container, written whole or not at all.

Tensors (u8): `commands`, and `region N` for each region of constants. The string metadata has one
key, "tilewright program": a JSON document with the format's version, the manifest's hash and what
it is made of, the configuration, regions, buffers, scalars, metadata, and a SHA-256 over all of it
and the tensors.
(One key because safetensors writes several in any order, and equal programs make equal files.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from tilewright import __version__
from tilewright.hw.config import Config
from tilewright.hw.manifest import differences, identity, manifest_hash
from tilewright.sw.files import write_whole
from tilewright.sw.program.errors import ProgramFileError
from tilewright.sw.program.executable import Buffer, Executable
from tilewright.sw.program.program import Program

FORMAT = "tilewright program"
VERSION = 2
"""Of the format; files of another are refused."""

_BEGIN = b'{"__metadata__":{"tilewright program":'
_LENGTH = 8
_COMMANDS, _REGION = "commands", "region "

Tensors = Mapping[str, npt.NDArray[np.uint8]]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(document: Mapping[str, Any], tensors: Tensors) -> str:
    content = {key: value for key, value in document.items() if key != "sha256"}
    digest = hashlib.sha256(_json(content).encode())
    for name in sorted(tensors):
        digest.update(f"\n{name} {tensors[name].size}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def to_bytes(executable: Executable) -> bytes:
    """Content of a program file.

    Raises
    ------
    ValueError
        If the metadata is not JSON-able, or a command cannot be encoded.
    """
    tensors = {
        _COMMANDS: np.frombuffer(executable.commands, dtype=np.uint8),
        **{
            f"{_REGION}{region}": np.frombuffer(content, dtype=np.uint8)
            for region, content in executable.constants.items()
        },
    }
    try:
        # As it will be read: tuples become lists, keys texts.
        metadata = json.loads(_json(dict(executable.metadata)))
    except TypeError as error:
        raise ValueError(f"metadata: {error}") from None
    document = {
        "version": VERSION,
        "software": __version__,
        "hash": f"{manifest_hash(executable.config):016x}",
        "identity": identity(executable.config),
        "config": executable.config.to_dict(),
        "regions": {str(region): size for region, size in executable.regions.items()},
        "buffers": {name: asdict(buffer) for name, buffer in executable.buffers.items()},
        "scalars": dict(executable.scalars),
        "metadata": metadata,
    }
    document["sha256"] = _digest(document, tensors)
    return save_tensors(tensors, {FORMAT: _json(document)})


def save(executable: Executable, path: Path | str) -> Path:
    """Write a program file; the path holds the old content or all of the new.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    return write_whole(path, to_bytes(executable))


def _header(data: bytes, origin: str) -> tuple[dict[str, Any], int]:
    """The document, and the bytes the file must have."""
    length = int.from_bytes(data[:_LENGTH], "little")
    head = data[_LENGTH : _LENGTH + length]
    if not head.startswith(_BEGIN[: max(len(head), 1)]):
        raise ProgramFileError(f"{origin}: not a Tilewright program")
    if len(head) < length:
        raise ProgramFileError(f"{origin}: truncated: it ends after {len(data)} bytes")
    try:
        header = json.loads(head)
        document = json.loads(header["__metadata__"][FORMAT])
        found = document["version"]
        ends = [
            tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"
        ]
        whole = _LENGTH + length + max(ends)
    except (ValueError, KeyError, TypeError, IndexError):
        raise ProgramFileError(f"{origin}: corrupt: its header cannot be read") from None
    if found != VERSION:
        raise ProgramFileError(f"{origin}: format version {found}, this software reads {VERSION}")
    return document, whole


def _tensors(data: bytes, whole: int, origin: str) -> dict[str, npt.NDArray[np.uint8]]:
    if len(data) < whole:
        raise ProgramFileError(f"{origin}: truncated: {len(data)} of {whole} bytes")
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ProgramFileError(f"{origin}: corrupt: {error}") from None
    for name, tensor in tensors.items():
        if tensor.dtype != np.uint8 or tensor.ndim != 1:
            raise ProgramFileError(f"{origin}: corrupt: {name} is no row of bytes")
    return tensors


def _machine(document: Mapping[str, Any], config: Config | None, origin: str) -> Config:
    """The configuration, whose programs must be the wanted one's and as this software makes them.

    One that a later version wrote may have options unknown here; the hash says whether they matter.
    """
    values, known = document["config"], Config().to_dict()
    made = Config.from_dict({key: value for key, value in values.items() if key in known})
    wanted = config or made
    wrong = differences(document["identity"], identity(wanted))
    if wrong:
        raise ProgramFileError(
            f"{origin}: made by version {document['software']} for {made.label!r}; version "
            f"{__version__} of {wanted.label!r} differs: the program has {wrong}"
        )
    return made


def from_bytes(data: bytes, config: Config | None = None, *, origin: str = "program") -> Executable:
    """Read the content of a program file; see `load`."""
    document, whole = _header(data, origin)
    tensors = _tensors(data, whole, origin)
    if _digest(document, tensors) != document.get("sha256"):
        raise ProgramFileError(f"{origin}: corrupt: its content is not what its SHA-256 says")
    try:
        made = _machine(document, config, origin)
        return Executable(
            config=made,
            program=Program.from_bytes(made, tensors[_COMMANDS].tobytes()),
            constants={
                int(name.removeprefix(_REGION)): tensor.tobytes()
                for name, tensor in tensors.items()
                if name.startswith(_REGION)
            },
            regions={int(region): size for region, size in document["regions"].items()},
            buffers={
                name: Buffer(**{**values, "shape": tuple(values["shape"])})
                for name, values in document["buffers"].items()
            },
            scalars=document["scalars"],
            metadata=document["metadata"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # Whole, but of a writer that knows the format badly.
        text = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ProgramFileError(f"{origin}: not a valid program: {text}") from None


def load(path: Path | str, config: Config | None = None) -> Executable:
    """Read a program file.

    Parameters
    ----------
    path : Path or str
    config : Config, optional
        The machine it is to run on; any that this software knows if not given.

    Raises
    ------
    ProgramFileError
        One line, when the file is no program, truncated, corrupt, of another format version, or
        made for another machine.
    OSError
        When it cannot be read.
    """
    return from_bytes(Path(path).read_bytes(), config, origin=str(path))
