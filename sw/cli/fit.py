"""Tell which machines fit which boards, how fast, and what they do with a model there."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._options import Derived
from tilewright.sw.cli._output import Column, emit, json_option, progress
from tilewright.sw.errors import ResultError, UserError

if TYPE_CHECKING:
    from tilewright.hw.config import Config
    from tilewright.sw.models.config import BertConfig
    from tilewright.sw.quantize.precision import ModelPrecision
    from tilewright.synth.boards import Board, Need


@click.command()
@click.argument("model", required=False)
@click.option(
    "--board",
    "boards",
    metavar="LIST",
    cls=Derived,
    show_default="all that are known",
    help="Boards, with commas between.",
)
@click.option("--seq", "sequence", default=128, metavar="N", help="Rows of a sequence.")
@click.option("--precision", default="w8a8", metavar="TEXT", help="As of `tilewright run`.")
@config_options(default="each of them")
@json_option
def command(
    model: str | None,
    boards: str | None,
    sequence: int,
    precision: str,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Tell which machines fit which boards, before anything is built.

    For each board and machine what the machine takes of the device, the resource that limits it,
    and the clock, all estimated from its units as Yosys maps them; those that other machines had
    are in the cache, so that only new ones take minutes. With MODEL (as of `tilewright run`) also
    sequences a second of its encoder: the cycle model at that clock, with the board's memory.

    \b
    Examples:
      tilewright fit
      tilewright fit --board ulx3s-85f,arty-a7-100t --preset small
      tilewright fit minilm --board kv260 --preset default --set lanes=4 --seq 64
    """
    from tilewright.hw.config import PRESETS
    from tilewright.synth.boards import BOARDS, board
    from tilewright.synth.tools import SynthesisError, ToolMissingError

    try:
        chosen = (
            [board(name.strip()) for name in boards.split(",")] if boards else [*BOARDS.values()]
        )
    except ValueError as error:
        raise UserError(f"--board: {error}") from error
    if preset is None and config_file is None:
        configs = [config.with_settings(settings) for config in PRESETS.values()]
    else:
        configs = [chosen_config(preset, config_file, settings)]
    work = None if model is None else _work(model, sequence, precision)
    pairs = [(one, config) for one in chosen for config in configs]
    with progress("text", "bar", "count", "time") as bar:
        task = bar.add_task("", total=len(pairs))
        rows = []
        try:
            for one, config in pairs:

                def tell(text: str, name: str = f"{config.title} on {one.name}") -> None:
                    bar.update(task, description=f"{name}: {text}")

                rows.append(_row(one, config, work, tell))
                bar.advance(task)
        except ToolMissingError as error:
            raise UserError(str(error)) from error
        except SynthesisError as error:
            raise ResultError(str(error)) from error
    notes = [f"{one.name}: {one.note}" for one in chosen if one.note]
    notes += sorted({f"{row['board']}: {row['reason']}" for row in rows if row["reason"]})
    emit(
        title="what fits" + (f"; {work.title}" if work else ""),
        columns=[*_COLUMNS, *(_RATE if work else ())],
        rows=rows,
        json_path=json_path,
        notes=notes,
        extra={"boards": [asdict(one) for one in chosen]},
    )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a machine is to do: the encoder of a model, sequences of one length."""

    title: str
    shape: "BertConfig"
    sequence: int
    precision: "ModelPrecision"

    @property
    def megabytes(self) -> float:
        """Of the weights, a byte each."""
        shape = self.shape
        return shape.layers * shape.hidden * (4 * shape.hidden + 2 * shape.ffn) / 1e6

    def cycles(self, config: "Config", latency: int, beats: float) -> int:
        """Cycles of a sequence with a memory; CompileError where a layer does not fit."""
        from tilewright.sim.cycles import Memory
        from tilewright.sw.compiler.cost import model_cycles
        from tilewright.sw.quantize.precision import format_precision
        from tilewright.sw.sources import source_hash

        shape, memory = self.shape, Memory(latency=latency, bandwidth=beats)
        sizes = shape.hidden, shape.heads, shape.ffn, self.sequence
        sources = source_hash(("hw", "sim/cycles", "sw/compiler", "sw/program"))
        found = _kept(
            [config.to_dict(), *sizes, format_precision(self.precision), latency, beats, sources],
            lambda folder: {"cycles": model_cycles(config, *sizes, self.precision, memory)},
        )
        return int(found["cycles"])


def _work(model: str, sequence: int, precision: str) -> _Work:
    from tilewright.sw.graph.model import load_model
    from tilewright.sw.quantize.precision import parse_precision

    shape = load_model(model).bert.config
    if not 1 <= sequence <= shape.positions:
        raise UserError(f"--seq {sequence}: expected 1 to {shape.positions}, the model's positions")
    return _Work(
        title=f"{Path(model).name}, {precision}, sequence {sequence}",
        shape=shape,
        sequence=sequence,
        precision=parse_precision(precision, shape.layers),
    )


def _row(
    board: "Board", config: "Config", work: _Work | None, tell: Callable[[str], None]
) -> dict[str, Any]:
    """A machine on a board; where it cannot fit, nothing is synthesised."""
    from tilewright.synth.boards import NAMES, at_least

    need, exact, clock = at_least(config), False, None
    if board.limit(need)[1] <= 1:
        need, period = _estimated(board, config, tell)
        exact, clock = True, 1000 / period
    limit, share = board.limit(need)
    row: dict[str, Any] = {
        "board": board.name,
        "machine": config.title,
        "fits": share <= 1,
        "limit": f"{NAMES[limit]} {'' if exact else '≥ '}{share:.0%}",
        "exact": exact,
        "need": asdict(need),
        **{
            name: getattr(need, name) / getattr(board.holds, name) if exact else None
            for name in NAMES
        },
        "clock": clock,
        "dram": round(board.dram.bandwidth),
        "rate": None,
        "bound": None,
        "reason": None,
    }
    if work is not None and row["fits"] and clock is not None:
        tell("cycles")
        row |= _rate(board, config, work, clock)
    return row


def _rate(board: "Board", config: "Config", work: _Work, clock: float) -> dict[str, Any]:
    """Sequences a second, and what bounds them."""
    from tilewright.sw.compiler.errors import CompileError

    if work.megabytes > board.dram.size:
        reason = (
            f"its memory of {board.dram.size} MB is less than the {work.megabytes:.1f} of weights"
        )
        return {"reason": reason}
    beats = board.dram.beats(config.axi_bytes, clock)
    try:
        cycles = work.cycles(config, board.dram.latency, beats)
        ideal = cycles if beats == 1 else work.cycles(config, board.dram.latency, 1.0)
    except CompileError as error:
        return {"reason": f"{config.title}: {error}"}
    return {
        "cycles": cycles,
        "beats": beats,
        "rate": clock * 1e6 / cycles,
        "bound": "memory" if cycles > _MEMORY_BOUND * ideal else "core",
    }


_MEMORY_BOUND = 1.05
"""Cycles with the board's memory over those with a beat a cycle: from here on it is the bound."""


