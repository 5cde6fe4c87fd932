"""Graphs as torch.onnx and ONNX Runtime write them: the same encoder, bit for bit.

Needs torch, transformers, onnxscript and onnxruntime, which `make test-export` installs; skipped
without.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.sw.families import FAMILIES, HEADS, recorded
from tests.sw.onnx_graphs import DIALECTS, EncoderWriter
from tests.sw.same import same
from tests.sw.small_bert import CONFIG, JSON, small_bert, tensors
from tilewright.sw.graph.encoder import encoder_of, find_encoder, head_of
from tilewright.sw.graph.model import load_model
from tilewright.sw.graph.onnx.load import import_onnx
from tilewright.sw.graph.run import run_fp32
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.heads import Pooling
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.pipeline.engine import ReferenceEngine
from tilewright.sw.quantize.calibrate import calibrate
from tilewright.sw.quantize.quantize import quantize

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")

# The exporters warn of what they will drop in later versions.
pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ["input_ids", "attention_mask", "token_type_ids"]
EXPORTERS = {"torchscript": False, "dynamo": True}


class _Named(torch.nn.Module):  # type: ignore[name-defined]
    """A model with inputs by position, as the exporters want them."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Any) -> Any:
        found = self.model(**dict(zip(self.names, inputs, strict=True)))
        if isinstance(found, torch.Tensor):
            return found
        return tuple(value for value in found.to_tuple() if value is not None)


def _export(
    model: Any,
    path: Path,
    exporter: str,
    opset: int | None = None,
    names: list[str] = NAMES,
) -> Path:
    ids = torch.full((2, 8), 7)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    options: dict[str, Any] = {"opset_version": opset} if opset else {}
    if EXPORTERS[exporter]:
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        options["dynamic_shapes"] = ((free,) * len(names),)
    else:
        options["dynamic_axes"] = {name: {0: "batch", 1: "sequence"} for name in names}
    torch.onnx.export(
        _Named(model, names).eval(),
        tuple(inputs[name] for name in names),
        str(path),
        input_names=names,
        dynamo=EXPORTERS[exporter],
        verbose=False,
        **options,
    )
    return path


def _fuse(path: Path, heads: int, hidden: int) -> Path:
    fused = path.with_name("fused.onnx")
    model = optimizer.optimize_model(
        str(path), model_type="bert", num_heads=heads, hidden_size=hidden, opt_level=0
    )
    model.save_model_to_file(str(fused))
    return fused


def _small(attention: str, kind: str = "BertModel", **config: Any) -> Any:
    settings = transformers.BertConfig(**{**JSON, **config}, attn_implementation=attention)
    torch.manual_seed(3)
    model = getattr(transformers, kind)(settings).eval()
    weights = {name: torch.tensor(tensor) for name, tensor in tensors(3).items()}
    body = model if kind == "BertModel" else model.bert
    body.load_state_dict(weights, strict=False)
    return model


def _feeds() -> dict[str, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(41)
    return {
        "input_ids": rng.integers(0, CONFIG.vocab, (3, 11)),
        "attention_mask": (np.arange(11) < np.array([[11], [6], [2]])).astype(np.int64),
        "token_type_ids": rng.integers(0, 2, (3, 11)),
    }


def _agrees(path: Path) -> None:
    """The imported graph computes what ONNX Runtime computes from the file."""
    graph, feeds = import_onnx(path), _feeds()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})
    for got, one in zip(run_fp32(graph, feeds).values(), want, strict=True):
        valid = feeds["attention_mask"] == 1
        both = (got[valid], one[valid]) if got.shape[:2] == valid.shape else (got, one)
        assert np.abs(both[0] - both[1]).max() < 1e-4


@pytest.mark.parametrize("attention", [pytest.param("eager", marks=pytest.mark.slow), "sdpa"])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_small_models(tmp_path: Path, exporter: str, attention: str) -> None:
    path = _export(_small(attention), tmp_path / "model.onnx", exporter)
    for one in (path, _fuse(path, CONFIG.heads, CONFIG.hidden)):
        assert same(encoder_of(import_onnx(one)), small_bert(3))
        _agrees(one)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 14, 17, 18, 20, 23])
