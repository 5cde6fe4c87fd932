"""What can be profiled: a layer of a model, a whole model, a random layer of given sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilewright.hw.config import Config
from tilewright.sw.compiler import compile_layer, compile_model
from tilewright.sw.compiler.model import check_sequence
from tilewright.sw.errors import UserError
from tilewright.sw.pipeline.pipeline import Pipeline
from tilewright.sw.program import Executable
from tilewright.sw.quantize.formats import QLayer
from tilewright.sw.quantize.precision import parse_precision
from tilewright.sw.quantize.seeded import make_input, make_layer
from tilewright.sw.words import plural

SEED = 1
"""Of everything random; no number of it matters to time but to a few cycles."""
WHOLE = "whole"

_NEEDED, _MORE = ("hidden", "heads", "ffn"), ("head_dim",)

Tell = Callable[..., None]
"""``tell(what)``, or ``tell(what, done, total)``."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A program with what a run of it needs.

    Attributes
    ----------
    title : str
    executable : Executable
    inputs : mapping of str to array
    scalars : mapping of str to int
    """

    title: str
    executable: Executable
    inputs: Mapping[str, npt.NDArray[np.int16]]
    scalars: Mapping[str, int]


def _layer(title: str, layer: QLayer, config: Config, sequence: int) -> Workload:
    return Workload(
        title=title,
        executable=compile_layer(layer, config, sequence),
        inputs={"x": make_input(SEED, sequence, layer.hidden)},
        scalars={"length": sequence},
    )


def model_work(
    where: str,
    config: Config,
    *,
    layer: str,
    sequence: int,
    precision: str,
    tell: Tell,
    outputs: Sequence[str] = (),
) -> Workload:
    """A layer of a model by its number, or all of it ("whole"), on random tokens or states.

    `outputs` is as of `tilewright.sw.graph.model.load_model`.

    Raises
    ------
    UserError
        If there is no such layer, the model has fewer positions, or does not fit.
    """
    if layer != WHOLE and not layer.isdecimal():
        raise UserError(f"layer {layer}: must be a number or `{WHOLE}`")
    model = Pipeline.load(where, outputs=outputs, precision=precision, tell=tell).quantized
    check_sequence(model, sequence)
    count = len(model.layers)
    name = Path(where).name
    if layer != WHOLE:
        if int(layer) >= count:
            raise UserError(f"layer {layer}: must be 0 to {count - 1}, or `{WHOLE}`")
        tell(f"compile for {config.title}")
        title = f"{name} layer {int(layer)}, {precision}, sequence {sequence}"
        return _layer(title, model.layers[int(layer)], config, sequence)
    executable = compile_model(
        model,
        config,
        sequence,
        progress=lambda done, total: tell(f"compile for {config.title}: layer {done} of {total}"),
    )
    tokens = np.random.default_rng(SEED).integers(0, len(model.embedding.word), sequence)
    return Workload(
        title=f"{name}, {plural(count, 'layer')}, {precision}, sequence {sequence}",
        executable=executable,
        inputs={"z": model.embedding.look_up(tokens)},
        scalars={"length": sequence},
    )


def parse_shape(text: str) -> dict[str, int]:
    """Sizes of a layer from "hidden=768,heads=12,ffn=3072", head_dim = hidden / heads by default.

    Raises
    ------
    UserError
        Naming what is missing, unknown or no size.
    """
    sizes: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = item.partition("=")
        if name not in (*_NEEDED, *_MORE):
            known = ", ".join((*_NEEDED, *_MORE))
            raise UserError(f"shape {text}: {name!r} must be one of {known}")
        if not value.isdecimal() or not int(value):
            raise UserError(f"shape {text}: {name} = {value!r}: must be 1 or more")
        sizes[name] = int(value)
    for name in _NEEDED:
        if name not in sizes:
            raise UserError(f"shape {text}: {name} is missing")
    if "head_dim" not in sizes:
        if sizes["hidden"] % sizes["heads"]:
            raise UserError(f"shape {text}: hidden must be a multiple of heads, or give head_dim=…")
        sizes["head_dim"] = sizes["hidden"] // sizes["heads"]
    return sizes


def shape_work(
    shape: str, config: Config, *, sequence: int, precision: str, tell: Tell
) -> Workload:
    """A layer of random integers.

    Raises
    ------
    UserError
        If the sizes or the precision are none, or the layer does not fit.
    """
    sizes = parse_shape(shape)
    (widths,) = parse_precision(precision, 1)
    tell("make a random layer")
    layer = make_layer(SEED, precision=widths, **sizes)
    tell(f"compile for {config.title}")
    text = ", ".join(f"{name} {size}" for name, size in sizes.items())
    return _layer(
        f"random layer, {text}, {precision}, sequence {sequence}", layer, config, sequence
    )
