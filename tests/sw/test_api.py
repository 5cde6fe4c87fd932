"""`tilewright.load`, `tilewright.compile` and `Pipeline.on`: one model in all its forms."""

import numpy as np
import pytest

import tilewright as tw
from tests.sw.test_pipeline import model_folder

TEXTS = ["a dog", "the cat's mat"]


@pytest.fixture
def model(tmp_path):
    return tw.load(model_folder(tmp_path))


def test_the_machine_and_the_golden_functions_are_one_model(model):
    config = tw.preset("tiny")
    program = tw.compile(model, config, 12, effort=1)
    with tw.Device("iss", config) as device:
        ways = [
            model.on(device),
            model.on(device, sequence=16),
            model.on(device, executable=program),
        ]
        found = [way(TEXTS) for way in ways]
    for outputs in found:
        for ours, golden in zip(outputs, model(TEXTS), strict=True):
            np.testing.assert_array_equal(ours.hidden, golden.hidden)


def test_a_layer(model):
    program = tw.compile(model, tw.preset("tiny"), 12, layer=1, effort=1)
    layer = model.quantized.layers[1]
    x = np.random.default_rng(0).integers(-99, 99, program.inputs["x"].shape).astype(np.int16)
    with tw.Device("iss", program.config) as device:
        found = device.run(program, {"x": x}, length=9)["y"][:9]
    np.testing.assert_array_equal(found, tw.reference.run_layer(layer, x, 9)[:9])


def test_what_cannot_be_compiled(model):
    config = tw.preset("tiny")
    with pytest.raises(tw.InputError, match=r"^layer = 2: must be an integer from 0 to 1$"):
        tw.compile(model, config, 12, layer=2)
    with pytest.raises(tw.InputError, match=r"^batch = 2: must be 1 for a single layer$"):
        tw.compile(model, config, 12, layer=0, batch=2)
    with pytest.raises(tw.CompileError, match="sequence = 9999"):
        tw.compile(model, config, 9999)
    with pytest.raises(tw.ModelError):
        tw.compile("no-such-model", config)


def test_options_belong_to_a_backend_by_name():
    config = tw.preset("tiny")
    with tw.Device("iss", config) as device:
        with pytest.raises(tw.InputError, match=r"^check: only a backend by name takes options$"):
            tw.Device(device.transport, config, check=True)
