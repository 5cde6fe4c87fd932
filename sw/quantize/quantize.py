"""fp32 encoder and calibrated ranges to integers, by the contract of docs/numerics.md."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tilewright.sw.cache import build_once, cache_dir
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import encode
from tilewright.sw.quantize.calibrate import LayerRange, calibrate, calibration_ids
from tilewright.sw.quantize.file import load, save
from tilewright.sw.quantize.fingerprint import fingerprint
from tilewright.sw.quantize.formats import (
    HostEmbedding,
    QEmbedding,
    QModel,
    State,
    Width,
    check_sizes,
)
from tilewright.sw.quantize.layer import LayerQuantizer, f64, norm, state
from tilewright.sw.quantize.precision import ModelPrecision, parse_precision
from tilewright.sw.quantize.recipe import Recipe
from tilewright.sw.sources import ROOT

__all__ = [
    "Quantizer",
    "Recipe",
    "quantize",
    "quantize_folder",
    "quantize_model",
]

KIND = "quantized"
"""Kind of these entries in the cache."""

_EMBEDDING_Q = 13
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
        # Nothing is multiplied behind the last layer, so nothing is smoothed.
        self._last = state(ranges[-1].y, np.ones(model.config.hidden), Width.S16, self.recipe)

    def fingerprint(self, *more: object) -> str:
        """Hash of what this quantizes, and how, and of `more`."""
        return fingerprint((self._ranges, self.recipe, more))

    def __call__(self, precision: ModelPrecision | str) -> QModel:
        """Quantize.

        Parameters
        ----------
        precision : tuple of LayerPrecision, or its text
            One a layer.

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
        layers = tuple(
            layer.build(widths, states[i], states[i + 1]) for i, (layer, widths) in enumerate(parts)
        )
        return QModel(embedding=_embedding(self.model, states[0]), layers=layers)


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
    ln = norm(real.ln, output, z_scale=2.0**-q, config=model.config, name="embedding")
    return QEmbedding(word=word, position=position, type=kind, fraction=q, ln=ln)


def quantize(
    model: Bert,
    ranges: tuple[LayerRange, ...],
    recipe: Recipe | None = None,
    precision: ModelPrecision | str = "w8a8",
) -> QModel:
    """Quantize an encoder to one precision; see `Quantizer`."""
    return Quantizer(model, ranges, recipe)(precision)


def quantize_model(
    model: Bert,
    folder: Path,
    recipe: Recipe | None = None,
    precision: ModelPrecision | str = "w8a8",
    *,
    quantizer: Callable[[], Quantizer] | None = None,
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
            made = Quantizer(model, calibrate(model, ids, moments=True), recipe)
        save(made(precision), out / _FILE)

    return load(build_once(entry, build) / _FILE)


def quantize_folder(
    folder: Path, recipe: Recipe | None = None, precision: ModelPrecision | str = "w8a8"
) -> tuple[Bert, QModel]:
    """Load a model folder and quantize it; see `quantize_model`."""
    model = Bert.load(folder)
    return model, quantize_model(model, folder, recipe, precision)


def _key(model: Bert, folder: Path, recipe: Recipe, precision: ModelPrecision) -> str:
    """Hash of all that the integers depend on: the model, the choices, the code."""
    digest = hashlib.sha256(f"{fingerprint(model)} {recipe} {precision}".encode())
    files = [folder / name for name in _TOKENIZER if (folder / name).is_file()]
    for package in _CODE:
        files += sorted((ROOT / package).rglob("*.py")) + sorted((ROOT / package).rglob("*.json"))
    for path in files:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]
