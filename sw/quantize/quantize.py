"""fp32 encoder and calibrated ranges to integers, by the contract of docs/numerics.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tilewright.sw.cache import build_once, cache_dir
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError, UnfitError
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import encode
from tilewright.sw.quantize.calibrate import LayerRange, calibrate, calibration_ids
from tilewright.sw.quantize.evaluation import Ids
from tilewright.sw.quantize.file import load, save
from tilewright.sw.quantize.fingerprint import fingerprint
from tilewright.sw.quantize.formats import (
    I16,
    EdgeFormat,
    HostEmbedding,
    QEmbedding,
    QModel,
    State,
    check_sizes,
)
from tilewright.sw.quantize.layer import LayerQuantizer, f64, norm, state
from tilewright.sw.quantize.precision import ModelPrecision, parse_precision
from tilewright.sw.quantize.recipe import Recipe
from tilewright.sw.sources import files_hash, source_hash

__all__ = [
    "Quantizer",
    "Recipe",
    "calibrated",
    "quantize",
    "quantize_folder",
    "quantize_model",
]

KIND = "quantized"
"""Kind of these entries in the cache."""

Tell = Callable[[str, int, int], None]
"""``tell(what, done, total)``: what is being done, and how much of it is done."""

_EMBEDDING_Q = 13
_NORM = 1e15
"""Largest output whose squares fp32 can add up, over any row and sequence."""
_ROWS = 1000
"""Words looked at by `_check_rows`."""
_LOST = 0.5
"""Largest error of a word's embedding, relative to its deviation, that most may have."""
_FILE = "model.npz"
_CODE = ("sw/quantize", "sw/models", "sim/golden")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "sentence_bert_config.json",
)


class Quantizer:
    """Quantizes a calibrated encoder to any precision; what was rounded once is kept.

    Parameters
    ----------
    model : Bert
    ranges : tuple of LayerRange
        One a layer, from `calibrate`; with moments where the recipe rounds by GPTQ.
    recipe : Recipe, optional

    Raises
    ------
    ModelError
        If the ranges are those of another number of layers, or a size is above 4096.
    """

    def __init__(
        self, model: Bert, ranges: tuple[LayerRange, ...], recipe: Recipe | None = None
    ) -> None:
        if len(ranges) != len(model.layers):
            raise ModelError(f"{len(ranges)} calibrated layers, the model has {len(model.layers)}")
        _check(model)
        self.model = model
        self.recipe = recipe or Recipe()
        self._ranges = ranges
        self._layers = [
            LayerQuantizer(layer, amax, config=model.config, recipe=self.recipe, name=f"layer {i}")
            for i, (layer, amax) in enumerate(zip(model.layers, ranges, strict=True))
        ]
        if (top := float(ranges[-1].y.max())) > _NORM:
            raise ModelError(
                f"layer {len(ranges) - 1}.ln2: the norm of results up to {top:.3g} overflows fp32; "
                f"the largest weight is {model.largest()}"
            )
        # Nothing is multiplied behind the last layer, so nothing is smoothed.
        self._last = state(ranges[-1].y, np.ones(model.config.hidden), EdgeFormat.S16, self.recipe)

    def fingerprint(self, *more: object) -> str:
        """Hash of what this quantizes, and how, and of `more`."""
        return fingerprint((self._ranges, self.recipe, more))

    def __call__(
        self, precision: ModelPrecision | str, *, progress: Callable[[int, int], None] | None = None
    ) -> QModel:
        """Quantize.

        Parameters
        ----------
        precision : tuple of LayerPrecision, or its text
            One a layer.
        progress : callable, optional
            ``progress(done, total)``, layers.

        Raises
        ------
        ModelError
            If a constant does not fit its width; the message names the edge and the bound.
        """
        count = len(self._layers)
        if isinstance(precision, str):
            precision = parse_precision(precision, count)
        if len(precision) != count:
            raise ModelError(f"a precision of {len(precision)} layers, the model has {count}")
        parts = list(zip(self._layers, precision, strict=True))
        states = [layer.input_state(widths.qkv) for layer, widths in parts] + [self._last]
        try:
            embedding = _embedding(self.model, states[0])
            layers = []
            for i, (layer, widths) in enumerate(parts):
                if progress is not None:
                    progress(i, count)
                layers.append(layer.build(widths, states[i], states[i + 1]))
            return QModel(embedding=embedding, layers=tuple(layers))
        except UnfitError as error:
            # What does not fit in one place often comes from another.
            raise ModelError(f"{error}; the largest weight is {self.model.largest()}") from error


def _check(model: Bert) -> None:
    shape = model.config
    check_sizes(hidden=shape.hidden, heads=shape.heads, head_dim=shape.head_dim, ffn=shape.ffn)


