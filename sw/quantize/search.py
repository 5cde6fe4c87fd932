"""Search for the cheapest mixed precision that reaches an accuracy.

The losses of a model's operations add up nearly: each takes its own part off the cosine. So each
operation's part is measured by itself, the cheapest set of operations to widen is picked exactly (a
knapsack), measured, corrected until it meets the target, and what turns out not to be needed is
taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import texts
from tilewright.sw.quantize.evaluation import Ids, Memory
from tilewright.sw.quantize.jsonlines import JsonLines
from tilewright.sw.quantize.precision import (
    OPERATIONS,
    EdgeFormat,
    Mode,
    ModelPrecision,
    format_precision,
    with_width,
)
from tilewright.sw.quantize.quantize import Quantizer

Cost = Callable[[ModelPrecision], int]
"""Predicted cycles of a precision."""
Report = Callable[["Point"], None]
"""Called with every point as it is measured."""

WIDER: dict[EdgeFormat, EdgeFormat] = {
    Mode.W4A8: Mode.W8A8,
    Mode.W4A16: Mode.W8A16,
    Mode.W8A8: Mode.W8A16,
    Mode.W8A16: Mode.W16A16,
    8: 16,
}
"""The next width of an operation."""
_UNITS = 2000
"""Resolution of costs in the knapsack, relative to the cost of all steps together."""
_TRIES = 8
_NOISE = 1e-5
"""Gains below are not worth their cycles even where they seem needed."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A precision that was tried.

    Attributes
    ----------
    precision : ModelPrecision
    mean, worst : float
        Cosine of the sentence embeddings against fp32, over the texts of the search.
    cycles : int
        By the cost function.
    """

    precision: ModelPrecision
    mean: float
    worst: float
    cycles: int

    @property
    def text(self) -> str:
        """The precision's shortest text."""
        return format_precision(self.precision)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a search found.

    Attributes
    ----------
    best : Point
        The cheapest point that meets the target; the most accurate one if none does.
    met : bool
        Whether it meets the target.
    points : tuple of Point
        Everything that was measured, in that order.
    """

    best: Point
    met: bool
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One operation of one layer made wider; what that gains in the mean, and costs."""

    layer: int
    operation: str
    width: EdgeFormat
    gain: float = 0.0
    cycles: int = 0

    def apply(self, precision: ModelPrecision) -> ModelPrecision:
        i = self.layer
        wider = with_width(precision[i], self.operation, self.width)
        return (*precision[:i], wider, *precision[i + 1 :])


def search_ids(tokenizer: Tokenizer, count: int = 64, limit: int = texts.TOKENS) -> list[Ids]:
    """Token ids of calibration texts for a search, spread over all kinds; `limit`: positions.

    Raises
    ------
    ModelError
        If `count` is below 1.
    """
    if count < 1:
        raise ModelError(f"{count} texts: must be 1 or more")
    chosen = texts.texts("calibration")
    picks = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return [tokenizer(chosen[i], min(limit, texts.TOKENS)) for i in picks.tolist()]


def search(
    quantizer: Quantizer,
    sequences: Sequence[Ids],
    cost: Cost,
    *,
    target: float,
    start: ModelPrecision,
    reserve: float = 0.12,
    store: Path | None = None,
    report: Report | None = None,
) -> Result:
    """Find a mixed precision of few cycles whose mean cosine reaches a target.

    Parameters
    ----------
    quantizer : Quantizer
    sequences : sequence of [S]
        Texts to measure on (`search_ids`); not those of the evaluation.
    cost : callable
        Predicted cycles of a precision.
    target : float
        Mean cosine of the sentence embeddings, below 1.
    start : tuple of LayerPrecision
        Where to begin; widths only grow from there.
    reserve : float
        Part of the allowed loss kept free, 0 ... 1: texts the model was not calibrated on lose more
        (MiniLM about a tenth).
    store : Path, optional
        File of JSON lines that keeps every point, so that an interrupted search goes on.
    report : callable, optional

    Raises
    ------
    ModelError
        A target or reserve out of range, or a file of another search.
    """
    if not 0 < target < 1:
        raise ModelError(f"search: target = {target}: must be between 0 and 1")
    if not 0 <= reserve < 1:
        raise ModelError(f"search: reserve = {reserve}: must be 0 or more and below 1")
    allowed = (1 - target) * (1 - reserve)
    measure = _Points(quantizer, sequences, cost, store, report)
    here = measure(start)
    while 1 - here.mean > allowed:
        steps = _steps(here.precision)
        if not steps:
            break
        top = measure(_apply(here.precision, steps))
        if 1 - top.mean > allowed:
            # Even all operations a step wider are not enough: go on from there.
            here = top
            continue
        _reach(here, _gains(steps, here, top, measure), allowed, measure)
        break
    points = measure.points
    good = [point for point in points if 1 - point.mean <= allowed]
    best = min(good, key=lambda p: (p.cycles, -p.mean)) if good else max(points, key=_mean)
    return Result(best=best, met=bool(good), points=tuple(points))


