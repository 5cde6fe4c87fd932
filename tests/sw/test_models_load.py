"""Checkpoints: types, shards, prefixes, old names, activations, and every refusal in one line."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from tests.sw.same import same
from tests.sw.small_bert import CONFIG, JSON, small_bert, tensors, write
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.config import BertConfig
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.functions import FUNCTIONS, gelu, gelu_tanh, quick_gelu, silu
from tilewright.sw.models.weights import read_tensors

Weights = dict[str, npt.NDArray[Any]]


def _refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        Bert.load(folder)
    assert "\n" not in str(caught.value)


def _save_bf16(folder: Path, weights: Weights) -> None:
    """A safetensors file of bfloat16, which NumPy cannot write: upper halves of fp32."""
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in weights.items():
        part = (np.ascontiguousarray(tensor, np.float32).view("<u4") >> 16).astype("<u2").tobytes()
        span = [len(data), len(data) + len(part)]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": span}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "bf16"])
def test_float_types_become_fp32(tmp_path: Path, dtype: str) -> None:
    weights = dict(tensors(3))
    if dtype == "bf16":
        write(tmp_path, weights)
        _save_bf16(tmp_path, weights)
        cut = {n: (t.view("u4") & np.uint32(0xFFFF0000)).view("f4") for n, t in weights.items()}
    else:
        write(tmp_path, {name: tensor.astype(dtype) for name, tensor in weights.items()})
        cut = {name: tensor.astype(dtype).astype("f4") for name, tensor in weights.items()}
    assert same(Bert.load(tmp_path), Bert.from_tensors(CONFIG, dict(cut)))


@pytest.mark.parametrize("prefix", ["", "bert.", "model.", "0.auto_model."])
def test_prefixes(tmp_path: Path, prefix: str) -> None:
    weights: Weights = {prefix + name: tensor for name, tensor in tensors(3).items()}
    weights[prefix + "embeddings.position_ids"] = np.arange(40)[None]
    weights[prefix + "pooler.dense.weight"] = np.zeros((48, 48), np.float32)
    weights["cls.predictions.bias"] = np.zeros(3, np.float32)
    assert same(Bert.load(write(tmp_path, weights)), small_bert(3))


def test_old_names_of_layer_norm(tmp_path: Path) -> None:
    def old(name: str) -> str:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta")

    weights = {old(name): tensor for name, tensor in tensors(3).items()}
    assert same(Bert.load(write(tmp_path, weights)), small_bert(3))


def _write_shards(folder: Path) -> dict[str, str]:
    weights = tensors(3)
    write(folder, {})
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index: dict[str, str] = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-{i + 1:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    return index


def _write_index(folder: Path, index: object) -> None:
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


def test_shards(tmp_path: Path) -> None:
    index = _write_shards(tmp_path)
    _write_index(tmp_path, index)
    assert resolve_model(tmp_path) == tmp_path
    assert same(Bert.load(tmp_path), small_bert(3))

    first = next(iter(index))
    _write_index(tmp_path, {**index, "embeddings.more": index[first]})
    _refused(tmp_path, r"00001-of-00002\.safetensors has no tensor embeddings\.more")
    _write_index(tmp_path, {**index, first: "../elsewhere.safetensors"})
    _refused(tmp_path, "must be a file of the folder")
    _write_index(tmp_path, [])
    _refused(tmp_path, "has no weight_map")
    _write_index(tmp_path, {**index, first: "missing.safetensors"})
    _refused(tmp_path, r"cannot read .*missing\.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("encoder.layer.0.output.dense.bias", None, r"no tensor encoder\.layer\.0\.output\.dense"),
        (
            "encoder.layer.2.output.dense.bias",
            np.zeros(48, "f4"),
            r"has a tensor encoder\.layer\.2",
        ),
        ("embeddings.LayerNorm.bias", np.zeros(47, "f4"), r"has shape \[47\]: must have \[48\]"),
        ("embeddings.LayerNorm.bias", np.zeros(48, "i4"), r"LayerNorm\.bias has dtype int32"),
        ("embeddings.LayerNorm.bias", np.full(48, np.inf, "f4"), "holds NaN or infinity"),
        ("embeddings.LayerNorm.bias", np.full(48, 1e300), "holds NaN or infinity"),
        ("embeddings.word_embeddings.weight", None, "no encoder: there is no tensor"),
        ("x.embeddings.word_embeddings.weight", np.zeros((100, 48), "f4"), "two models"),
    ],
)
def test_tensors_refused(tmp_path: Path, name: str, value: Any, match: str) -> None:
    weights: Weights = dict(tensors(3))
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    _refused(write(tmp_path, weights), match)


def test_types_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    write(tmp_path, tensors(3))
    path = tmp_path / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    entry = header["embeddings.LayerNorm.bias"]
    entry["dtype"], entry["shape"] = "F8_E4M3", [192]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    _refused(tmp_path, r"embeddings\.LayerNorm\.bias has dtype F8_E4M3")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the system's, and not that there is no such file."""
    write(tmp_path, tensors(3))

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"^cannot read .*model\.safetensors: Permission denied$"):
        read_tensors(tmp_path)


