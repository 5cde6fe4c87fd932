"""Find the mixed precision that meets an accuracy target in the fewest cycles."""

from pathlib import Path
from typing import Any

import click

from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._model import output_option
from tilewright.sw.cli._output import Column, emit_tables, json_option, stages
from tilewright.sw.errors import ResultError
from tilewright.sw.words import plural


@click.command()
@click.argument("model")
@output_option
@click.option(
    "--cosine",
    "target",
    default=0.999,
    metavar="NUMBER",
    help="Mean cosine of the embeddings to be reached.",
)
@click.option("--start", default="w8a8", metavar="TEXT", help="Precision to start from.")
@click.option("--texts", "count", default=64, metavar="N", help="Texts to measure on.")
@click.option("--seq", "sequence", default=128, metavar="N", help="Rows of a sequence.")
@click.option(
    "--store",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps every point; an interrupted search goes on there.",
)
@config_options()
@json_option
def command(
    model: str,
    outputs: tuple[str, ...],
    target: float,
    start: str,
    count: int,
    sequence: int,
    store: Path | None,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Find the mixed precision that meets an accuracy target in the fewest cycles.

    Measures on texts of the calibration, what each operation of each layer gains for its cycles;
    `tilewright compare` then tells what the result is worth on texts it has not seen.

    \b
    Examples:
      tilewright search minilm
      tilewright search minilm --cosine 0.9995 --store points.jsonl
    """
    from tilewright.sw.compiler.cost import model_cycles
    from tilewright.sw.graph.model import load_model
    from tilewright.sw.models.tokenize import Tokenizer
    from tilewright.sw.quantize.calibrate import calibration_ids
    from tilewright.sw.quantize.precision import ModelPrecision, parse_precision
    from tilewright.sw.quantize.quantize import calibrated
    from tilewright.sw.quantize.search import Point, search, search_ids

    config = chosen_config(preset, config_file, settings)
    loaded = load_model(model, outputs)
    shape = loaded.bert.config
    first = parse_precision(start, shape.layers)

    def cost(precision: ModelPrecision) -> int:
        return model_cycles(
            config,
            shape.hidden,
            shape.heads,
            shape.ffn,
            sequence,
            precision,
        )

    with stages("plan") as tell:
        # First, since it refuses what does not fit.
        base = cost(first)
        tokenizer = Tokenizer(loaded.folder)
        sequences = search_ids(tokenizer, count, shape.positions)
        ids = calibration_ids(tokenizer, shape.positions)
        quantizer = calibrated(loaded.bert, ids, tell=tell)
        tried = 0

        def report(point: Point) -> None:
            nonlocal tried
            tried += 1
            tell(f"{plural(tried, 'point')}; {point.mean:.5f} {point.text}")

        found = search(
            quantizer,
            sequences,
            cost,
            target=target,
            start=first,
            store=store,
            report=report,
        )
    rows: list[dict[str, Any]] = [
        {
            "precision": point.text,
            "mean": point.mean,
            "worst": point.worst,
            "cycles": point.cycles,
            "relative": point.cycles / base,
            "best": point == found.best,
        }
        for point in found.points
    ]
    emit_tables(
        [(f"{Path(model).name}: points tried for a mean cosine of {target}", _POINTS, rows)],
        json_path=json_path,
        notes=[
            f"best: {found.best.text}, {found.best.cycles / base:.2f}× the cycles of {start}",
            f"next: tilewright compare {model} --precision '{found.best.text}'",
        ],
        extra={"target": target, "met": found.met, "best": found.best.text},
    )
    if not found.met:
        raise ResultError(f"no precision reached {target}; the best has {found.best.mean:.5f}")


_POINTS = [
    Column(key="precision", header="precision"),
    Column(key="mean", header="cosine", right=True, show=lambda v: f"{v:.5f}"),
    Column(key="worst", header="worst", right=True, show=lambda v: f"{v:.5f}"),
    Column(key="cycles", header="cycles", right=True),
    Column(key="relative", header="relative", right=True, show=lambda v: f"{v:.3f}×"),
    Column(key="best", header="", show=lambda b: "◀" if b else "", style=lambda b: "green"),
]
