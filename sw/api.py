"""From a model to a program in two calls: what `tilewright.load` and `tilewright.compile` are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tilewright.hw.config import Config
from tilewright.sw.compiler import compile_layer, compile_model
from tilewright.sw.compiler.layer import EFFORT
from tilewright.sw.pipeline.device import with_model
from tilewright.sw.pipeline.pipeline import Pipeline
from tilewright.sw.program import Executable, InputError


def load(model: str | Path, *, precision: str = "w8a8") -> Pipeline:
    """Load a model, calibrate it and quantize it.

    The integers are kept in the cache: a model and precision are quantized once.

    Parameters
    ----------
    model : str or Path
        A known name ("minilm"), a folder with ``config.json`` and ``model.safetensors``, or an
        ``.onnx`` file of an encoder.
    precision : str
        "w8a8", "w8a16", "w16a16", "w4a8" or "w4a16": bits of weights and of operands; overrides
        such as "w8a8,ffn2=w8a16,2.attention=16"; or a TOML file.

    Returns
    -------
    Pipeline
        Call it with a list of texts. It runs the golden functions, and the machine's programs after
        ``on(device)``; either way the same bits.

    Raises
    ------
    ModelError
        A model that cannot be read or is not supported.

    Examples
    --------
    >>> import tilewright as tw
    >>> model = tw.load("minilm")
    >>> cat, kitten = (output.result for output in model(["A cat sleeps.", "A kitten naps."]))
    >>> cat.shape, bool(cat @ kitten > 0.5)
    ((384,), True)
    """
    return Pipeline.load(model, precision=precision)


def compile(
    model: Pipeline | str | Path,
    config: Config,
    sequence: int = 128,
    *,
    layer: int | None = None,
    batch: int = 1,
    effort: int = EFFORT,
    progress: Callable[[int, int], None] | None = None,
) -> Executable:
    """Compile a model, or one layer of it, for a machine.

    Parameters
    ----------
    model : Pipeline, str or Path
        What `load` gives, or what it takes.
    config : Config
        The machine.
    sequence : int
        Rows S of each sequence. How many of them are tokens is said when the program runs.
    layer : int, optional
        The one encoder layer to compile, 0 being the first; the whole encoder if not given.
    batch : int
        Sequences in a run of the whole encoder, 1 … 16.
    effort : int
        Choices of each part of a layer's plan that are compared; 1 takes the first that fits.
    progress : callable, optional
        Told the layers done and their number, of the whole encoder.

    Returns
    -------
    Executable
        Of the whole encoder: input "z" (int16 [S, H], sum of the embeddings), output "y" (int16
        [S, H]), scalar "length" (tokens); of a batch "z0", "y0", "length0" and so on. Of a layer:
        input "x" (int16 [S, H], in units of the layer's input), output "y", scalar "length".

    Raises
    ------
    ModelError
        As `load`.
    CompileError
        The model does not fit the machine; the line has reason and sizes.
    InputError
        There is no such layer, or a batch of a single layer.

    Examples
    --------
    >>> import tilewright as tw
    >>> program = tw.compile("minilm", tw.preset("small"), 16, layer=0, effort=1)
    >>> sorted(program.inputs), sorted(program.scalars)
    (['x'], ['length'])
    """
    pipeline = model if isinstance(model, Pipeline) else load(model)
    if layer is None:
        made = compile_model(
            pipeline.quantized, config, sequence, batch=batch, effort=effort, progress=progress
        )
        return with_model(made, pipeline.model)
    layers = pipeline.quantized.layers
    if not 0 <= layer < len(layers):
        raise InputError(f"layer must be 0 to {len(layers) - 1}, got {layer}")
    if batch != 1:
        raise InputError(f"batch must be 1 for a single layer, got {batch}")
    return compile_layer(layers[layer], config, sequence, effort=effort)
