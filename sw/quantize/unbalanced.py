"""Models made worse on purpose: a factor moved between channels, which fp32 does not notice.

``python -m tilewright.sw.quantize.unbalanced`` measures what that costs a quantized model.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import click
import numpy as np
import numpy.typing as npt

from tilewright.sw.graph.model import load_model
from tilewright.sw.models.bert import Bert, Linear
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize.calibrate import calibration_ids
from tilewright.sw.quantize.evaluation import Memory, evaluation_ids
from tilewright.sw.quantize.quantize import calibrated

FACTORS = (1 / 64, 1 / 32, 1 / 4, 4, 32, 64)
PAIRS = ("qk", "vo")


def unbalance(model: Bert, factor: float, pair: str) -> Bert:
    """Multiply one channel a head by a factor and what it meets by the inverse.

    Parameters
    ----------
    model : Bert
    factor : float
        A power of two, if the model is to stay the same to the last bit.
    pair : str
        "qk": the channel of q, and that of k. "vo": the channel of v, and the row of the output
        projection that reads it.
    """
    scale = np.ones(model.config.heads * model.config.head_dim, np.float32)
    scale[:: model.config.head_dim] = factor

    def columns(linear: Linear, by: npt.NDArray[np.float32]) -> Linear:
        return Linear(w=linear.w * by, b=linear.b * by)

    if pair == "qk":
        layers = [
            replace(layer, q=columns(layer.q, scale), k=columns(layer.k, np.float32(1) / scale))
            for layer in model.layers
        ]
    else:
        layers = [
            replace(
                layer, v=columns(layer.v, scale), o=replace(layer.o, w=layer.o.w / scale[:, None])
            )
            for layer in model.layers
        ]
    return replace(model, layers=tuple(layers))


@click.command()
@click.argument("where", metavar="MODEL", default="minilm")
@click.option("--precision", default="w8a8", show_default=True)
@click.option("--texts", "count", default=10, show_default=True, help="Evaluation texts.")
@click.option(
    "--pair", "pairs", type=click.Choice(PAIRS), multiple=True, default=PAIRS, show_default=True
)
@click.option("--factor", "factors", type=float, multiple=True, default=FACTORS, show_default=True)
def main(
    where: str, precision: str, count: int, pairs: tuple[str, ...], factors: tuple[float, ...]
) -> None:
    """Mean and worst cosine against fp32, of a model as it is and of each worse one."""
    model, memory = load_model(where), Memory()
    tokenizer = Tokenizer(model.folder)
    calibration = calibration_ids(tokenizer, model.bert.config.positions)
    texts = evaluation_ids(tokenizer, count, model.bert.config.positions)
    for pair, factor in [(pairs[0], 1.0), *itertools.product(pairs, factors)]:
        bert = unbalance(model.bert, factor, pair)
        quantized = calibrated(bert, calibration)(precision)
        found = memory.evaluate(bert, quantized, texts).summary
        click.echo(f"{pair} x {factor:<8g} {found.mean:.5f} / {found.worst:.5f}")


if __name__ == "__main__":
    main()
