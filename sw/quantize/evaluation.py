"""Evaluation of a quantized encoder on the fixed texts, result by result, so that it can resume.

Each text's embedding is kept as one JSON line when it is there; a run that was interrupted goes on
behind the last whole line.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.sw.models.bert import Bert, mean_pool
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import texts
from tilewright.sw.quantize.fingerprint import fingerprint
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.jsonlines import JsonLines
from tilewright.sw.quantize.reference import run_embedding, run_layer

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
Ids = npt.NDArray[np.int32]

Engine = Callable[[I16, int], npt.NDArray[np.integer[Any]]]
"""All layers of an encoder: ``engine(x, length)``, x s16 [S, H] in layer 0's input format, of which
the first `length` tokens are valid -> y s16 [S, H] in the last layer's output format. Rows of y
behind `length` are not read. Evaluation passes unpadded texts; an engine of a fixed sequence pads
them itself."""
LayerEngine = Callable[[int, I16, int], npt.NDArray[np.integer[Any]]]
"""One layer: ``engine(index, x, length)``, x and y in that layer's formats."""
Progress = Callable[[int, int], None]
"""``progress(done, total)`` after every text."""


@dataclass(frozen=True, kw_only=True)
class Cosines:
    """Mean and worst of a set of cosines."""

    mean: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float] | F64) -> Cosines:
        """Summarize."""
        array = np.asarray(values, dtype=np.float64)
        return cls(mean=float(array.mean()), worst=float(array.min()))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Sentence embeddings of an integer encoder beside those of fp32.

    Attributes
    ----------
    got, want : ndarray of float32, [texts, H]
        Mean-pooled, of length 1: of the integers, and of fp32.
    """

    got: F32
    want: F32

    @property
    def cosines(self) -> F64:
        """Of each text, [texts]."""
        return cosine(self.got, self.want)

    @property
    def summary(self) -> Cosines:
        """Mean and worst cosine."""
        return Cosines.of(self.cosines)

    @property
    def spearman(self) -> float:
        """Rank correlation of the similarities of all pairs of texts; 1 for fewer than 3 texts."""
        if len(self.got) < 3:
            return 1.0
        upper = np.triu_indices(len(self.got), 1)
        ranks = [_ranks((x @ x.T)[upper]) for x in (self.got.astype(np.float64), self.want)]
        return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> F64:
    """Cosine over the last axis, in float64; 0 where a vector is 0."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    length = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    out: F64 = (x * y).sum(axis=-1) / np.maximum(length, 1e-300)
    return out


def evaluation_ids(
    tokenizer: Tokenizer, count: int | None = None, limit: int = texts.TOKENS
) -> list[Ids]:
    """Token ids [S] of the first `count` evaluation texts, all by default, 128 at most each.

    Beyond the fixed set other sentences follow that no calibration text holds. `limit` is the
    model's positions, where it has fewer.
    """
    fixed = len(texts.indices("evaluation"))
    chosen = texts.texts("evaluation", None if count is None else min(count, fixed))
    if count is not None and count > fixed:
        chosen += texts.further(count - fixed)
    return [tokenizer(text, min(limit, texts.TOKENS)) for text in chosen]


def layer_cosines(model: Bert, quantized: QModel, sequences: Sequence[Ids]) -> list[Cosines]:
    """Per layer: cosine of every token's output against fp32, the layer fed with fp32 states.

    Parameters
    ----------
    sequences : sequence of [S]
        Token ids, unpadded.
    """
    found: list[list[float]] = [[] for _ in quantized.layers]
    for ids in sequences:
        for i, states in enumerate(model.forward(ids)):
            layer = quantized.layers[i]
            y = layer.output.to_real(run_layer(layer, layer.input.to_int(states.x)))
            found[i] += cosine(y, states.y).tolist()
    return [Cosines.of(values) for values in found]


def layerwise(run: LayerEngine, layers: int) -> Engine:
    """An engine that runs layer after layer."""

    def engine(x: I16, length: int) -> npt.NDArray[np.integer[Any]]:
        y: npt.NDArray[np.integer[Any]] = x
        for index in range(layers):
            y = run(index, y.astype(np.int16, copy=False), length)
        return y

    return engine


def reference(quantized: QModel) -> Engine:
    """The engine of golden functions."""
    layers = quantized.layers
    return layerwise(lambda index, x, length: run_layer(layers[index], x, length), len(layers))


