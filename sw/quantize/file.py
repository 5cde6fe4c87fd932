"""Quantized models as files: a NumPy archive of their arrays, and JSON of all that is not one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from tilewright.sw.errors import reason
from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize import formats
from tilewright.sw.quantize.formats import EdgeFormat, QModel

VERSION = 1
"""Of the file's layout; another is refused."""

_CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in vars(formats).values()
    if dataclasses.is_dataclass(cls)
    and isinstance(cls, type)
    and cls.__module__ == formats.__name__
}
_JSON = "json"


def save(model: QModel, path: Path) -> None:
    """Write a model; parts that are shared, such as a state between two layers, stay shared.

    Raises
    ------
    ModelError
        If the file cannot be written.
    """
    writer = _Writer()
    root = writer.put(model)
    text = json.dumps({"version": VERSION, "objects": writer.objects, "root": root})
    arrays = {_JSON: np.frombuffer(text.encode(), dtype=np.uint8), **writer.arrays}
    try:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {reason(error)}") from error


def load(path: Path) -> QModel:
    """Read a model.

    Raises
    ------
    ModelError
        If the file cannot be read or holds no model of this version.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            document = json.loads(archive[_JSON].tobytes())
            if document["version"] != VERSION:
                raise ModelError(f"{path}: version {document['version']}: must be {VERSION}")
            # Objects stand behind what they are made of.
            objects: list[Any] = []
            for name, members in document["objects"]:
                values = {key: _get(value, objects, archive) for key, value in members.items()}
                objects.append(_CLASSES[name](**values))
            model = _get(document["root"], objects, archive)
    except (OSError, ValueError, KeyError, TypeError, IndexError, BadZipFile) as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(model, QModel):
        raise ModelError(f"{path} holds no quantized model")
    return model


class _Writer:
    """Turns a tree of dataclasses into references, arrays and JSON values."""

    def __init__(self) -> None:
        self.objects: list[tuple[str, dict[str, Any]]] = []
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._known: dict[int, dict[str, Any]] = {}

    def put(self, value: Any) -> Any:
        if isinstance(value, EdgeFormat):
            return {"width": value.value}
        if isinstance(value, tuple):
            return {"tuple": [self.put(item) for item in value]}
        if isinstance(value, (int, float, str)) or value is None:
            return value
        if id(value) not in self._known:
            self._known[id(value)] = self._object(value)
        return self._known[id(value)]

    def _object(self, value: Any) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            name = f"a{len(self.arrays)}"
            self.arrays[name] = value
            return {"array": name}
        members = {f.name: self.put(getattr(value, f.name)) for f in dataclasses.fields(value)}
        self.objects.append((type(value).__name__, members))
        return {"object": len(self.objects) - 1}


def _get(value: Any, objects: list[Any], archive: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "width":
        return EdgeFormat(content)
    if kind == "tuple":
        return tuple(_get(item, objects, archive) for item in content)
    return objects[content] if kind == "object" else archive[content]
