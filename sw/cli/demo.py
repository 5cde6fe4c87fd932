"""One real BERT encoder layer through generated RTL, bit for bit."""

import time
from pathlib import Path

import click

from sw.cli._config import chosen_config, config_options
from sw.cli._output import Column, emit_tables, json_option, size
from sw.errors import ResultError, UserError


@click.command()
@config_options()
@click.option("--model", default="minilm", show_default=True, help="Fetched model or a folder.")
@click.option("--layer", default=0, show_default=True, help="Encoder layer.")
@click.option("--sequence", default=128, show_default=True, help="Tokens sentences are padded to.")
@click.option("--sentences", default=8, show_default=True, help="Sentences of the collection.")
@click.option("--text", "texts", multiple=True, help="A sentence of your own instead.")
@click.option("--workers", default=2, show_default=True, help="RTL simulations at a time.")
@click.option(
    "--trace",
    metavar="FILE.fst",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a waveform of the first sentence.",
)
@click.option("--trace-from", type=int, metavar="CYCLE", help="First cycle of the waveform.")
@click.option("--trace-cycles", default=0, metavar="N", help="Cycles of the waveform; 0: all.")
@json_option
def command(
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    model: str,
    layer: int,
    sequence: int,
    sentences: int,
    texts: tuple[str, ...],
    workers: int,
    trace: Path | None,
    trace_from: int | None,
    trace_cycles: int,
    json_path: str | None,
) -> None:
    """Run one encoder layer of a real BERT through generated RTL, bit for bit.

    Fetches the model once, quantizes it on real sentences, compiles the layer, generates the
    Verilog, builds its simulator, runs real sentences of different lengths, and compares everything
    RTL wrote to memory with the instruction-set simulator, and every token with fp32.

    \b
    Examples:
      tilewright demo
      tilewright demo --preset small --layer 3 --sequence 32 --sentences 2
      tilewright demo --sequence 32 --sentences 1 --trace layer.fst --trace-from 5000 \\
          --trace-cycles 2000
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from hw.registers import COUNTERS
    from sw.demo import LEAST_MEAN, LEAST_WORST, Demo, Outcome
    from sw.models.fetch import resolve_model

    config = chosen_config(preset, config_file, settings)
    if sentences < 1 or workers < 1:
        raise UserError(f"--sentences {sentences} --workers {workers}: 1 or more is needed")
    if sequence < 1:
        raise UserError(f"--sequence {sequence}: 1 or more is needed")
    began = time.perf_counter()
    outcomes: list[Outcome] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bar:

        def step(name: str, total: float | None = None) -> int:
            return bar.add_task(name, total=total, detail="")

        def end(task: int, detail: str = "") -> None:
            bar.update(task, total=1, completed=1, detail=detail)

        task = step(f"fetch {model}")
        folder = resolve_model(model)
        end(task)
        task = step("quantize and compile")
        demo = Demo(folder, layer=layer, config=config, sequence=sequence)
        end(task, f"{len(demo.program.program)} commands, {size(len(demo.program.weights))}")
        samples = demo.samples(texts or demo.texts(sentences))
        built = step("build the simulator")
        ran = bar.add_task(
            "run RTL and compare",
            total=demo.program.estimate.cycles * len(samples),
            detail="",
            start=False,
        )
        rerun = (
            f"tilewright demo --preset {config.name} --model {model} --layer {layer} "
            f"--sequence {sequence} --sentences 1 --trace layer.fst"
        )
        for outcome in demo.run(
            samples,
            workers=workers,
            rerun=rerun,
            trace=None if trace is None else (trace, trace_from, trace_cycles),
            progress=lambda cycles: (
                end(built),
                bar.start_task(ran),
                bar.update(ran, completed=cycles, detail=f"{cycles:,} cycles"),
            ),
            build=lambda text: bar.update(built, detail=text),
        ):
            outcomes.append(outcome)
        end(built)
        end(ran, f"{sum(o.rtl.result.cycles for o in outcomes):,} cycles")

    rows = [
        {
            "text": o.sample.text,
            "tokens": o.sample.length,
            "cycles": o.rtl.result.cycles,
            "utilization": o.rtl.utilization(demo.program),
            "equal": o.comparison.equal,
            "mean": float(o.cosines.mean()),
            "worst": float(o.cosines.min()),
            "seconds": o.rtl.result.seconds,
        }
        for o in outcomes
    ]
    cosines = np.concatenate([o.cosines for o in outcomes])
    mean, worst = float(cosines.mean()), float(cosines.min())
    cycles = sum(o.rtl.result.cycles for o in outcomes)
    units = [
        {
            "unit": unit,
            **{
                reason: sum(o.rtl.result.counters[unit][reason] for o in outcomes)
                for reason in reasons
            },
            "sum": sum(o.rtl.result.counters[unit][reason] for o in outcomes for reason in reasons),
        }
        for unit, reasons in COUNTERS.items()
    ]
    kinds = list(dict.fromkeys(reason for reasons in COUNTERS.values() for reason in reasons))

    def share(value: int | None) -> str:
        return "" if value is None else f"{value / cycles:.1%}"

    equal = all(o.comparison.equal for o in outcomes)
    emit_tables(
        [
            (
                f"{Path(model).name} layer {layer}, W8A8, sequence {sequence}, {config.name} "
                f"{config.rows}×{config.columns}, {config.lanes} lanes, "
                f"{size(config.onchip_bytes)} on chip",
                [
                    Column(key="text", header="sentence", show=_short),
                    Column(key="tokens", header="tokens", right=True),
                    Column(key="cycles", header="cycles", right=True),
                    Column(
                        key="utilization",
                        header="utilization",
                        right=True,
                        show=lambda u: f"{u:.2%}",
                    ),
                    Column(
                        key="equal",
                        header="RTL = simulator",
                        show=lambda e: "every bit" if e else "NO",
                        style=lambda e: "green" if e else "bold red",
                    ),
                    Column(key="mean", header="cosine mean", right=True, show=lambda c: f"{c:.5f}"),
                    Column(key="worst", header="worst", right=True, show=lambda c: f"{c:.5f}"),
                ],
                rows,
            ),
            (
                "where the cycles went",
                [
                    Column(key="unit", header="unit"),
                    *(Column(key=kind, header=kind, right=True, show=share) for kind in kinds),
                    Column(key="sum", header="sum", right=True, show=share),
                ],
                units,
            ),
        ],
        json_path=json_path,
        notes=[
            f"{len(cosines)} tokens against fp32: cosine mean {mean:.5f} (at least {LEAST_MEAN}), "
            f"worst {worst:.5f} (at least {LEAST_WORST})",
            f"{cycles:,} cycles simulated; {time.perf_counter() - began:.0f} s in all",
        ],
        extra={"config": config.to_dict(), "cosine": {"mean": mean, "worst": worst}},
    )
    if not equal:
        wrong = next(o.comparison for o in outcomes if not o.comparison.equal)
        raise ResultError(f"RTL differs from the simulator\n{wrong}")
    if mean < LEAST_MEAN or worst < LEAST_WORST:
        raise ResultError(f"cosine mean {mean:.5f}, worst {worst:.5f}: too far from fp32")


def _short(text: str, length: int = 44) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
