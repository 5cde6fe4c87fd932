"""Checkpoints: safetensors files, whole or sharded, as named and checked fp32 tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize, safe_open

from tilewright.sw.errors import reason
from tilewright.sw.models.config import read_json
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.functions import F32

Tensors = dict[str, npt.NDArray[Any]]

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Lists the shards of a large checkpoint."""


def read_tensors(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> Tensors:
    """Tensors of a model folder, by name; bfloat16 becomes float32, other types stay.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors``, or its index and shards.
    wanted : callable, optional
        Which names to read.

    Raises
    ------
    ModelError
        Missing, truncated or foreign file, an index that names no file or no tensor of it.
    """
    if (folder / FILE).is_file() or not (folder / INDEX).is_file():
        return _read(folder / FILE, wanted)
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise ModelError(f"{folder / INDEX} has no weight_map")
    out: Tensors = {}
    for file in sorted(set(map(str, index.values()))):
        if Path(file).name != file:
            raise ModelError(f"{folder / INDEX} names {file!r}: must be a file of the folder")
        names = {name for name, where in index.items() if where == file}
        names = {name for name in names if wanted(name)}
        found = _read(folder / file, names.__contains__)
        missing = sorted(names - found.keys())
        if missing:
            raise ModelError(f"{folder / file} has no tensor {missing[0]}, which the index says")
        out |= found
    return out


def _read(path: Path, wanted: Callable[[str], bool]) -> Tensors:
    try:
        # safetensors says "no such file" of every file it cannot open.
        path.open("rb").close()
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if wanted(name)]  # noqa: SIM118
            types = {name: file.get_slice(name).get_dtype() for name in names}
            for name, dtype in types.items():
                if dtype not in _KNOWN:
                    raise ModelError(f"{path.name}: {name} has dtype {dtype}, which is no float")
            out = {name: file.get_tensor(name) for name in names if types[name] != "BF16"}
        brain = {name for name in names if types[name] == "BF16"}
        if brain:
            for name, entry in deserialize(path.read_bytes()):
                if name in brain:
                    bits = np.frombuffer(entry["data"], dtype="<u2").astype(np.uint32) << 16
                    out[name] = bits.view(np.float32).reshape(entry["shape"])
    except (OSError, SafetensorError) as error:
        said = reason(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"cannot read {path}: {said}") from error
    except BaseException as error:
        # What its Rust code panics of is no Exception; of a file that is sound, it is memory.
        if type(error).__name__ != "PanicException":
            raise
        raise MemoryError(f"while reading {path}") from error
    return out


_KNOWN = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


class Taker:
    """Takes tensors out of a checkpoint by their names, and checks them.

    Parameters
    ----------
    tensors : dict
        All names may carry one prefix (``bert.``, ``model.``), found from the word embedding's.

    Raises
    ------
    ModelError
        If there is no word embedding, or more than one.
    """

    _WORD = "embeddings.word_embeddings.weight"

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        found = [name for name in tensors if name == self._WORD or name.endswith("." + self._WORD)]
        if not found:
            raise ModelError(f"no encoder: there is no tensor {self._WORD}")
        if len(found) > 1:
            raise ModelError(f"two models in one checkpoint: {found[0]} and {found[1]}")
        self._prefix = found[0].removesuffix(self._WORD)
        self._taken: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return self._prefix + name in self._tensors

    def take(self, name: str, shape: tuple[int, ...]) -> F32:
        """One tensor in fp32.

        Raises
        ------
        ModelError
            Missing, of another shape or no float, NaN or infinite.
        """
        full = self._prefix + name
        if full not in self._tensors:
            # Checkpoints converted from TensorFlow say gamma and beta.
            full = full.replace("LayerNorm.weight", "LayerNorm.gamma")
            full = full.replace("LayerNorm.bias", "LayerNorm.beta")
        if full not in self._tensors:
            raise ModelError(f"the model has no tensor {name}")
        self._taken.add(full)
        return checked(self._tensors[full], name, shape)

    def check_rest(self, ignored: Iterable[str]) -> None:
        """Refuse tensors that were not taken of the parts (embeddings, encoder) that were.

        Parameters
        ----------
        ignored : iterable of str
            Names of buffers that hold no weights.

        Raises
        ------
        ModelError
            Naming the first: a model whose result depends on it would be computed wrongly.
        """
        parts = {name.removeprefix(self._prefix).partition(".")[0] for name in self._taken}
        for full in sorted(set(self._tensors) - self._taken):
            name = full.removeprefix(self._prefix)
            if name.partition(".")[0] in parts and name not in ignored:
                raise ModelError(f"the model has a tensor {name}, which its config does not know")


def checked(tensor: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> F32:
    """A tensor in fp32, of the shape it must have, all of it finite.

    Raises
    ------
    ModelError
        Naming the tensor.
    """
    if tensor.shape != shape:
        raise ModelError(f"{name} has shape {list(tensor.shape)}: must have {list(shape)}")
    if tensor.dtype.kind != "f":
        raise ModelError(f"{name} has dtype {tensor.dtype}: must be floating point")
    with np.errstate(over="ignore"):
        single = tensor.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise ModelError(f"{name} holds NaN or infinity")
    return np.ascontiguousarray(single)