def _mean(point: Point) -> float:
    return point.mean


def _apply(precision: ModelPrecision, steps: Sequence[_Step]) -> ModelPrecision:
    for step in steps:
        precision = step.apply(precision)
    return precision


def _steps(precision: ModelPrecision) -> list[_Step]:
    """Every single step from a precision."""
    return [
        _Step(layer=layer, operation=operation, width=WIDER[getattr(widths, operation)])
        for layer, widths in enumerate(precision)
        for operation in OPERATIONS
        if getattr(widths, operation) in WIDER
    ]


def _gains(steps: list[_Step], here: Point, top: Point, measure: _Points) -> list[_Step]:
    """The steps with their gains: what is lost where all others are made and this one is not.

    The loss is a squared error. Measured so, it stands beside the small errors of wider operations;
    seen from the narrow side, chance products with their large ones would hide it. The gains are
    scaled to sum to what all steps gain together.
    """
    found = []
    for step in steps:
        held = measure(_apply(here.precision, [other for other in steps if other is not step]))
        found.append(replace(step, gain=top.mean - held.mean, cycles=top.cycles - held.cycles))
    total = sum(max(step.gain, 0.0) for step in found)
    scale = (top.mean - here.mean) / total if total > 0 else 1.0
    return [replace(step, gain=scale * step.gain) for step in found]


def _reach(here: Point, steps: list[_Step], allowed: float, measure: _Points) -> None:
    """Measure cheap sets of steps until one meets the loss allowed; all together do."""
    wanted = 1 - here.mean - allowed
    for _ in range(_TRIES):
        chosen = _cheapest(steps, wanted)
        if chosen is None:
            chosen = steps
        point = measure(_apply(here.precision, chosen))
        short = 1 - point.mean - allowed
        if short <= 0:
            _prune(here, chosen, point, allowed, measure)
            return
        # Gains do not add up exactly: ask for what is missing, and a little more.
        wanted += short + 0.01 * wanted


def _prune(
    here: Point, chosen: list[_Step], found: Point, allowed: float, measure: _Points
) -> None:
    """Take back the steps that are not needed, the ones that gain least for their cycles first."""
    for step in sorted(chosen, key=lambda s: s.gain / max(s.cycles, 1)):
        spare = allowed - (1 - found.mean)
        if step.cycles > 0 and step.gain < 2 * spare + _NOISE:
            fewer = [s for s in chosen if s is not step]
            point = measure(_apply(here.precision, fewer))
            if 1 - point.mean <= allowed:
                chosen, found = fewer, point


def _cheapest(steps: list[_Step], wanted: float) -> list[_Step] | None:
    """The steps of least cost whose gains sum to `wanted`, costs rounded up to 1 / 2000."""
    unit = max(1, sum(max(step.cycles, 0) for step in steps) // _UNITS)
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for i, step in enumerate(steps):
        price = -(-max(step.cycles, 0) // unit)
        for cost, (gain, picked) in sorted(best.items(), reverse=True):
            have = best.get(cost + price)
            if have is None or gain + step.gain > have[0]:
                best[cost + price] = gain + step.gain, (*picked, i)
    enough = [cost for cost, (gain, _) in best.items() if gain >= wanted]
    return [steps[i] for i in best[min(enough)][1]] if enough else None


class _Points:
    """Measures precisions, once each, and keeps them in a file."""

    def __init__(
        self,
        quantizer: Quantizer,
        sequences: Sequence[Ids],
        cost: Cost,
        store: Path | None,
        report: Report | None,
    ) -> None:
        self.points: list[Point] = []
        self._quantizer = quantizer
        self._sequences = sequences
        self._cost = cost
        self._report = report
        self._measured: dict[str, Point] = {}
        self._memory = Memory()
        self._lines: JsonLines | None = None
        self._kept: dict[str, tuple[float, float]] = {}
        if store is not None:
            header = {"search": quantizer.fingerprint(sequences)}
            self._lines = JsonLines(store, header)
            try:
                for r in self._lines.records:
                    self._kept[str(r["precision"])] = float(r["mean"]), float(r["worst"])
            except (KeyError, TypeError, ValueError) as error:
                raise ModelError(f"{store}: a line is no point: {error}") from error

    def __call__(self, precision: ModelPrecision) -> Point:
        text = format_precision(precision)
        if text in self._measured:
            return self._measured[text]
        if text in self._kept:
            mean, worst = self._kept[text]
        else:
            quantized = self._quantizer(precision)
            summary = self._memory.evaluate(
                self._quantizer.model, quantized, self._sequences
            ).summary
            mean, worst = summary.mean, summary.worst
            if self._lines is not None:
                self._lines.append({"precision": text, "mean": mean, "worst": worst})
        point = Point(precision=precision, mean=mean, worst=worst, cycles=self._cost(precision))
        self._measured[text] = point
        self.points.append(point)
        if self._report is not None:
            self._report(point)
        return point