def test_operator_sets(tmp_path: Path, opset: int) -> None:
    """LayerNorm, GELU and attention become operators of their own one after the other."""
    exporter = "dynamo" if opset >= 18 else "torchscript"
    attention = "eager" if opset < 14 else "sdpa"
    path = _export(_small(attention), tmp_path / "model.onnx", exporter, opset)
    assert same(encoder_of(import_onnx(path)), small_bert(3))
    _agrees(path)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("act", ["gelu_new", "gelu_fast", "quick_gelu", "silu", "tanh"])
def test_activations(tmp_path: Path, act: str, exporter: str) -> None:
    opset = 18 if exporter == "dynamo" else 14
    path = _export(_small("eager", hidden_act=act), tmp_path / "model.onnx", exporter, opset)
    want = Bert.from_tensors(
        _config(act), dict(tensors(3)), "quick_gelu" if act == "quick_gelu" else ""
    )
    assert same(encoder_of(import_onnx(path)), want)
    _agrees(path)


def _config(act: str) -> Any:
    from tilewright.sw.models.config import BertConfig

    return BertConfig.from_json({**JSON, "hidden_act": act})


@pytest.mark.slow
@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
def test_graphs_onnxruntime_saves(tmp_path: Path, level: str) -> None:
    path = _export(_small("sdpa"), tmp_path / "model.onnx", "torchscript", 14)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
    )
    saved = tmp_path / "saved.onnx"
    options.optimized_model_filepath = str(saved)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert same(encoder_of(import_onnx(saved)), small_bert(3))
    _agrees(saved)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("BertForSequenceClassification", "SequenceClassifier"),
        ("BertForTokenClassification", "TokenClassifier"),
        ("BertForQuestionAnswering", "SpanFinder"),
    ],
)
def test_heads(tmp_path: Path, kind: str, head: str, exporter: str) -> None:
    """The same head by both ways in, and torch's own logits."""
    model = _small("sdpa", kind, num_labels=2)
    path = _export(model, tmp_path / "model.onnx", exporter)
    graph = import_onnx(path)
    found = head_of(graph, find_encoder(graph))
    assert type(found).__name__ == head
    model.save_pretrained(tmp_path / "folder")
    real = load_model(tmp_path / "folder")
    assert same(find_encoder(graph).model, real.bert)
    assert same(found, real.head)
    _agrees(path)
    feeds = _feeds()
    length = int(feeds["attention_mask"][1].sum())
    ids, types = (feeds[name][1, :length] for name in ("input_ids", "token_type_ids"))
    y = real.bert.forward(ids, types=types)[-1].y
    result: Any = real.head(y, length)
    with torch.no_grad():
        want = model(torch.tensor(ids)[None], token_type_ids=torch.tensor(types)[None])
    if kind == "BertForQuestionAnswering":
        assert np.abs(result.start_logits - want.start_logits[0].numpy()).max() < 1e-4
        assert np.abs(result.end_logits - want.end_logits[0].numpy()).max() < 1e-4
    else:
        assert np.abs(result.logits - want.logits[0].numpy()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families(tmp_path: Path, family: str, head: str, exporter: str) -> None:
    """Without token types, as such models are exported: every weight of the safetensors."""
    if exporter == "dynamo" and head != HEADS[0]:
        pytest.skip("half a minute each; heads are the same operators in all families")
    folder = recorded()[f"{family} {head}"].write(tmp_path)
    model = getattr(transformers, f"AutoModel{head}").from_pretrained(folder)
    path = _export(model, folder / "model.onnx", exporter, names=NAMES[:2])
    found, real = load_model(path), load_model(folder)
    assert same(found.bert, real.bert)
    assert same(found.head, real.head)
    if exporter == "torchscript":
        fused = load_model(_fuse(path, real.bert.config.heads, real.bert.config.hidden))
        assert same(fused.bert, real.bert)
    feeds = {"input_ids": np.arange(5, 33).reshape(2, 14), "attention_mask": np.ones((2, 14), int)}
    feeds["input_ids"][1, 9:] = model.config.pad_token_id
    feeds["attention_mask"][1, 9:] = 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, feeds)
    for got, one in zip(run_fp32(import_onnx(path), feeds).values(), want, strict=True):
        both = (got, one) if one.shape[:2] != (2, 14) else (got[:, :9], one[:, :9])
        assert np.abs(both[0] - both[1]).max() < 1e-5


