"""Degenerate weights: the right integers, close to fp32, or one line that names the tensor."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.sw.small_bert import CONFIG, tensors
from tests.sw.test_compile_model import expected
from tilewright.hw.config import preset_config
from tilewright.sw.compiler import compile_model
from tilewright.sw.driver import Device
from tilewright.sw.models.bert import Bert, Linear, mean_pool
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.heads import TokenClassifier
from tilewright.sw.models.tokenize import Encoded
from tilewright.sw.pipeline.pipeline import apply_head
from tilewright.sw.quantize.calibrate import calibrate
from tilewright.sw.quantize.evaluation import Ids, cosine
from tilewright.sw.quantize.gptq import gptq
from tilewright.sw.quantize.quantize import quantize

F32 = npt.NDArray[np.float32]

SMALL = dataclasses.replace(CONFIG, hidden=16, heads=2, layers=1, ffn=32)
WEIGHTS = tensors(5, SMALL)
IDS: list[Ids] = [
    np.random.default_rng(seed).integers(0, SMALL.vocab, 12).astype(np.int32) for seed in range(4)
]
PRECISIONS = ("w8a8", "w4a8,attention=16", "w16a16")


def _one(value: float) -> Callable[[F32], F32]:
    """One weight in the middle of others."""

    def change(w: F32) -> F32:
        w.reshape(-1)[w.size // 3] = value
        return w

    return change


def _first(axis: int) -> Callable[[F32], F32]:
    """Every slice along an axis like the first."""
    return lambda w: np.repeat(w.take([0], axis % w.ndim), w.shape[axis % w.ndim], axis % w.ndim)


def _silent(w: F32) -> F32:
    w[0] = 0
    return w


CHANGES: dict[str, Callable[[F32], F32]] = {
    "zero": np.zeros_like,
    "constant": lambda w: np.full_like(w, 0.25),
    "constant rows": _first(1),
    "constant columns": _first(0),
    "a row of zeros": _silent,
    "denormal": lambda w: np.full_like(w, 1e-41),
    "times 1e-10": lambda w: w * np.float32(1e-10),
    "times 1e10": lambda w: w * np.float32(1e10),
    "one of 1e6": _one(1e6),
    "one of 3e38": _one(3e38),
    "all of 3e38": lambda w: np.full_like(w, 3e38),
}
LINES = {"times 1e10", "one of 1e6", "one of 3e38", "all of 3e38"}
"""What may be refused; the rest is right."""


def _name(tensor: str) -> str:
    """A checkpoint's name as lines say it."""
    short = {
        "word_embeddings.weight": "word",
        "position_embeddings.weight": "position",
        "token_type_embeddings.weight": "type",
        "attention.self.query": "q",
        "attention.self.key": "k",
        "attention.self.value": "v",
        "attention.output.dense": "o",
        "attention.output.LayerNorm": "ln1",
        "intermediate.dense": "ffn1",
        "embeddings.LayerNorm": "embedding.ln",
        "output.dense": "ffn2",
        "output.LayerNorm": "ln2",
        "encoder.layer.": "layer ",
        "embeddings.": "embedding.",
    }
    for long, name in short.items():
        tensor = tensor.replace(long, name)
    ends = ("gamma", "beta") if ".ln" in tensor else ("w", "b")
    for long, end in zip(("weight", "bias"), ends, strict=True):
        tensor = re.sub(rf"\.{long}$", f".{end}", tensor)
    return tensor


@pytest.fixture(scope="module")
def machine():
    with Device("iss", preset_config("tiny"), check=True) as device:
        yield device


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("tensor", WEIGHTS)
def test_a_tensor(tensor: str, change: str, machine: Device) -> None:
    """Loaded, calibrated, quantized, compiled and run, and no warning on the way."""
    weights = {**WEIGHTS, tensor: CHANGES[change](WEIGHTS[tensor].copy())}
    # In turn: every tensor and every change meets each precision, with and without a machine.
    row, column = list(WEIGHTS).index(tensor), list(CHANGES).index(change)
    precision, on_machine = PRECISIONS[(row + column) % 3], (row + 2 * column) % 3 == 0
    line = ""
    try:
        model = Bert.from_tensors(SMALL, weights)
        quantized = quantize(model, calibrate(model, IDS, moments=True), precision=precision)
    except ModelError as error:
        line = str(error)
    if line:
        assert change in LINES, line
        assert line.endswith(_name(tensor))
        assert "\n" not in line
        return
    z = quantized.embedding.look_up(IDS[0])
    got = expected(quantized, z, len(z))
    if on_machine:
        executable = compile_model(quantized, machine.config, len(z), effort=1)
        run = machine.run(executable, {"z": z}, length=len(z))
        np.testing.assert_array_equal(run.values["y"], got)
    real, want = quantized.layers[-1].output.to_real(got), model.forward(IDS[0])[-1].y
    assert not want.any() or cosine(real.reshape(-1), want.reshape(-1)) > 0.9
    assert np.isfinite(mean_pool(real, np.ones(len(z), np.bool_))).all()


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("moment", ["zero", "duplicate", "one channel", "tiny", "huge"])
def test_moments(moment: str, bits: int) -> None:
    """Whatever the operands were, GPTQ's weights are near."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(50, 40))
    if moment == "zero":
        x[:] = 0
    elif moment == "duplicate":
        x[:] = x[:, :1]
    elif moment == "one channel":
        x[:, 1:] = 0
    else:
        x *= {"tiny": 1e-30, "huge": 1e18}[moment]
    w = rng.normal(size=(40, 8))
    found = gptq(w, x.T @ x / len(x), bits)
    assert cosine((found.weight * found.scale).reshape(-1), w.reshape(-1)) > 0.9
    assert np.abs(x @ (found.weight * found.scale - w)).max() <= 0.1 * np.abs(x @ w).max()


def test_constant_activations() -> None:
    """Calibrated on one token again and again."""
    model = Bert.from_tensors(SMALL, dict(WEIGHTS))
    ids = [np.full(10, 7, np.int32)] * 3
    for precision in PRECISIONS:
        quantized = quantize(model, calibrate(model, ids, moments=True), precision=precision)
        y = expected(quantized, quantized.embedding.look_up(ids[0]), 10)
        want = model.forward(ids[0])[-1].y
        assert cosine(quantized.layers[-1].output.to_real(y), want).min() > 0.95


def test_head() -> None:
    """A head beyond fp32 is refused by the name of its weights."""
    tokens = Encoded(
        ids=IDS[0],
        types=0 * IDS[0],
        second=np.zeros(12, np.bool_),
        special=np.zeros(12, np.bool_),
        spans=np.zeros((12, 2), np.int64),
        tokens=("a",) * 12,
    )
    hidden = np.ones((12, 16), np.float32)
    head = TokenClassifier(
        classifier=Linear(w=np.full((16, 2), 3e38, np.float32), b=np.zeros(2, np.float32)),
        labels=("a", "b"),
    )
    with pytest.raises(
        ModelError, match=r"the head overflows fp32; .* 3e\+38 in head\.classifier\.w"
    ):
        apply_head(head, tokens, hidden)
