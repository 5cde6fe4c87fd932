"""A task on real text: is a sentence positive or negative?

A linear probe is trained on fp32 embeddings of rated sentences (`tilewright.sw.models.text`) and
tested on others, with fp32 embeddings and with those of an engine: what quantization costs a user.

``python -m tilewright.sw.pipeline.sentiment [MODEL]`` measures the accuracy of both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import click
import numpy as np
import numpy.typing as npt

from tilewright.sw.errors import ResultError, UserError
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.functions import F32
from tilewright.sw.models.heads import Pooling
from tilewright.sw.models.text import Sentence, draw, sentences
from tilewright.sw.pipeline.pipeline import Pipeline, apply_head
from tilewright.sw.quantize.calibrate import calibration_texts

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

SEED = 2
"""Of the draw of sentences."""
CLEAR = 1.0
"""Least magnitude of a rating in [-4, 4] that counts as positive or negative."""
POINT = 0.01
"""Accuracy the engine may lose."""

_BATCH = 8
_PENALTIES = tuple(10.0**power for power in range(-3, 4))


@dataclass(frozen=True, kw_only=True)
class Probe:
    """``positive = x @ w + b > 0`` for embeddings x [..., hidden]: w [hidden]."""

    w: F64
    b: float

    @classmethod
    def fit(cls, x: F32, positive: Bool) -> Probe:
        """Ridge regression to ±1, in closed form; the penalty by leave-one-out on the same data.

        Parameters
        ----------
        x : [n, hidden]
        positive : [n]

        Raises
        ------
        ModelError
            If all sentences are of one kind.
        """
        if positive.all() or not positive.any():
            raise ModelError("a probe needs both positive and negative sentences")
        real = x.astype(np.float64)
        target = np.where(positive, 1.0, -1.0)
        middle, mean = real.mean(axis=0), float(target.mean())
        u, s, vt = np.linalg.svd(real - middle, full_matrices=False)
        projected = u.T @ (target - mean)
        best: tuple[float, F64] | None = None
        for penalty in _PENALTIES:
            shrink = s**2 / (s**2 + penalty)
            rest = target - mean - u @ (shrink * projected)
            # What a sentence is predicted without itself follows from its leverage.
            leverage = (u**2) @ shrink + 1 / len(real)
            error = float(np.mean((rest / np.maximum(1 - leverage, 1e-9)) ** 2))
            if best is None or error < best[0]:
                best = error, vt.T @ (s / (s**2 + penalty) * projected)
        assert best is not None  # there are penalties
        return cls(w=best[1], b=mean - float(middle @ best[1]))

    def __call__(self, x: F32) -> Bool:
        """Embeddings [n, hidden] -> whether each is positive [n]."""
        out: Bool = x.astype(np.float64) @ self.w + self.b > 0
        return out


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a measurement gave.

    Attributes
    ----------
    train, test : int
        Sentences.
    majority : float
        Share of the commoner kind in the test: what guessing reaches.
    fp32, engine : float
        Accuracy on the test, 0 … 1.
    changed : int
        Test sentences the engine decides otherwise than fp32.
    """

    train: int
    test: int
    majority: float
    fp32: float
    engine: float
    changed: int


def rated(train: int, test: int) -> tuple[list[Sentence], list[Sentence]]:
    """Two sets of clearly rated sentences that share none, and none with the calibration.

    Raises
    ------
    ModelError
        If there are not so many.
    """
    seen = "\n".join(calibration_texts())
    pool = [s for s in sentences() if abs(s.rating) >= CLEAR and s.text not in seen]
    first, second = draw([test, train], seed=SEED, pool=pool)
    return second, first


def measure(
    pipeline: Pipeline,
    train: Sequence[Sentence],
    test: Sequence[Sentence],
    *,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Train on fp32 embeddings of one set, test fp32's and the engine's of the other.

    Parameters
    ----------
    pipeline : Pipeline
        With a pooling head.
    train, test : sequence of Sentence
        Longer ones than the pipeline's limit are cut.
    progress : callable, optional
        Told how many sentences are done, of ``len(train) + 2 * len(test)``.

    Raises
    ------
    ModelError
        If the model has another head, or a set is empty or all of one kind.
    """
    if not isinstance(pipeline.head, Pooling):
        raise ModelError("the sentiment task needs a model of sentence embeddings")
    if not train or not test:
        raise ModelError("the sentiment task needs sentences to train and to test on")
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done)

    probe = Probe.fit(_fp32(pipeline, train, step), _positive(train))
    truth = _positive(test)
    real, integer = probe(_fp32(pipeline, test, step)), probe(_engine(pipeline, test, step))
    share = float(truth.mean())
    return Outcome(
        train=len(train),
        test=len(test),
        majority=max(share, 1 - share),
        fp32=float((real == truth).mean()),
        engine=float((integer == truth).mean()),
        changed=int((real != integer).sum()),
    )


def _positive(chosen: Iterable[Sentence]) -> Bool:
    return np.array([sentence.rating > 0 for sentence in chosen])


def _fp32(pipeline: Pipeline, chosen: Sequence[Sentence], step: Callable[[int], None]) -> F32:
    found = []
    for one in pipeline.tokens([sentence.text for sentence in chosen], truncate=True):
        hidden = pipeline.model.forward(one.ids)[-1].y
        found.append(apply_head(pipeline.head, one, hidden))
        step(1)
    return np.array(found, dtype=np.float32)


def _engine(pipeline: Pipeline, chosen: Sequence[Sentence], step: Callable[[int], None]) -> F32:
    found = []
    for first in range(0, len(chosen), _BATCH):
        texts = [sentence.text for sentence in chosen[first : first + _BATCH]]
        found += [output.result for output in pipeline(texts, truncate=True)]
        step(len(texts))
    return np.array(found, dtype=np.float32)


@click.command()
@click.argument("model", default="minilm")
@click.option("--precision", default="w8a8", show_default=True, help="Of the quantized model.")
@click.option("--train", default=2000, show_default=True, help="Sentences to train on.")
@click.option("--test", default=1000, show_default=True, help="Sentences to test on.")
def main(model: str, precision: str, train: int, test: int) -> None:
    """Accuracy of positive against negative: fp32 and the golden functions of a precision.

    MODEL is a known name, a model folder or an ONNX file.
    """
    from rich.console import Console
    from rich.progress import Progress

    try:
        chosen = rated(train, test)
        console = Console(stderr=True)
        with Progress(console=console, transient=True) as bar:
            bar.add_task("calibrating and quantizing", total=None)
            pipeline = Pipeline.load(model, precision=precision)
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("embedding sentences", total=train + 2 * test)
            found = measure(
                pipeline, *chosen, progress=lambda done: bar.update(task, completed=done)
            )
        click.echo(f"{found.test} test sentences, probe trained on {found.train}")
        click.echo(f"guessing the commoner kind: {found.majority:.1%}")
        click.echo(f"fp32: {found.fp32:.1%}   {precision}: {found.engine:.1%}")
        click.echo(f"decided differently: {found.changed}")
        if found.engine < found.fp32 - POINT:
            lost = 100 * (found.fp32 - found.engine)
            raise ResultError(f"{precision} loses {lost:.1f} points of accuracy, 1 is allowed")
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except ResultError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