class Memory:
    """Layer outputs of golden functions, for models that share layers: the latest are kept.

    Two precisions that differ in layer 4 only then compute layers 0 ... 3 once, and fp32 once.

    Parameters
    ----------
    limit : int
        Outputs kept (one of 128 tokens of MiniLM is 96 KiB).
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._outputs: OrderedDict[tuple[str, bytes, int], I16] = OrderedDict()
        self._wanted: dict[bytes, F32] = {}

    def engine(self, quantized: QModel) -> Engine:
        """The engine of a model."""
        marks = [fingerprint(layer) for layer in quantized.layers]

        def run(index: int, x: I16, length: int) -> I16:
            key = marks[index], hashlib.sha256(x.tobytes()).digest(), length
            if key not in self._outputs:
                self._outputs[key] = run_layer(quantized.layers[index], x, length)
                if len(self._outputs) > self._limit:
                    self._outputs.popitem(last=False)
            self._outputs.move_to_end(key)
            return self._outputs[key]

        return layerwise(run, len(marks))

    def evaluate(self, model: Bert, quantized: QModel, sequences: Sequence[Ids]) -> Evaluation:
        """`evaluate` of one of many integer versions of one model."""

        def fp32(ids: Ids) -> F32:
            key = ids.tobytes()
            if key not in self._wanted:
                self._wanted[key] = encode_fp32(model, ids)
            return self._wanted[key]

        return evaluate(model, quantized, sequences, engine=self.engine(quantized), fp32=fp32)


def encode_fp32(model: Bert, ids: Ids) -> F32:
    """Sentence embedding of unpadded ids [S] by the fp32 model -> [H], of length 1."""
    return model.encode(ids, np.ones(len(ids), dtype=np.bool_))


def encode(quantized: QModel, ids: Ids, engine: Engine) -> F32:
    """Sentence embedding of unpadded ids [S] -> [H], of length 1."""
    y = engine(run_embedding(quantized.embedding, ids), len(ids))[: len(ids)]
    return mean_pool(quantized.layers[-1].output.to_real(y), np.ones(len(ids), dtype=np.bool_))


def evaluate(
    model: Bert,
    quantized: QModel,
    sequences: Sequence[Ids],
    *,
    engine: Engine | None = None,
    name: str = "golden",
    store: Path | None = None,
    fp32: Callable[[Ids], F32] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare the sentence embeddings of an integer encoder with those of fp32.

    Parameters
    ----------
    model : Bert
        In fp32.
    quantized : QModel
    sequences : sequence of [S]
        Token ids, unpadded (`evaluation_ids`).
    engine : callable, optional
        What computes the layers: see `Engine`; golden functions by default.
    name : str
        Of the engine, for `store`.
    store : Path, optional
        File of JSON lines that keeps every result as it comes. What stands there is not computed
        again; it must come from the same model and engine.
    fp32 : callable, optional
        Embedding [H] of ids [S]; `encode_fp32` of the model by default.
    progress : callable, optional

    Raises
    ------
    ModelError
        If there is no text, or the file belongs to another model or engine or is damaged.
    """
    if not sequences:
        raise ModelError("evaluation needs at least one text")
    engine = engine or reference(quantized)
    results = _Store(store, {"model": fingerprint(quantized), "engine": name})
    pairs = []
    for done, ids in enumerate(sequences, start=1):
        key = hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()[:16]
        if key not in results.found:
            want = encode_fp32(model, ids) if fp32 is None else fp32(ids)
            results.add(key, (encode(quantized, ids, engine), want), len(ids))
        pairs.append(results.found[key])
        if progress is not None:
            progress(done, len(sequences))
    return Evaluation(got=np.stack([g for g, _ in pairs]), want=np.stack([w for _, w in pairs]))


class _Store:
    """Pairs of embeddings by text, in memory and in a file of JSON lines.

    The first line says what the results belong to; a last line that was not finished is dropped.
    """

    def __init__(self, path: Path | None, header: Mapping[str, str]) -> None:
        self.found: dict[str, tuple[F32, F32]] = {}
        self._path = path
        if path is None:
            return
        lines = JsonLines(path, header)
        for record in lines.records:
            try:
                self.found[record["text"]] = _unpack(record["got"]), _unpack(record["want"])
            except (KeyError, ValueError, TypeError) as error:
                raise ModelError(f"{path}: a line is no result: {error}") from error
        self._lines = lines

    def add(self, key: str, pair: tuple[F32, F32], tokens: int) -> None:
        self.found[key] = pair
        if self._path is not None:
            got, want = pair
            self._lines.append(
                {
                    "text": key,
                    "tokens": tokens,
                    "cosine": round(float(cosine(got, want)), 9),
                    "got": _pack(got),
                    "want": _pack(want),
                }
            )


def _pack(x: F32) -> str:
    return base64.b64encode(x.astype("<f4").tobytes()).decode()


def _unpack(text: str) -> F32:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
