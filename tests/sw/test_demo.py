"""The demonstration's sentences, and every layer's program on the simulator against fp32."""

import pytest

from hw.config import preset_config
from sw.demo import LEAST_MEAN, LEAST_WORST, Demo
from sw.errors import UserError
from sw.models.fetch import resolve_model
from sw.quantize.calibrate import calibration_texts


@pytest.fixture(scope="module")
def demo():
    return Demo(resolve_model("minilm"), layer=0, config=preset_config("default"), sequence=128)


def test_sentences_are_real_different_and_unseen(demo):
    texts = demo.texts(8)
    assert len(set(texts)) == 8
    seen = calibration_texts()
    assert not any(text in used or used in text for text in texts for used in seen)
    lengths = {sample.length for sample in demo.samples(texts)}
    assert len(lengths) >= 6
    assert max(lengths) == 128


def test_every_layer_on_the_simulator(demo):
    rows = list(demo.simulate_layers(demo.texts(8)))
    assert [row["layer"] for row in rows] == list(range(6))
    for row in rows:
        assert row["mean"] >= LEAST_MEAN, row
        assert row["worst"] >= LEAST_WORST, row


def test_layer_out_of_range():
    with pytest.raises(UserError, match="layer 6: 0 to 5 is needed"):
        Demo(resolve_model("minilm"), layer=6, config=preset_config("tiny"), sequence=8)
