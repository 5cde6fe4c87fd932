"""Families of encoders beside `transformers` itself; what other tests compare with is its output.

Needs torch and transformers, which `make test-export` installs; skipped without.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sw.families import CASES, errors, recorded, run_transformers
from tests.sw.same import same
from tests.sw.small_tokenizer import write_byte_bpe, write_unigram
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.tokenize import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", CASES)
def test_recorded_outputs(name: str, tmp_path: Path) -> None:
    """What is checked in is what `transformers` says now."""
    now, then = run_transformers(name, tmp_path), recorded()[name]
    assert max(errors(now, tmp_path)) < 1e-5
    assert now.shapes == then.shapes
    assert np.abs(now.hidden - then.hidden).max() < 1e-5
    if now.logits is not None and then.logits is not None:
        assert np.abs(now.logits - then.logits).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Roberta", {"type_vocab_size": 1}),
        ("Camembert", {"pad_token_id": 5}),
        ("DistilBert", {"sinusoidal_pos_embds": True}),
        ("Electra", {"embedding_size": 32, "hidden_act": "silu"}),
        ("Ernie", {"use_task_id": True}),
        ("Albert", {"embedding_size": 32, "num_hidden_groups": 3, "num_hidden_layers": 6}),
    ],
)
def test_wider_models(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    """The weights `transformers` draws, all positions of the longest text."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    if kind == "DistilBert":
        sizes = {"dim": 64, "hidden_dim": 128, "n_heads": 4, "n_layers": 3}
    torch.manual_seed(7)
    architecture = getattr(transformers, f"{kind}Model")
    config = architecture.config_class(
        **{"vocab_size": 200, "max_position_embeddings": 70, "num_hidden_layers": 3}
        | {"initializer_range": 0.1}
        | sizes
        | more
    )
    model = architecture(config).eval()
    model.save_pretrained(tmp_path)
    found = Bert.load(tmp_path)
    ids = np.random.default_rng(7).integers(6, 200, found.config.positions)
    with torch.no_grad():
        want = model(torch.tensor(ids)[None]).last_hidden_state[0].numpy()
    assert np.abs(found.forward(ids)[-1].y - want).max() < 1e-5


@pytest.mark.parametrize("write", [write_byte_bpe, write_unigram])
def test_tokenizers(write: Any, tmp_path: Path) -> None:
    folder = write(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ours = Tokenizer(folder)
    for pair in (("the cat",), ("who sits?", "The cats  sit")):
        want = theirs(*pair, padding=False)
        assert ours.encode(*pair, limit=64).ids.tolist() == want["input_ids"]


@pytest.mark.parametrize("shards", [False, True])
def test_conversion_of_pickled_weights(shards: bool, tmp_path: Path) -> None:
    """The command of the message gives the same model."""
    folder = recorded()["roberta ForTokenClassification"].write(tmp_path / "it's a model")
    want = Bert.load(folder)
    model = transformers.RobertaForTokenClassification.from_pretrained(folder)
    weights = model.state_dict()
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"": names} if not shards else {"-1-of-2": names[::2], "-2-of-2": names[1::2]}
    for end, part in parts.items():
        torch.save({name: weights[name] for name in part}, folder / f"pytorch_model{end}.bin")
    with pytest.raises(ModelError) as caught:
        resolve_model(folder)
    command = str(caught.value).partition("convert it with: ")[2]
    command = command.replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True)
    assert same(Bert.load(resolve_model(folder)), want)
