"""Quantization to W8A8: encodings, formats, and how near the golden layers come to fp32."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sw.small_bert import CONFIG, small_bert, tensors, write
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import encode
from tilewright.sw.quantize.calibrate import LayerRange, calibrate
from tilewright.sw.quantize.evaluation import Ids, evaluate, evaluation_ids, layer_cosines
from tilewright.sw.quantize.file import load, save
from tilewright.sw.quantize.fingerprint import fingerprint
from tilewright.sw.quantize.formats import EdgeFormat, QLinear, QModel
from tilewright.sw.quantize.precision import Mode, uniform
from tilewright.sw.quantize.quantize import Recipe, calibrated, quantize, quantize_folder
from tilewright.sw.quantize.reference import linear, run_embedding, run_layer, trace_layer
from tilewright.sw.quantize.weights import nearest


@pytest.fixture(scope="module")
def minilm() -> tuple[Bert, QModel, list[Ids]]:
    folder = resolve_model("minilm")
    model, quantized = quantize_folder(folder)
    return model, quantized, evaluation_ids(Tokenizer(folder), 10)


def _small(seed: int, act: str = "gelu") -> tuple[Bert, QModel]:
    model = small_bert(seed, dataclasses.replace(CONFIG, act=act))
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, CONFIG.vocab, n) for n in rng.integers(4, 40, 24)]
    return model, quantize(model, calibrate(model, ids, moments=True))


def _sequences(seed: int, lengths: list[int]) -> list[Ids]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, CONFIG.vocab, n).astype(np.int32) for n in lengths]


def _linears(model: QModel) -> list[tuple[str, QLinear]]:
    names = ("q", "k", "v", "o", "ffn1", "ffn2")
    return [(n, getattr(layer, n)) for layer in model.layers for n in names]


def _check_formats(model: QModel) -> None:
    for name, op in _linears(model):
        assert op.weight.dtype == np.int8
        assert 120 <= np.abs(op.weight.astype(int)).max() <= 127
        assert op.row_scaled
        assert op.groups is None
        assert op.mult.dtype == np.uint16
        assert op.mult.min() >= 1 << 15
        assert op.shift.min() >= 9
        assert op.shift.max() <= 61
        assert op.bias.dtype == np.int32
        assert np.abs(op.bias.astype(np.int64)).max() < 1 << 29
        assert op.out is (EdgeFormat.S8 if name in "qkv" else EdgeFormat.S16)
        assert (op.residual is not None) == (name in ("o", "ffn2"))
        assert (op.smooth is not None) == (op.act is not None) == (name == "ffn1")
        if op.residual is not None:
            assert op.residual.mult.max() >= 1 << 15
            assert op.residual.shift >= 1
    for layer, after in zip(model.layers, model.layers[1:], strict=False):
        assert layer.output is after.input
    for state in [layer.input for layer in model.layers] + [model.layers[-1].output]:
        assert math.frexp(state.scale)[0] == 0.5
        assert abs(np.log(state.smooth).mean()) < 1e-9
    assert (model.layers[-1].output.smooth == 1).all()


def test_minilm_formats(minilm: tuple[Bert, QModel, list[Ids]]) -> None:
    _check_formats(minilm[1])


def test_minilm_layers(minilm: tuple[Bert, QModel, list[Ids]]) -> None:
    """Each layer, fed with fp32 states: the contract's bounds on every valid token."""
    model, quantized, sequences = minilm
    for i, c in enumerate(layer_cosines(model, quantized, sequences)):
        assert c.mean >= 0.9995, f"layer {i}: mean {c.mean}"
        assert c.worst >= 0.985, f"layer {i}: worst {c.worst}"


def test_minilm_embeddings(minilm: tuple[Bert, QModel, list[Ids]]) -> None:
    model, quantized, sequences = minilm
    found = evaluate(model, quantized, sequences)
    assert found.summary.mean >= 0.998
    assert found.summary.worst >= 0.991
    assert found.spearman >= 0.95  # of 45 pairs only


@pytest.mark.parametrize("act", ["gelu", "silu"])
def test_small_model(act: str) -> None:
    model, quantized = _small(11, act)
    _check_formats(quantized)
    for i, c in enumerate(layer_cosines(model, quantized, _sequences(12, [5, 40, 23]))):
        assert c.mean >= 0.9985, f"layer {i}: mean {c.mean}"
        assert c.worst >= 0.99, f"layer {i}: worst {c.worst}"


