"""One real BERT encoder layer through generated RTL, bit for bit."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilewright.sw.cli._config import chosen_config, config_options, config_words
from tilewright.sw.cli._output import Column, emit_tables, json_option, progress, size
from tilewright.sw.cli._units import unit_columns, unit_rows
from tilewright.sw.errors import ResultError, UserError
from tilewright.sw.words import plural

if TYPE_CHECKING:
    from tilewright.sw.demo import Demo, Outcome


@click.command()
@click.argument("model", default="minilm")
@config_options()
@click.option("--layer", default=0, metavar="N", help="Encoder layer that RTL computes.")
@click.option("--seq", "sequence", default=128, metavar="N", help="Rows of a sequence.")
@click.option("--texts", "count", default=8, metavar="N", help="Texts of the collection.")
@click.option(
    "--text", "texts", multiple=True, metavar="TEXT", help="A text instead; may be repeated."
)
@click.option("--jobs", default=2, metavar="N", help="RTL simulations at a time.")
@click.option(
    "--every-layer",
    is_flag=True,
    help="Also run every layer of the model on the instruction-set simulator.",
)
@click.option(
    "--trace",
    metavar="FILE.fst",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a waveform of the first sentence.",
)
@click.option(
    "--trace-from", type=click.IntRange(min=0), metavar="CYCLE", help="First cycle of the waveform."
)
@click.option(
    "--trace-cycles",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Cycles of the waveform; 0 for all.",
)
@json_option
def command(
    model: str,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    layer: int,
    sequence: int,
    count: int,
    texts: tuple[str, ...],
    jobs: int,
    every_layer: bool,
    trace: Path | None,
    trace_from: int | None,
    trace_cycles: int,
    json_path: str | None,
) -> None:
    """Run one encoder layer of a real BERT through generated RTL, bit for bit.

    MODEL is a folder with config.json and model.safetensors; without one it is `minilm`, which is
    fetched once. It is quantized on real sentences, the layer compiled, the Verilog generated and
    its simulator built; real sentences of different lengths run, and all that RTL wrote to memory
    is compared with the instruction-set simulator, and every token with fp32.

    \b
    Examples:
      tilewright demo
      tilewright demo --every-layer
      tilewright demo --preset small --layer 3 --seq 32 --texts 2
      tilewright demo --seq 32 --texts 1 --trace layer.fst --trace-from 5000 \\
          --trace-cycles 2000
    """
    from tilewright.sw.demo import LEAST_MEAN, LEAST_WORST, MOST_SENTENCES, Demo
    from tilewright.sw.models.fetch import resolve_model

    config = chosen_config(preset, config_file, settings)
    for name, value in (
        ("--texts", count),
        ("--jobs", jobs),
        ("--seq", sequence),
    ):
        if value < 1:
            raise UserError(f"{name} {value}: must be 1 or more")
    if count > MOST_SENTENCES:
        raise UserError(f"--texts {count}: the collection has {MOST_SENTENCES} for this")
    if trace is None and (trace_from is not None or trace_cycles):
        raise UserError("--trace-from and --trace-cycles belong to a waveform: give --trace")
    if trace is not None and not trace.parent.is_dir():
        raise UserError(f"--trace {trace}: there is no folder {trace.parent}")
    again = ["tilewright", "demo", model, *config_words(preset, config_file, settings)]
    again += ["--layer", str(layer), "--seq", str(sequence)]
    began = time.perf_counter()
    with progress("text", "bar", "detail", "time", keep=True) as bar:
        fetching = bar.add_task(f"fetch {model}", total=1, detail="")
        folder = resolve_model(model)
        bar.advance(fetching)
        _check_texts(folder, texts, sequence)
        compiling = bar.add_task("quantize and compile", total=1, detail="")
        demo = Demo(
            folder,
            layer=layer,
            config=config,
            sequence=sequence,
            tell=lambda what, done, total: bar.update(
                compiling, completed=done, total=total, detail=what
            ),
        )
        samples = demo.samples(texts or demo.texts(count))
        bar.update(
            compiling,
            completed=1,
            total=1,
            detail=f"{plural(len(demo.program.program), 'command')}, "
            f"{size(len(demo.program.constants[1]))}",
        )
        building = bar.add_task("build the simulator", total=1, detail="")
        demo.build(trace=trace is not None, progress=lambda text: bar.update(building, detail=text))
        bar.update(building, completed=1, detail="")
        running = bar.add_task(
            "run RTL and compare",
            total=demo.program.metadata["estimate"]["cycles"] * len(samples),
            detail="",
        )
        outcomes = list(
            demo.run(
                samples,
                workers=jobs,
                rerun=lambda text: shlex.join([*again, "--text", text, "--trace", "layer.fst"]),
                trace=None if trace is None else (trace, trace_from, trace_cycles),
                progress=lambda cycles: bar.update(
                    running, completed=cycles, detail=plural(cycles, "cycle")
                ),
            )
        )
        bar.update(running, completed=bar.tasks[running].total)
        layers: list[dict[str, Any]] = []
        if every_layer:
            layer_count = len(demo.quantized.layers)
            simulating = bar.add_task("every layer, simulator", total=layer_count, detail="")
            for row in demo.simulate_layers([sample.text for sample in samples]):
                layers.append(row)
                bar.advance(simulating)

    rows = [_row(demo, outcome) for outcome in outcomes]
    mean = sum(r["mean"] * r["tokens"] for r in rows) / sum(r["tokens"] for r in rows)
    worst = min(r["worst"] for r in rows)
    cycles = sum(r["cycles"] for r in rows)
    counters = [outcome.rtl.result.counters for outcome in outcomes]
    title = (
        f"{Path(model).name} layer {layer}, W8A8, sequence {sequence}, {config.title} "
        f"{config.rows}×{config.columns}, {plural(config.lanes, 'lane')}, "
        f"{size(config.onchip_bytes)} on chip"
    )
    tables: list[tuple[str, Sequence[Column], list[dict[str, Any]]]] = [
        (title, _SENTENCES, rows),
        ("where the cycles went", unit_columns(cycles), unit_rows(counters)),
    ]
    if layers:
        tables.append(("every layer on the simulator", _LAYERS, layers))
    emit_tables(
        tables,
        json_path=json_path,
        keys=["counters", "layers"],
        notes=[
            f"{plural(sum(r['tokens'] for r in rows), 'token')} against fp32: cosine mean "
            f"{mean:.5f} (at least {LEAST_MEAN}), worst {worst:.5f} (at least {LEAST_WORST})",
            f"{plural(cycles, 'cycle')} simulated; {time.perf_counter() - began:.0f} s in all",
        ],
        extra={"config": config.to_dict(), "cosine": {"mean": mean, "worst": worst}},
    )
    for outcome in outcomes:
        if not outcome.comparison.equal:
            raise ResultError(f"RTL differs from the simulator\n{outcome.comparison}")
    for name, low_mean, low_worst in [
        (f"layer {layer}", mean, worst),
        *((f"layer {r['layer']}", r["mean"], r["worst"]) for r in layers),
    ]:
        if low_mean < LEAST_MEAN or low_worst < LEAST_WORST:
            raise ResultError(
                f"{name}: cosine mean {low_mean:.5f}, worst {low_worst:.5f}: too far from fp32"
            )


def _check_texts(folder: Path, texts: Sequence[str], sequence: int) -> None:
    """Refuse a text without a token, before the long part of the work."""
    from tilewright.sw.models.errors import ModelError
    from tilewright.sw.models.tokenize import Tokenizer

    tokenizer = Tokenizer(folder)
    for number, text in enumerate(texts, start=1):
        try:
            tokenizer.encode(text, limit=sequence, truncate=True)
        except ModelError as error:
            raise UserError(f"text {number}: {error}") from error


def _row(demo: "Demo", outcome: "Outcome") -> dict[str, Any]:
    return {
        "text": outcome.sample.text,
        "tokens": outcome.sample.length,
        "cycles": outcome.rtl.result.cycles,
        "utilization": demo.program.utilization(outcome.rtl.result.cycles),
        "equal": outcome.comparison.equal,
        "mean": float(outcome.cosines.mean()),
        "worst": float(outcome.cosines.min()),
        "seconds": outcome.rtl.result.seconds,
    }


def _short(text: str) -> str:
    return text if len(text) <= 22 else text[:21] + "…"


def _cosine(value: float) -> str:
    return f"{value:.5f}"


_COSINES = (
    Column(key="mean", header="cosine", right=True, show=_cosine),
    Column(key="worst", header="worst", right=True, show=_cosine),
)
_SENTENCES = (
    Column(key="text", header="sentence", show=_short),
    Column(key="tokens", header="tokens", right=True),
    Column(key="cycles", header="cycles", right=True),
    Column(key="utilization", header="util.", right=True, show=lambda u: f"{u:.2%}"),
    Column(
        key="equal",
        header="RTL = ISS",
        show=lambda e: "every bit" if e else "NO",
        style=lambda e: "green" if e else "bold red",
    ),
    *_COSINES,
)
_LAYERS = (
    Column(key="layer", header="layer", right=True),
    Column(key="tokens", header="tokens", right=True),
    *_COSINES,
)
