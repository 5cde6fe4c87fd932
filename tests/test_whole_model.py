"""Whole real models in RTL: equal to the simulator and the golden composition in every bit."""

import numpy as np
import pytest

from tests.mismatch import assert_same
from tests.test_layer import compare
from tilewright.hw.config import Config, preset_config
from tilewright.sw.compiler import compile_model
from tilewright.sw.driver.device import Device
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.text import passages
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.quantize import quantize_folder
from tilewright.sw.quantize.reference import norm, run_layer
from tilewright.sw.quantize.seeded import make_input, make_layer

FOLDER = "minilm"


def real_ids(count: int) -> np.ndarray:
    """The first tokens of a long passage."""
    text = passages(1, 200, seed=11)[0]
    return Tokenizer(resolve_model(FOLDER))(text, 512)[:count]


def check_model(model: QModel, config: Config, ids: np.ndarray, sequence: int) -> float:
    """Run a text on simulator and RTL, compare all they wrote; utilisation."""
    executable = compile_model(model, config, sequence)
    z = np.zeros((sequence, model.layers[0].hidden), dtype=np.int16)
    z[: len(ids)] = model.embedding.look_up(ids)
    runs = {}
    for backend in ("iss", "verilator"):
        with Device(backend, config) as device:
            runs[backend] = device.run(executable, {"z": z}, length=len(ids))
    length = {"length": len(ids)}
    assert_same(executable, runs["iss"].regions, runs["verilator"].regions, length)
    x = norm(z, model.embedding.ln)
    for layer in model.layers:
        x = run_layer(layer, x, len(ids))
    np.testing.assert_array_equal(runs["verilator"].values["y"][: len(ids)], x[: len(ids)])
    result = runs["verilator"].result
    for unit, reasons in result.counters.items():
        assert sum(reasons.values()) == result.cycles, unit
    print(f"{result.cycles} cycles, {executable.utilization(result.cycles):.4f}")
    return executable.utilization(result.cycles)


@pytest.mark.slow
@pytest.mark.parametrize("sequence", [32, 128])
@pytest.mark.parametrize("precision", ["w8a8", "w8a16"])
def test_minilm(precision, sequence):
    _, model = quantize_folder(resolve_model(FOLDER), precision=precision)
    used = check_model(model, preset_config("default"), real_ids(sequence), sequence)
    assert used >= (0.8 if precision == "w8a8" else 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["w8a16", "w16a16", "w4a8", "w4a16"])
def test_minilm_layer_of_each_precision(precision):
    _, model = quantize_folder(resolve_model(FOLDER), precision=precision)
    layer = model.layers[0]
    z = model.embedding.look_up(real_ids(32))
    compare(layer, preset_config("default"), norm(z, model.embedding.ln), len(z))


@pytest.mark.slow
def test_bert_base_shape():
    layer = make_layer(7, 768, 12, 64, 3072)
    row = compare(layer, preset_config("default"), make_input(8, 128, 768), 128, effort=5)
    assert row["utilization"] >= 0.8