def test_quantization_is_deterministic() -> None:
    one, two = _small(13)[1], _small(13)[1]
    for (name, a), (_, b) in zip(_linears(one), _linears(two), strict=True):
        assert np.array_equal(a.weight, b.weight), name
        assert np.array_equal(a.mult, b.mult), name


def test_padding_rows_do_not_matter() -> None:
    """Valid rows are the same integers whatever the padding holds, and without padding."""
    _, quantized = _small(14)
    layer = quantized.layers[0]
    rng = np.random.default_rng(14)
    x = rng.integers(-20000, 20000, (20, 48)).astype(np.int16)
    other = x.copy()
    other[9:] = rng.integers(-32768, 32768, (11, 48))
    y = run_layer(layer, x, 9)
    assert np.array_equal(y[:9], run_layer(layer, other, 9)[:9])
    assert np.array_equal(y[:9], run_layer(layer, x[:9]))
    assert not trace_layer(layer, x, 0).ctx.any()


def test_embedding_matches_fp32() -> None:
    model, quantized = _small(15)
    ids = np.random.default_rng(15).integers(0, CONFIG.vocab, 30)
    first = quantized.layers[0].input
    got = first.to_real(run_embedding(quantized.embedding, ids))
    want = model.embed(ids)
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()
    again = first.to_int(got)
    assert np.abs(again.astype(int) - run_embedding(quantized.embedding, ids)).max() <= 1


def test_layer_refuses() -> None:
    layer = _small(16)[1].layers[0]
    with pytest.raises(ModelError, match="48"):
        run_layer(layer, np.zeros((3, 47), np.int16))
    with pytest.raises(ModelError, match="length 4"):
        run_layer(layer, np.zeros((3, 48), np.int16), 4)
    with pytest.raises(ModelError, match="residual"):
        linear(np.zeros((3, 48), np.int16), layer.o)


@pytest.mark.parametrize("text", ["w8a8", "w4a8,0.qkv=w16a16,attention=16,1.ffn2=w8a16"])
def test_file(tmp_path: Path, text: str) -> None:
    """What is read back is the same in every integer, and shares what was shared."""
    model = small_bert(20)
    rng = np.random.default_rng(20)
    ids = [rng.integers(0, CONFIG.vocab, 30) for _ in range(4)]
    quantized = quantize(model, calibrate(model, ids, moments=True), precision=text)
    save(quantized, tmp_path / "model.npz")
    again = load(tmp_path / "model.npz")
    assert fingerprint(again) == fingerprint(quantized)
    assert again.precision == quantized.precision
    assert again.layers[0].output is again.layers[1].input
    x = rng.integers(-9000, 9000, (7, 48)).astype(np.int16)
    np.testing.assert_array_equal(run_layer(again.layers[1], x), run_layer(quantized.layers[1], x))


def test_file_refuses(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with pytest.raises(ModelError, match="cannot read"):
        load(path)
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ModelError, match="cannot read"):
        load(path)
    for text, message in (
        ('{"version": 0}', "version 0: must be 1"),
        ('{"version": 1, "objects": [], "root": 3}', "holds no quantized model"),
        ('{"version": 1, "objects": [["Path", {}]], "root": 3}', "cannot read .*Path"),
    ):
        np.savez(path, json=np.frombuffer(text.encode(), np.uint8))
        with pytest.raises(ModelError, match=message):
            load(path)
    with pytest.raises(ModelError, match="cannot write"):
        save(_small(19)[1], tmp_path / "no" / "model.npz")


def test_a_folder_is_quantized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(20)
    ids = [rng.integers(0, CONFIG.vocab, 30)]
    calls: list[Bert] = []

    def counted(model: Bert, _: object, **options: Any) -> tuple[LayerRange, ...]:
        calls.append(model)
        return calibrate(model, ids, **options)

    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tilewright.sw.quantize.quantize.Tokenizer", lambda folder: None)
    monkeypatch.setattr("tilewright.sw.quantize.quantize.calibration_ids", lambda *_: [])
    monkeypatch.setattr("tilewright.sw.quantize.quantize.calibrate", counted)
    folder = write(tmp_path / "model", dict(tensors(20)))
    found = [fingerprint(quantize_folder(folder)[1]) for _ in range(2)]
    assert found[0] == found[1]
    assert len(calls) == 1
    # Another precision, recipe or model is another entry.
    quantize_folder(folder, precision="w8a16")
    quantize_folder(folder, Recipe(w8="nearest"))
    write(tmp_path / "model", dict(tensors(21)))
    quantize_folder(folder)
    assert len(calls) == 4
    # What is damaged on disk is quantized again.
    for file in (tmp_path / "cache").rglob("model.npz"):
        file.write_bytes(file.read_bytes()[:1000])
    again = quantize_folder(folder)[1]
    assert len(calls) == 5
    assert fingerprint(quantize_folder(folder)[1]) == fingerprint(again)