def test_a_panic_of_its_reader_is_a_want_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, tensors(3))

    class PanicException(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise PanicException("PyObject pointer is null")

    monkeypatch.setattr("tilewright.sw.models.weights.safe_open", panic)
    with pytest.raises(MemoryError, match=r"while reading .*model\.safetensors"):
        read_tensors(tmp_path)


def test_files_refused(tmp_path: Path) -> None:
    write(tmp_path, tensors(3))
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:4], whole[:200], whole[:-4], b"\xff" * 64, b"PK\x03\x04" + whole):
        path.write_bytes(content)
        _refused(tmp_path, r"cannot read .*model\.safetensors")
    path.unlink()
    _refused(tmp_path, r"cannot read .*model\.safetensors")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"model_type": "mpnet"},
            "model_type 'mpnet' is not supported, only bert, roberta, .*albert",
        ),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"hidden_act": "relu"}, "'relu' is not supported, only gelu, .*silu, swish, tanh"),
        ({"hidden_act": None}, "'None' is not supported"),
        ({"num_attention_heads": True}, "num_attention_heads = True"),
        ({"vocab_size": -1}, "vocab_size = -1"),
        ({"hidden_size": 10**9}, "must have|multiple"),
    ],
)
def test_configs_refused(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    _refused(write(tmp_path, tensors(3), {**JSON, **change}), match)


def test_configs_that_are_no_objects(tmp_path: Path) -> None:
    write(tmp_path, tensors(3))
    for text in ("[]", "", "{", "\x00", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        _refused(tmp_path, r"config\.json")


@pytest.mark.parametrize(
    ("name", "act", "function"),
    [
        ("gelu", "gelu", "gelu"),
        ("gelu_new", "gelu", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu", "gelu_tanh"),
        ("gelu_fast", "gelu", "gelu_tanh"),
        ("quick_gelu", "silu", "quick_gelu"),
        ("swish", "silu", "silu"),
        ("tanh", "tanh", "tanh"),
    ],
)
def test_activations(tmp_path: Path, name: str, act: str, function: str) -> None:
    """The fp32 reference computes the true function, whichever table the hardware uses."""
    model = Bert.load(write(tmp_path, tensors(3), {**JSON, "hidden_act": name}))
    assert model.config.act == act
    plain = small_bert(3)
    x = np.random.default_rng(3).standard_normal((5, 48)).astype(np.float32)
    got = model.layer(0, x)
    h = plain.layers[0].ffn1(got.x1)
    want = plain.layers[0].ffn2(FUNCTIONS[function](h)) + got.x1
    assert np.abs(got.z2 - want).max() < 1e-5


def test_functions() -> None:
    x = np.linspace(-12, 12, 48001).astype(np.float32)
    # The erf table serves the tanh form: they are nearer than the table's own error of .0018.
    assert np.abs(gelu(x) - gelu_tanh(x)).max() < 0.0005
    assert np.abs(gelu(x) - quick_gelu(x)).max() > 0.0018
    assert np.abs(quick_gelu(x) - x / (1 + np.exp(-1.702 * x.astype("f8")))).max() < 4e-6
    assert np.isfinite(gelu_tanh(np.array([-3e38, 3e38], np.float32))).all()
    assert silu(np.zeros(1, np.float32))[0] == 0
    with pytest.raises(ModelError, match="only gelu has a tanh form"):
        dataclasses.replace(CONFIG, act="silu", tanh_form=True)
    assert BertConfig.from_json(JSON) == CONFIG


def test_token_types() -> None:
    model = small_bert(3)
    ids = np.arange(6)
    types = np.array([0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(model.embed(ids), model.embed(ids, np.zeros(6, int)))
    first, second = model.embed(ids), model.embed(ids, types)
    np.testing.assert_array_equal(first[:3], second[:3])
    assert (first[3:] != second[3:]).any(axis=1).all()
    with pytest.raises(ModelError, match=r"token types 0 to 2: must be 0 to 1"):
        model.embed(ids, types * 2)
    with pytest.raises(ModelError, match="token types of shape"):
        model.embed(ids, types[:3])
