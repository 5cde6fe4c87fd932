"""`tilewright run`, `compile`, `inspect`, `compare`: a whole way, and what they refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tilewright.sw.cli
from tests.sw.small_bert import JSON, tensors, write
from tests.sw.small_tokenizer import VOCABULARY, write_tokenizer
from tests.sw.test_pipeline import model_folder, pooled_onnx
from tilewright.hw.config import preset_config
from tilewright.sw.cli._model import read_texts
from tilewright.sw.cli.compare import _file
from tilewright.sw.compiler.operations.matmul import compile_matmul
from tilewright.sw.errors import UserError
from tilewright.sw.models.config import BertConfig
from tilewright.sw.pipeline.pipeline import Pipeline
from tilewright.sw.program.file import save
from tilewright.sw.quantize.recipe import Recipe

TEXTS = ("the cat sits on the mat", "a dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def call(*arguments: object) -> int:
    return tilewright.sw.cli.call([str(argument) for argument in arguments])


def texts() -> list[str]:
    return [word for text in TEXTS for word in ("--text", text)]


def test_output_chooses_one_of_an_onnx_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Path(shutil.copytree(folder, tmp_path / "home"))
    path, hidden, first, _ = pooled_onnx(Pipeline.load(folder).model, home)
    out = tmp_path / "out.json"
    run = ("run", path, *texts(), "--backend", "reference", "--json", out)
    assert call(*run, "--output", first) == 0
    found = [row["embedding"] for row in json.loads(out.read_text())["rows"]]
    want = [one.hidden[0] for one in Pipeline.load(folder)(TEXTS)]
    np.testing.assert_array_equal(np.array(found, np.float32), want)
    compiled = ("compile", path, "-o", tmp_path / "p", "--seq", 16, "--preset", "tiny")
    profiled = ("profile", path, "--seq", 16, "--backend", "iss")
    for arguments in (run, compiled, ("compare", path), ("search", path), profiled):
        capsys.readouterr()
        assert call(*arguments) == 2
        assert f"can be loaded: output {hidden} or {first}\n" in capsys.readouterr().err
    assert call(*compiled, "--output", first) == 0
    assert call("run", folder, *texts(), "--output", "x") == 2
    assert "only an ONNX file has outputs" in capsys.readouterr().err


def test_run_gives_the_pipeline_s_embeddings(folder: Path, tmp_path: Path) -> None:
    expected = [output.result for output in Pipeline.load(folder)(TEXTS)]
    found = {}
    for backend in ("reference", "iss", "verilator"):
        out = tmp_path / f"{backend}.json"
        assert (
            call("run", folder, *texts(), "--backend", backend, "--preset", "tiny", "--json", out)
            == 0
        )
        found[backend] = json.loads(out.read_text())["rows"]
        np.testing.assert_array_equal(
            np.array([row["embedding"] for row in found[backend]], dtype=np.float32), expected
        )
    assert all(row["cycles"] > 1000 for row in found["verilator"])
    assert all(row["rows"] == 16 and row["cycles"] is None for row in found["iss"])
    document = json.loads(out.read_text())
    assert len(document["similarity"]) == len(TEXTS)
    assert document["left_out"] is None


def test_run_says_which_head_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kind = tmp_path / "out.json", "BertForMaskedLM"
    folder = model_folder(tmp_path / "model", architectures=[kind])
    assert call("run", folder, "--text", "a", "--backend", "reference", "--json", out) == 0
    assert json.loads(out.read_text())["left_out"] == kind
    line = f"{kind}: its head is not run, these are sentence embeddings"
    assert line in capsys.readouterr().out


def test_a_file_of_texts_has_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(b"\xef\xbb\xbfa dog\r\nthe cat\x0bsits \xe2\x80\xa8\r\n\n\n")
    assert read_texts([], file) == ["a dog", "the cat\x0bsits"]
    file.write_text("a dog\n\na cat\n")
    with pytest.raises(UserError, match="line 2 is empty"):
        read_texts([], file)
    file.write_text("\n")
    with pytest.raises(UserError, match="no text"):
        read_texts([], file)


def test_a_program_file_is_compiled_inspected_and_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "small.tilewright", tmp_path / "out.json"
    options = ("--preset", "tiny", "--precision", "w8a8,1.ffn2=w8a16")
    assert call("compile", folder, "-o", file, "--seq", 12, *options) == 0
    assert call("inspect", file, "--json", out) == 0
    figures = json.loads(out.read_text())
    assert figures["metadata"]["precision"] == "w8a8,1.ffn2=w8a16"
    assert figures["buffers"]["z"]["shape"] == [12, 48]
    capsys.readouterr()
    assert call("inspect", file, "--listing", "--first", 1, "--count", 2) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]
    assert call("inspect", file, "--listing", "--json", "-") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["metadata"]["sequence"] == 12
    assert captured.err.lstrip().startswith("0 ")
    assert call("run", folder, *texts(), "--preset", "tiny", "--program", file, "--json", out) == 0
    rows = json.loads(out.read_text())["rows"]
    expected = [o.result for o in Pipeline.load(folder, precision="w8a8,1.ffn2=w8a16")(TEXTS)]
    np.testing.assert_array_equal(
        np.array([row["embedding"] for row in rows], dtype=np.float32), expected
    )
    wanted = ("run", folder, "--text", "a", "--preset", "tiny", "--program", file)
    for option in ("--precision w8a16", "--seq 16", "--backend reference"):
        assert call(*wanted, *option.split()) == 2
        assert option.split()[0] in capsys.readouterr().err
    assert call("run", folder, "--text", "a", "--preset", "small", "--program", file) == 2
    assert "'small' differs: the program has rows 4, not 8" in capsys.readouterr().err


def test_a_program_of_a_batch_takes_texts_until_they_end(folder: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "batch.tilewright", tmp_path / "out.json"
    assert call("compile", folder, "-o", file, "--seq", 12, "--batch", 3, "--preset", "tiny") == 0
    many = ("the cat sits on the mat", "a dog", "a cat runs", "it is good", "the dog")
    words = [word for text in many for word in ("--text", text)]
    assert call("run", folder, *words, "--preset", "tiny", "--program", file, "--json", out) == 0
    rows = json.loads(out.read_text())["rows"]
    expected = [output.result for output in Pipeline.load(folder)(many)]
    np.testing.assert_array_equal(
        np.array([row["embedding"] for row in rows], dtype=np.float32), expected
    )


def test_a_program_of_another_model_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.tilewright"
    assert call("compile", folder, "-o", file, "--seq", 8, "--preset", "tiny") == 0
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    weights = load_file(other / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][5, 3] += 0.25
    save_file(weights, other / "model.safetensors")
    for wrong in (other, model_folder(tmp_path / "act", hidden_act="gelu_new")):
        assert call("run", wrong, "--text", "a", "--preset", "tiny", "--program", file) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert "of another model" in line
    single = compile_matmul(preset_config("tiny"), 3, 5, 4, a="s8", b="s8")
    assert (
        call("run", folder, "--text", "a", "--preset", "tiny", "--program", save(single, file)) == 2
    )
    assert "does not say which model" in capsys.readouterr().err


def test_heads(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    classifier = model_folder(tmp_path / "c", architectures=["BertForSequenceClassification"])
    assert call("run", classifier, "--text", "a dog", "--preset", "tiny", "--json", out) == 0
    assert set(json.loads(out.read_text())["rows"][0]["scores"]) == {"x", "y", "z"}
    finder = model_folder(tmp_path / "q", architectures=["BertForQuestionAnswering"])
    question = ("--text", "who runs", "--context", "the dog runs in the house")
    assert call("run", finder, *question, "--preset", "tiny", "--json", out) == 0
    assert "answer" in json.loads(out.read_text())["rows"][0]


def test_compare(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    wanted = ("--precision", "w8a8", "--precision", "w16a16", "--texts", 3, "--layers", "--edges")
    assert call("compare", folder, *wanted, "--seq", 16, "--json", out) == 0
    document = json.loads(out.read_text())
    narrow, wide = document["rows"]
    assert wide["mean"] > narrow["mean"] > 0.9
    # Of the whole program: such a small one waits for more than the array.
    assert wide["relative"] == wide["cycles"] / narrow["cycles"] > 2
    assert len(document["layers"]) == 4
    assert all(key.isidentifier() for key in document)
    assert {"none", "qkv", "ffn2"} < {row["operation"] for row in document["operations"]}


def test_compare_keeps_the_results_of_each_rounding(folder: Path, tmp_path: Path) -> None:
    means = []
    for number, w8 in enumerate(("gptq", "nearest", "gptq"), start=1):
        out, store = tmp_path / "out.json", tmp_path / "store"
        assert (
            call("compare", folder, "--texts", 2, "--w8", w8, "--store", store, "--json", out) == 0
        )
        means.append(json.loads(out.read_text())["rows"][0]["mean"])
        assert len(list(store.iterdir())) == min(number, 2)
    assert means[0] == means[2] != means[1]


def test_results_of_a_precision_that_differs_in_every_layer_have_a_file(tmp_path: Path) -> None:
    names = [
        ",".join(["w8a8", *(f"{i}.{operation}=w8a16" for i in range(12) for operation in chosen)])
        for chosen in (("qkv", "o", "ffn1"), ("qkv", "o", "ffn2"))
    ]
    files = {_file(tmp_path, name, Recipe()) for name in [*names, *names, "w8a8"]}
    assert len(files) == 3
    for file in files:
        file.touch()
    assert tmp_path / "w8a8.jsonl" in files


def test_texts_are_cut_to_a_model_s_positions(tmp_path: Path) -> None:
    short = model_folder(tmp_path / "short", max_position_embeddings=9)
    out = tmp_path / "out.json"
    assert call("compare", short, "--texts", 10, "--seq", 9, "--json", out) == 0
    assert json.loads(out.read_text())["rows"][0]["mean"] > 0.9
    wanted = ("--texts", 4, "--cosine", 0.9, "--seq", 9)
    assert call("search", short, *wanted, "--json", out) == 0
    assert json.loads(out.read_text())["met"]


@pytest.mark.parametrize("command", ["compare", "search"])
def test_what_does_not_fit_is_refused_before_the_texts_run(
    command: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "tilewright.sw.quantize.calibrate.calibrate", lambda *a, **k: pytest.fail("it ran")
    )
    assert call(command, folder, "--seq", 0) == 2
    assert "sequence = 0" in capsys.readouterr().err


def test_a_model_wider_than_the_arithmetic_is_refused_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "tilewright.sw.quantize.calibrate.calibrate", lambda *a, **k: pytest.fail("it ran")
    )
    sizes = {**JSON, "intermediate_size": 4104, "num_hidden_layers": 1}
    shape = BertConfig.from_json({**sizes, "vocab_size": len(VOCABULARY)})
    write(tmp_path, tensors(3, shape), {**sizes, "vocab_size": len(VOCABULARY)})
    write_tokenizer(tmp_path)
    for arguments in (
        ("run", tmp_path, "--text", "a", "--backend", "reference"),
        ("run", tmp_path, "--text", "a"),
        ("compile", tmp_path, "-o", tmp_path / "out"),
        ("compare", tmp_path),
        ("search", tmp_path),
    ):
        assert call(*arguments) == 2
        assert capsys.readouterr().err.strip().endswith("ffn = 4104: must be at most 4096")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "MODEL"), "no text"),
        (("run", "MODEL", "--text", ""), "text 1"),
        (("run", "MODEL", "--text", "a " * 60), "text 1"),
        (("run", "MODEL", "--text", "a", "--backend", "fpga"), "--backend fpga"),
        (("run", "MODEL", "--text", "a", "--precision", "w3a3"), "w3a3"),
        (("run", "MODEL", "--text", "a", "--seq", "4000"), "sequence = 4000: must be 1 to 40"),
        (("run", "MODEL", "--text", "a", "--seq", "-7", "--backend", "reference"), "sequence = -7"),
        (("run", "models/bra[/x]", "--text", "a"), "'models/bra[/x]' is neither"),
        (("compile", "[/x]", "-o", "OUT"), "'[/x]' is neither"),
        (("run", "MODEL", "--file", "/nowhere"), "--file /nowhere: No such file or directory"),
        (("run", "MODEL", "--text", "a", "--precision", "MODEL/x.toml"), "MODEL/x.toml: No such"),
        (("search", "MODEL", "--store", "MODEL/config.json/x"), "MODEL/config.json/x: File exists"),
        (("run", "MODEL", "--text", "a", "--context", "b", "--context", "c"), "2 --context"),
        (("run", "/nowhere", "--text", "a"), "/nowhere"),
        (("compile", "MODEL", "-o", "/nowhere/x", "--seq", "8"), "there is no folder"),
        (("compile", "MODEL", "-o", "OUT", "--seq", "41"), "41"),
        (("compile", "MODEL", "-o", "OUT", "--seq", "8", "--batch", "17"), "batch = 17"),
        (("inspect", "MODEL/config.json"), "not a Tilewright program"),
        (("compare", "MODEL", "--texts", "0"), "--texts 0"),
        (("search", "MODEL", "--cosine", "2"), "target = 2"),
        (("search", "MODEL", "--cosine", "nan"), "target = nan"),
        (("search", "MODEL", "--texts", "-1"), "-1 texts"),
    ],
)
def test_refusals(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.tilewright"
    named = [a.replace("MODEL", str(folder)).replace("OUT", str(out)) for a in arguments]
    assert call(*named) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message.replace("MODEL", str(folder)) in lines[-1], lines
    assert "Errno" not in lines[-1]
    assert lines[-1].startswith("tilewright: ")
    assert not list(tmp_path.iterdir())