def _kept(parts: Sequence[Any], make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, from the cache where it is there; `parts` say all that it depends on."""
    from tilewright.sw.cli.synth import kept_unit

    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]

    def build(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _RESULT).write_text(json.dumps(make(folder)), encoding="utf-8")

    found: dict[str, Any] = json.loads((kept_unit(key, build) / _RESULT).read_text("utf-8"))
    return found


_RESULT = "estimate.json"


def _estimated(
    board: "Board", config: "Config", tell: Callable[[str], None]
) -> "tuple[Need, float]":
    """Resources, and the period in nanoseconds."""
    from tilewright.sw.sources import source_hash
    from tilewright.synth.boards import Need
    from tilewright.synth.tools import need

    need("pyosys", "pyosys")
    machine = config.to_dict(), board.target, board.speed
    found = _kept(
        [*machine, source_hash(("hw", "synth")), version("pyosys")],
        lambda folder: _estimate(board, config, folder, tell),
    )
    return Need(**found["need"]), found["period"]


def _estimate(
    board: "Board", config: "Config", folder: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    from tilewright.sw.cli.synth import kept_unit
    from tilewright.synth.boards import needed
    from tilewright.synth.delays import delays
    from tilewright.synth.targets import target
    from tilewright.synth.timing import estimate
    from tilewright.synth.yosys import synthesize

    synthesis = synthesize(
        config,
        target(board.target),
        folder,
        keep=kept_unit,
        netlist=False,
        tell=lambda unit, number, count: tell(f"Yosys, {unit}, {number + 1} of {count}"),
    )
    timing = estimate(
        synthesis, delays(board.target, board.speed), tell=lambda unit: tell(f"timing, {unit}")
    )
    return {"need": asdict(needed(synthesis)), "period": timing.period}


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


_COLUMNS: Sequence[Column] = (
    Column(key="board", header="board"),
    Column(key="machine", header="machine"),
    Column(
        key="fits",
        header="fits",
        show=lambda fits: "yes" if fits else "no",
        style=lambda fits: "green" if fits else "red",
    ),
    Column(key="limit", header="limit"),
    Column(key="lut", header="LUT", right=True, show=_share),
    Column(key="ff", header="FF", right=True, show=_share),
    Column(key="dsp", header="DSP", right=True, show=_share),
    Column(key="bram", header="BRAM", right=True, show=_share),
    Column(
        key="clock",
        header="MHz",
        right=True,
        show=lambda value: "–" if value is None else f"{value:.0f}",
    ),
    Column(key="dram", header="MB/s", right=True),
)

_RATE: Sequence[Column] = (
    Column(
        key="rate",
        header="sequences/s",
        right=True,
        show=lambda value: "–" if value is None else f"{value:.2f}",
    ),
    Column(key="bound", header="bound"),
)
