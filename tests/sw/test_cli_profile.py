"""`tilewright profile`: tables, JSON, files, and what it refuses."""

import json
from pathlib import Path

import pytest

import tilewright.sw.cli
from tests.sw.test_pipeline import model_folder
from tilewright.sw.profiling import picture

SHAPE = ("--shape", "hidden=24,heads=2,ffn=40", "--preset", "tiny", "--seq", "13")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def call(*arguments: object) -> int:
    return tilewright.sw.cli.call(["profile", *(str(argument) for argument in arguments)])


def test_a_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out, found = tmp_path / "out", tmp_path / "out.json"
    assert call(*SHAPE, "-o", out, "--json", found) == 0
    text = capsys.readouterr().out
    for word in ("qkv", "layernorm2", "roofline", "where the cycles went", "100.00%", "trace.json"):
        assert word in text
    document = json.loads(found.read_text())
    cycles = document["cycles"]
    *rows, total = document["rows"]
    assert total["operation"] == "all"
    assert total["cycles"] == cycles == sum(row["array"] + row["lost"] for row in rows)
    for unit in document["units"]:
        assert sum(unit["reasons"].values()) == cycles
    assert document["config"]["name"] == "tiny"
    assert sorted(path.name for path in out.iterdir()) == [
        "timeline.png",
        "timeline.svg",
        "trace.json",
    ]
    assert json.loads((out / "trace.json").read_text())["otherData"]["cycles"] == cycles


def test_layers_of_a_model(folder: Path, tmp_path: Path) -> None:
    found = tmp_path / "out.json"
    options = ("--preset", "tiny", "--seq", 8, "--json", found)
    assert call(folder, "--layer", 1, *options) == 0
    one = json.loads(found.read_text())
    assert one["rows"][0]["operation"] == "qkv"
    assert call(folder, "--layer", "whole", "--by", "layer", *options) == 0
    whole = json.loads(found.read_text())
    names = [row["operation"] for row in whole["rows"]]
    assert names[0] == "embedding"
    assert {"layer 0 / qkv", "layer 1 / layernorm2", "all"} <= set(names)
    assert whole["cycles"] > one["cycles"]


def test_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(picture, "available", lambda: False)
    assert call(*SHAPE, "-o", tmp_path) == 0
    assert "needs matplotlib" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a MODEL or --shape"),
        (("minilm", *SHAPE), "a MODEL or --shape"),
        ((*SHAPE, "--layer", "1"), "--shape is one layer"),
        ((*SHAPE, "--backend", "paper"), "--backend paper: must be one of iss, "),
        ((*SHAPE, "--backend", "iss"), "does not record"),
        ((*SHAPE, "--by", "colour"), "must be one of operation, layer, head"),
        ((*SHAPE, "--precision", "w3a8"), "w3a8"),
        ((*SHAPE, "--seq", "0"), "sequence = 0"),
        ((*SHAPE, "--from", "-1"), "must be 0 or more"),
        (("--shape", "hidden=8"), "heads is missing"),
        (("--shape", "hidden=5000,heads=2,ffn=40"), "hidden = 5000: must be at most 4096"),
        (("--shape", "hidden=80000,heads=8,ffn=80000"), "hidden = 80000: must be at most 4096"),
        (("no-such-model",), "no-such-model"),
        (("[/x]",), "'[/x]' is neither a known model"),
        ((*SHAPE, "-o", "/dev/null/here"), "/dev/null/here"),
        ((*SHAPE, "-o", "{tmp}", "--from", "100000000"), "the run has cycles 0 to"),
    ],
)
def test_refused(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tilewright: ")
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layer", ["2", "-1", "x"])
def test_layers_refused(folder: Path, layer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "--layer", layer, "--preset", "tiny", "--seq", 8) == 2
    assert f"layer {layer}" in capsys.readouterr().err


@pytest.mark.parametrize("layer", ["0", "whole"])
def test_positions_a_model_does_not_have(
    folder: Path, layer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, "--layer", layer, "--preset", "tiny", "--seq", 41) == 2
    assert "sequence = 41: must be 1 to 40" in capsys.readouterr().err