def _embedding(model: Bert, output: State) -> QEmbedding | HostEmbedding:
    real = model.embedding
    if real.project is not None:
        return HostEmbedding(
            word=real.word,
            position=real.position,
            type=real.type,
            gamma=real.ln.gamma,
            beta=real.ln.beta,
            eps=model.config.eps,
            weight=real.project.w,
            bias=real.project.b,
            output=output,
        )
    tables = (real.word, real.position, real.type)
    amax = max(float(np.abs(table).max()) for table in tables)
    q = min(_EMBEDDING_Q, -int(math.log2(encode.power_of_two(amax))))
    word, position, kind = (
        np.clip(encode.round_half_up(f64(table) * 2.0**q), -32768, 32767).astype(np.int16)
        for table in tables
    )
    _check_rows(model, word, q)
    ln = norm(real.ln, output, z_scale=2.0**-q, config=model.config, name="embedding")
    return QEmbedding(word=word, position=position, type=kind, fraction=q, ln=ln)


def _check_rows(model: Bert, word: I16, fraction: int) -> None:
    """Refuse tables in which one scale leaves nothing of most words."""
    table = model.embedding
    some = slice(None, None, len(word) // _ROWS + 1)
    z = f64(table.word[some]) + table.position[0] + table.type[0]
    lost = np.abs(word[some] * 2.0**-fraction - table.word[some]).max(axis=1)
    if np.median(lost / np.sqrt(z.var(axis=1) + model.config.eps)) > _LOST:
        raise UnfitError(
            f"embedding: a scale of 2^{-fraction} for its largest weight leaves nothing of the "
            "other words"
        )


def quantize(
    model: Bert,
    ranges: tuple[LayerRange, ...],
    recipe: Recipe | None = None,
    precision: ModelPrecision | str = "w8a8",
) -> QModel:
    """Quantize an encoder to one precision; see `Quantizer`."""
    return Quantizer(model, ranges, recipe)(precision)


def calibrated(
    model: Bert, ids: Sequence[Ids], recipe: Recipe | None = None, *, tell: Tell | None = None
) -> Quantizer:
    """The quantizer of an encoder, calibrated on token ids."""

    def progress(done: int) -> None:
        if tell is not None:
            tell("calibrate", done, len(ids))

    return Quantizer(model, calibrate(model, ids, moments=True, progress=progress), recipe)


def quantize_model(
    model: Bert,
    folder: Path,
    recipe: Recipe | None = None,
    precision: ModelPrecision | str = "w8a8",
    *,
    quantizer: Callable[[], Quantizer] | None = None,
    tell: Tell | None = None,
) -> QModel:
    """Quantize an encoder, calibrated on the fixed calibration texts.

    The integers are kept in the cache: a model, precision and recipe are quantized once.

    Parameters
    ----------
    model : Bert
    folder : Path
        Where its tokenizer is.
    recipe : Recipe, optional
    precision : tuple of LayerPrecision, or str
    quantizer : callable, optional
        Gives the quantizer of this model and recipe, calibrated on the fixed texts; called only
        where the cache has not the integers. Several precisions may share one.
    tell : callable, optional
        Told the progress of what takes a while.

    Raises
    ------
    ModelError
        If a size is above 4096, or a constant does not fit its width.
    """
    # Before the texts run through it.
    _check(model)
    recipe = recipe or Recipe()
    if isinstance(precision, str):
        precision = parse_precision(precision, len(model.layers))
    entry = cache_dir() / KIND / _key(model, folder, recipe, precision)

    def build(out: Path) -> None:
        if quantizer is not None:
            made = quantizer()
        else:
            ids = calibration_ids(Tokenizer(folder), model.config.positions)
            made = calibrated(model, ids, recipe, tell=tell)
        progress = None if tell is None else partial(tell, "quantize")
        save(made(precision, progress=progress), out / _FILE)

    return load(build_once(entry, build) / _FILE)


def quantize_folder(
    folder: Path,
    recipe: Recipe | None = None,
    precision: ModelPrecision | str = "w8a8",
    *,
    tell: Tell | None = None,
) -> tuple[Bert, QModel]:
    """Load a model folder and quantize it; see `quantize_model`."""
    model = Bert.load(folder)
    return model, quantize_model(model, folder, recipe, precision, tell=tell)


def _key(model: Bert, folder: Path, recipe: Recipe, precision: ModelPrecision) -> str:
    """Hash of all that the integers depend on: the model, the choices, the code."""
    tokenizer = tuple(name for name in _TOKENIZER if (folder / name).is_file())
    parts = (fingerprint(model), recipe, precision, files_hash(tokenizer, folder))
    return fingerprint((*parts, source_hash(_CODE)))