def test_progress() -> None:
    """Calibration counts texts, quantization layers."""
    told: list[tuple[str, int, int]] = []
    made = calibrated(small_bert(20), _sequences(20, [5, 9, 7]), tell=lambda *one: told.append(one))
    made("w8a8", progress=lambda done, total: told.append(("quantize", done, total)))
    assert told == [
        *(("calibrate", n, 3) for n in (1, 2, 3)),
        *(("quantize", n, 2) for n in (0, 1)),
    ]


def test_multiplier() -> None:
    rng = np.random.default_rng(17)
    factor = np.concatenate(
        [2.0 ** rng.uniform(-40, 6, 500), 2.0 ** -np.arange(30), [65535.6 / 2**20]]
    )
    mult, shift = encode.multiplier(factor, 9, "test")
    assert mult.min() >= 1 << 15
    error = np.ldexp(mult.astype(float), -shift.astype(int)) / factor - 1
    assert np.abs(error).max() <= 2.0**-16
    with pytest.raises(ModelError, match=r"test: weights too large .* must be below 128"):
        encode.multiplier(np.array([128.0]), 9, "test")
    with pytest.raises(ModelError, match=r"test: factor 8\.88e-16: must be at least"):
        encode.multiplier(np.array([2.0**-50]), 9, "test")
    with pytest.raises(ModelError, match="positive"):
        encode.multiplier(np.array([0.0]), 9, "test")


@pytest.mark.parametrize("top", [1.0, 65535.0, 65535.4, 65535.6 / 2, 0.3, 1.999999, 2.0**-20])
def test_shared_factor_is_the_largest_shift(top: float) -> None:
    found = encode.shared_factor(np.array([top, top / 3, 0.0]), 0, "test")
    assert found.mult.max() == math.floor(top * 2**found.shift + 0.5)
    assert math.floor(top * 2 ** (found.shift + 1) + 0.5) > 65535


def test_shared_factor_refuses() -> None:
    with pytest.raises(ModelError, match="must be at most 65535"):
        encode.shared_factor(np.array([65536.0]), 0, "test")
    with pytest.raises(ModelError, match=r"must be at most 32767\.5"):
        encode.shared_factor(np.array([40000.0]), 1, "test")


def test_power_of_two() -> None:
    assert encode.power_of_two(32767.0) == 1.0
    assert encode.power_of_two(32767.5) == 2.0
    assert encode.power_of_two(0.1) == 2.0**-18
    assert encode.power_of_two(0.0) == 1.0


def test_silent_channels() -> None:
    """Dead inputs and dead columns neither divide by zero nor leave a width."""
    smooth = encode.smoothing(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.7)
    assert np.isfinite(smooth).all()
    assert (smooth > 0).all()
    found = nearest(np.array([[0.0, 2.0], [0.0, -4.0]]), 8)
    assert found.weight.tolist() == [[0, 64], [0, -127]]
    assert (found.scale > 0).all()


def test_refusals() -> None:
    with pytest.raises(ModelError, match="bias"):
        encode.bias(np.array([1.0]), np.array([2.0**-22]), "test")
    with pytest.raises(ModelError, match="eps_q"):
        encode.layer_norm(
            np.ones(4), np.zeros(4), np.ones(4), eps=1e-5, z_scale=1e-9, fraction=10, name="test"
        )
    with pytest.raises(ModelError, match=r"alpha = 1\.5"):
        Recipe(alpha=1.5)
    with pytest.raises(ModelError, match=r"margin8 = 0\.9"):
        Recipe(margin8=0.9)
    with pytest.raises(ModelError, match="w8 = 'up': must be gptq or nearest"):
        Recipe(w8="up")
    model = small_bert(18)
    with pytest.raises(ModelError, match="at least one"):
        calibrate(model, [])
    with pytest.raises(ModelError, match="1 calibrated layers"):
        quantize(model, calibrate(model, [np.arange(5)])[:1])
    ranges = calibrate(model, [np.arange(5)])
    with pytest.raises(ModelError, match=r"layer 0\.q: GPTQ needs ranges with moments"):
        quantize(model, ranges)
    with pytest.raises(ModelError, match="a precision of 1 layers, the model has 2"):
        quantize(model, ranges, precision=uniform(Mode.W8A8, 1))
