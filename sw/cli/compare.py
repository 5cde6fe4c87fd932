"""Compare quantized models with fp32: embeddings, layers, and what each operation loses."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import click

from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._model import output_option
from tilewright.sw.cli._options import Derived
from tilewright.sw.cli._output import Column, emit_tables, json_option, stages
from tilewright.sw.errors import UserError
from tilewright.sw.quantize.recipe import ROUNDINGS, Recipe
from tilewright.sw.words import plural


@click.command()
@click.argument("model")
@output_option
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("w8a8",),
    metavar="TEXT",
    help="As of `tilewright run`; may be repeated.",
)
@click.option(
    "--texts",
    "count",
    type=int,
    metavar="N",
    cls=Derived,
    show_default="all 200",
    help="Evaluation texts.",
)
@click.option("--layers", is_flag=True, help="Also each layer by itself, fed with fp32 states.")
@click.option("--edges", is_flag=True, help="Also what each operation loses by itself.")
@click.option(
    "--w8",
    type=click.Choice(ROUNDINGS),
    default=Recipe.w8,
    help="How 8-bit weights are rounded.",
)
@click.option("--w4", type=click.Choice(ROUNDINGS), default=Recipe.w4, help="4-bit ones.")
@click.option("--seq", "sequence", default=128, metavar="N", help="Rows of a sequence.")
@click.option(
    "--store",
    metavar="PATH",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps every text's result; an interrupted comparison goes on there.",
)
@config_options()
@json_option
def command(
    model: str,
    outputs: tuple[str, ...],
    precisions: tuple[str, ...],
    count: int | None,
    layers: bool,
    edges: bool,
    w8: str,
    w4: str,
    sequence: int,
    store: Path | None,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Compare quantized models with fp32, on the fixed evaluation texts.

    The golden functions compute, which give the same bits as simulator and RTL. Cosines are those
    of sentence embeddings, mean and worst; cycles are the array's of a sequence, relative to the
    first precision.

    \b
    Examples:
      tilewright compare minilm
      tilewright compare minilm --precision w8a8 --precision w8a16 --precision w8a8,ffn2=w8a16
      tilewright compare minilm --texts 40 --layers --edges
    """
    from tilewright.sw.compiler.cost import model_cycles
    from tilewright.sw.graph.model import load_model
    from tilewright.sw.models.tokenize import Tokenizer
    from tilewright.sw.quantize.calibrate import calibration_ids
    from tilewright.sw.quantize.edges import edge_losses
    from tilewright.sw.quantize.evaluation import evaluate, evaluation_ids, layer_cosines
    from tilewright.sw.quantize.precision import format_precision, parse_precision
    from tilewright.sw.quantize.quantize import calibrated

    if count is not None and count < 1:
        raise UserError(f"--texts {count}: must be 1 or more")
    config = chosen_config(preset, config_file, settings)
    loaded = load_model(model, outputs)
    shape = loaded.bert.config
    recipe = Recipe(w4=w4, w8=w8)
    chosen = {text: parse_precision(text, shape.layers) for text in precisions}
    rows: list[dict[str, Any]] = []
    by_layer: list[dict[str, Any]] = []
    by_edge: list[dict[str, Any]] = []
    with stages("plan") as tell:
        # First, since it refuses what does not fit.
        cycles = {
            text: model_cycles(config, shape.hidden, shape.heads, shape.ffn, sequence, precision)
            for text, precision in chosen.items()
        }
        base = cycles[precisions[0]]
        tokenizer = Tokenizer(loaded.folder)
        sequences = evaluation_ids(tokenizer, count, shape.positions)
        ids = calibration_ids(tokenizer, shape.positions)
        quantizer = calibrated(loaded.bert, ids, recipe, tell=tell)
        for text, precision in chosen.items():
            quantized = quantizer(precision, progress=partial(tell, f"quantize to {text}"))
            name = format_precision(precision)
            result = evaluate(
                loaded.bert,
                quantized,
                sequences,
                store=None if store is None else _file(store, name, recipe),
                progress=partial(tell, text),
            )
            rows.append(
                {
                    "precision": name,
                    "mean": result.summary.mean,
                    "worst": result.summary.worst,
                    "spearman": result.spearman,
                    "cycles": cycles[text],
                    "relative": cycles[text] / base,
                }
            )
            if layers:
                tell(f"layers of {text}")
                for number, found in enumerate(layer_cosines(loaded.bert, quantized, sequences)):
                    by_layer.append(
                        {
                            "precision": name,
                            "layer": number,
                            "mean": found.mean,
                            "worst": found.worst,
                        }
                    )
            if edges:
                for loss in edge_losses(
                    quantizer,
                    sequences,
                    precision,
                    progress=partial(tell, f"operations of {text}"),
                ):
                    where = "all" if loss.layer is None else str(loss.layer)
                    by_edge.append(
                        {
                            "operation": loss.operation or "none",
                            "layer": "" if loss.operation is None else where,
                            "width": loss.width,
                            "mean": loss.mean,
                            "worst": loss.worst,
                            "loss": loss.loss,
                        }
                    )
    title = (
        f"{Path(model).name}: {plural(len(sequences), 'text')}, "
        f"{plural(sum(map(len, sequences)), 'token')}, against fp32; cycles of "
        f"{plural(sequence, 'row')} on {config.rows}×{config.columns}"
    )
    tables: list[tuple[str, list[Column], list[dict[str, Any]]]] = [(title, _PRECISIONS, rows)]
    keys = []
    if layers:
        tables.append(("each layer by itself, every token", _LAYERS, by_layer))
        keys.append("layers")
    if edges:
        tables.append(("one operation narrow, all others W16A16", _EDGES, by_edge))
        keys.append("operations")
    emit_tables(tables, json_path=json_path, keys=keys, extra={"texts": len(sequences)})


_LONGEST = 120
"""Characters of a file's name."""


def _file(folder: Path, name: str, recipe: "Recipe") -> Path:
    """The file of a precision's results."""
    for bits, rounding in (("w8", recipe.w8), ("w4", recipe.w4)):
        if rounding != "gptq":
            name += f"-{bits}-{rounding}"
    folder.mkdir(parents=True, exist_ok=True)
    safe = "".join(c if c.isalnum() or c in "=.-" else "_" for c in name)
    # A precision that differs in every layer has a longer name than files may have.
    if len(safe) > _LONGEST:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        safe = f"{safe[:_LONGEST]}-{digest}"
    return folder / f"{safe}.jsonl"


def _cosine(value: float) -> str:
    return f"{value:.5f}"


_COSINES = [
    Column(key="mean", header="cosine", right=True, show=_cosine),
    Column(key="worst", header="worst", right=True, show=_cosine),
]
_PRECISIONS = [
    Column(key="precision", header="precision"),
    *_COSINES,
    Column(key="spearman", header="Spearman", right=True, show=_cosine),
    Column(key="cycles", header="cycles", right=True),
    Column(key="relative", header="relative", right=True, show=lambda r: f"{r:.2f}×"),
]
_LAYERS = [
    Column(key="precision", header="precision"),
    Column(key="layer", header="layer", right=True),
    *_COSINES,
]
_EDGES = [
    Column(key="operation", header="operation"),
    Column(key="layer", header="layer", right=True),
    Column(key="width", header="width"),
    *_COSINES,
    Column(key="loss", header="1 − cosine", right=True, show=lambda v: f"{v:.6f}"),
]
