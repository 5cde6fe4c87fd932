"""How near the integers come to fp32: the small command over `sw.quantize.evaluation`.

``python -m sw.quantize.measure --precision w8a16 --sentences all``
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click

from sw.errors import UserError
from sw.models.fetch import resolve_model
from sw.models.tokenize import Tokenizer, Tokens
from sw.quantize import texts
from sw.quantize.edges import edge_losses
from sw.quantize.evaluation import (
    Cosines,
    cosine,
    evaluate,
    evaluation_ids,
    layer_cosines,
)
from sw.quantize.precision import format_precision, parse_precision
from sw.quantize.quantize import folder_quantizer, quantize_folder
from sw.quantize.recipe import ROUNDINGS, Recipe

__all__ = ["Cosines", "cosine", "evaluation_tokens", "layer_cosines", "main"]


def evaluation_tokens(tokenizer: Tokenizer, count: int, length: int = 128) -> Tokens:
    """The first `count` evaluation texts, cut and padded to `length`."""
    return tokenizer.batch(texts.texts("evaluation", count), length)


def _count(_context: click.Context, _option: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor 'all'") from None


@click.command()
@click.argument("model", default="minilm")
@click.option("--precision", default="w8a8", show_default=True, help="Such as w8a8,ffn2=w8a16.")
@click.option(
    "--sentences",
    "count",
    default="all",
    show_default=True,
    callback=_count,
    help="Number of evaluation texts, or all.",
)
@click.option("--layers", is_flag=True, help="Also each layer by itself, fed with fp32 states.")
@click.option("--edges", is_flag=True, help="What each operation loses by itself instead.")
@click.option("--w4", type=click.Choice(ROUNDINGS), default=Recipe.w4, show_default=True)
@click.option("--w8", type=click.Choice(ROUNDINGS), default=Recipe.w8, show_default=True)
@click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON lines that keep each result; an interrupted run goes on there.",
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
def main(
    model: str,
    precision: str,
    count: int | None,
    layers: bool,
    edges: bool,
    w4: str,
    w8: str,
    store: Path | None,
    json_path: Path | None,
) -> None:
    """Print cosines of a model's sentence embeddings, integers against fp32."""
    try:
        recipe = Recipe(w4=w4, w8=w8)
        if edges:
            found = _edges(model, precision, count, recipe)
        else:
            found = _measure(model, precision, count, layers, recipe, store)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _measure(
    name: str, precision: str, count: int | None, layers: bool, recipe: Recipe, store: Path | None
) -> dict[str, Any]:
    folder = resolve_model(name)
    model, quantized = quantize_folder(folder, recipe, precision)
    ids = evaluation_ids(Tokenizer(folder), count)
    tokens = sum(map(len, ids))
    text = format_precision(quantized.precision)
    click.echo(f"{name} {text}, {len(ids)} texts, {tokens} tokens; mean / worst cosine")
    found: dict[str, Any] = {"precision": text, "texts": len(ids), "tokens": tokens}
    if layers:
        rows = layer_cosines(model, quantized, ids)
        found["layers"] = [{"mean": row.mean, "worst": row.worst} for row in rows]
        for i, row in enumerate(rows):
            click.echo(f"layer {i}: {row.mean:.5f} / {row.worst:.5f}")
    result = evaluate(model, quantized, ids, store=store, progress=_show_progress)
    mean, worst, rho = result.summary.mean, result.summary.worst, result.spearman
    found |= {"mean": mean, "worst": worst, "spearman": rho}
    click.echo(f"sentence embedding: {mean:.5f} / {worst:.5f}, Spearman {rho:.5f}")
    return found


def _edges(name: str, precision: str, count: int | None, recipe: Recipe) -> dict[str, Any]:
    folder = resolve_model(name)
    quantizer = folder_quantizer(folder, recipe)
    ids = evaluation_ids(Tokenizer(folder), count)
    widths = parse_precision(precision, len(quantizer.model.layers))
    text = format_precision(widths)
    click.echo(f"{name}, operations of {text}, the others W16A16, {len(ids)} texts; mean / worst")
    rows = []
    for row in edge_losses(quantizer, ids, widths):
        where = "every layer" if row.layer is None else f"layer {row.layer}"
        what = "nothing" if row.operation is None else f"{row.operation} of {where}"
        click.echo(f"{what}: {row.mean:.6f} / {row.worst:.5f}")
        rows.append(dataclasses.asdict(row))
    return {"precision": text, "texts": len(ids), "edges": rows}


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done}/{total}" + ("\n" if done == total else ""), nl=False, err=True)


if __name__ == "__main__":
    main()
