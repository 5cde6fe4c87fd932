"""A factor between a channel of q and k, or of v and the output projection, costs no accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sw.small_bert import CONFIG, small_bert
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize.balance import balancing_steps
from tilewright.sw.quantize.calibrate import calibrate, calibration_ids
from tilewright.sw.quantize.evaluation import Cosines, Ids, evaluate, evaluation_ids
from tilewright.sw.quantize.fingerprint import fingerprint
from tilewright.sw.quantize.quantize import Quantizer
from tilewright.sw.quantize.recipe import Recipe
from tilewright.sw.quantize.unbalanced import FACTORS, PAIRS, unbalance

LOSS = 2e-4
NEAREST = Recipe(w8="nearest", w4="nearest")


def _ids(seed: int, count: int, length: int) -> list[Ids]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, CONFIG.vocab, length).astype(np.int32) for _ in range(count)]


def _measure(model: Bert, precision: str, recipe: Recipe) -> Cosines:
    ranges = calibrate(model, _ids(1, 12, 24), moments=recipe != NEAREST)
    return evaluate(model, Quantizer(model, ranges, recipe)(precision), _ids(3, 6, 24)).summary


@pytest.fixture(scope="module")
def small() -> Bert:
    return small_bert(3)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("factor", FACTORS)
def test_fp32_stays_the_same(small: Bert, factor: float, pair: str) -> None:
    ids = _ids(2, 1, 20)[0]
    got, want = unbalance(small, factor, pair).forward(ids), small.forward(ids)
    assert np.array_equal(got[-1].y, want[-1].y)


@pytest.mark.parametrize(
    ("precision", "factors", "recipe"),
    [
        ("w8a8", (*FACTORS, 1 / 7, 2.0, 3.0, 50.0), NEAREST),
        ("w8a16,attention=8", FACTORS, NEAREST),
        ("w4a8", (1 / 64, 4.0, 32.0), NEAREST),
        ("w4a8", (32.0,), Recipe()),
    ],
)
def test_small_model(
    small: Bert, precision: str, factors: tuple[float, ...], recipe: Recipe
) -> None:
    want = _measure(small, precision, recipe)
    for factor in factors:
        got = _measure(unbalance(small, factor, "qk"), precision, recipe)
        assert got.mean > want.mean - LOSS, factor
        assert got.worst > want.worst - 5 * LOSS, factor


@pytest.mark.parametrize("seed", [3, 11, 20])
def test_balanced_models_keep_their_bits(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_bert(seed)
    ranges = calibrate(model, _ids(seed, 8, 24), moments=True)
    got = fingerprint(Quantizer(model, ranges)("w8a8"))
    monkeypatch.setattr(
        "tilewright.sw.quantize.layer.balancing_steps", lambda q, k: np.zeros(len(q), np.int32)
    )
    assert got == fingerprint(Quantizer(model, ranges)("w8a8"))
    # Without, a factor of 32 is dear.
    worse = unbalance(model, 32, "qk")
    lost, kept = (_measure(one, "w8a8", NEAREST).mean for one in (worse, model))
    assert lost < kept - 5 * LOSS


def test_steps() -> None:
    rng = np.random.default_rng(4)
    q, k = np.exp(rng.normal(0, 0.3, (2, 64)))
    assert not balancing_steps(q, k).any()
    assert not balancing_steps(1000 * q, k).any()
    q[::8] *= 32
    k[::8] /= 32
    steps = balancing_steps(q, k)
    assert set(steps[::8].tolist()) <= {4, 5, 6}
    assert not steps.reshape(8, 8)[:, 1:].any()
    # A silent channel says nothing; its partner does not take the scale from the others.
    q[3] = 0
    assert balancing_steps(q, k)[3] < -5
    assert not balancing_steps(np.zeros(64), k).any()
    assert not balancing_steps(q, np.zeros(64)).any()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 1 / 64, 2.0, 32.0])
def test_minilm(factor: float, minilm: dict[float, Cosines]) -> None:
    """The table of docs/numerics.md, with weights to nearest."""
    assert minilm[factor].mean > minilm[1.0].mean - LOSS
    assert minilm[factor].worst > minilm[1.0].worst - 5 * LOSS


@pytest.fixture(scope="module")
def minilm() -> dict[float, Cosines]:
    folder = resolve_model("minilm")
    tokenizer, model = Tokenizer(folder), Bert.load(folder)
    texts = calibration_ids(tokenizer, model.config.positions)[::4]
    ids, found = evaluation_ids(tokenizer, 10), {}
    for factor in (1.0, 1 / 64, 2.0, 32.0):
        worse = unbalance(model, factor, "qk")
        quantizer = Quantizer(worse, calibrate(worse, texts), Recipe(w8="nearest"))
        found[factor] = evaluate(worse, quantizer("w8a8"), ids).summary
    return found