def _mean(hidden: Any, mask: Any) -> Any:
    wide = mask.unsqueeze(-1).expand(hidden.size()).float()
    return torch.sum(hidden * wide, 1) / torch.clamp(wide.sum(1), min=1e-9)


POOLINGS = {
    "mean": _mean,
    "mean of length 1": lambda y, mask: torch.nn.functional.normalize(_mean(y, mask), p=2, dim=1),
    "shares": lambda y, m: torch.bmm((m / m.sum(1, keepdim=True)).unsqueeze(1), y).squeeze(1),
    "chosen": lambda y, m: y.masked_fill(m[..., None] == 0, 0.0).sum(1) / m.sum(1)[:, None],
    "first": lambda y, mask: y[:, 0],
    "first of length 1": lambda y, mask: torch.nn.functional.normalize(y[:, 0]),
}


class _Pooled(torch.nn.Module):  # type: ignore[name-defined]
    def __init__(self, model: Any, pool: Any) -> None:
        super().__init__()
        self.model, self.pool = model, pool

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return self.pool(found.last_hidden_state, attention_mask)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("pool", POOLINGS)
def test_pooling(tmp_path: Path, pool: str, exporter: str) -> None:
    model = _Pooled(_small("sdpa"), POOLINGS[pool])
    path = _export(model, tmp_path / "model.onnx", exporter, names=NAMES[:2])
    found = load_model(path)
    assert same(found.bert, small_bert(3))
    mode = "cls" if "first" in pool else "mean"
    assert found.head == Pooling(mode=mode, unit="length 1" in pool)
    _agrees(path)


@pytest.mark.parametrize("name", DIALECTS)
def test_graphs_written_by_hand_run(tmp_path: Path, name: str) -> None:
    """What the other tests import is what ONNX Runtime means by it, fused operators included."""
    proto = EncoderWriter(small_bert(3), DIALECTS[name]).write()
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    graph = import_onnx(path)
    feeds = dict(zip(("ids", "mask", "types"), _feeds().values(), strict=True))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})
    (got,) = run_fp32(graph, feeds).values()
    valid = feeds["mask"] == 1 if name != "no mask" else np.ones((3, 11), bool)
    assert np.abs(got - want)[valid].max() < 1e-4


@functools.cache
def _minilm() -> Bert:
    return Bert.load(resolve_model("minilm"))


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_minilm(tmp_path: Path, exporter: str) -> None:
    """Exported and fused, the real model gives the output bits of its safetensors."""
    folder, real = resolve_model("minilm"), _minilm()
    model = transformers.BertModel.from_pretrained(str(folder))
    path = _export(model, tmp_path / "model.onnx", exporter)
    for one in (path, _fuse(path, real.config.heads, real.config.hidden)):
        found = encoder_of(import_onnx(one))
        assert same(found, real)
    ids = [Tokenizer(folder)(text, 64) for text in ("A cat sits.", "Share prices fell today.")]
    outputs = []
    for bert in (real, found):
        quantized = quantize(bert, calibrate(bert, ids, moments=True))
        z = [quantized.embedding.look_up(one) for one in ids]
        outputs.append(ReferenceEngine(quantized).encode(z, [len(one) for one in ids]))
    for a, b in zip(*outputs, strict=True):
        np.testing.assert_array_equal(a, b)
