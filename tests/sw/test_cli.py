"""The command line: what it prints, its exit codes, its errors in one line."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

import tilewright.sw.cli
from tilewright import __version__
from tilewright.hw.config import ConfigError
from tilewright.sim.native.simulator import SimulationError
from tilewright.sim.toolchain import ToolchainError
from tilewright.sw import cache
from tilewright.sw.cli import _children, _output
from tilewright.sw.errors import ResultError, UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


def commands():
    return tilewright.sw.cli.cli.list_commands(click.Context(tilewright.sw.cli.cli))


def test_version(capsys):
    assert tilewright.sw.cli.call(["--version"]) == 0
    assert capsys.readouterr().out == f"tilewright {__version__}\n"


def test_help_lists_every_command_with_a_summary(capsys):
    assert tilewright.sw.cli.call(["--help"]) == 0
    out = capsys.readouterr().out
    for name in commands():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 3, f"{name} has no summary"
    assert {"doctor", "presets", "cache", "fetch"} <= set(commands())


@pytest.mark.parametrize("name", commands())
def test_every_command_has_examples(name, capsys):
    assert tilewright.sw.cli.call([name, "--help"]) == 0
    assert "Examples:\n    tilewright " in capsys.readouterr().out


def test_help_imports_no_library():
    code = (
        "import sys, tilewright.sw.cli; tilewright.sw.cli.call(['--help']);"
        "heavy = {'numpy', 'amaranth', 'rich', 'tokenizers', 'cocotb', 'sim'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["no-such"], "no-such"),
        (["presets", "--no-such"], "--no-such"),
        (["fetch"], "NAME"),
        (["presets", "--json", "/no/such/x.json"], "--json /no/such/x.json: there is no folder"),
        (["_output"], "_output"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, named, capsys):
    assert tilewright.sw.cli.call(arguments) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("tilewright: ")
    assert named in err


@pytest.mark.parametrize(("words", "usage"), [([], "COMMAND"), (["cache"], "cache [OPTIONS]")])
def test_no_subcommand_shows_the_help_as_it_is(words, usage, capsys):
    assert tilewright.sw.cli.call(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Usage: tilewright ")
    assert usage in captured.err.splitlines()[0]
    assert "\n    tilewright " in captured.err
    assert not captured.out


def use(monkeypatch, function):
    """Have `tilewright presets` call `function`."""
    monkeypatch.setattr(
        tilewright.sw.cli.importlib,
        "import_module",
        lambda name: SimpleNamespace(command=click.command("presets")(function)),
    )


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "code", "line"),
    [
        (raising(UserError("no model 'x':\n  minilm")), 2, "no model 'x': minilm"),
        (raising(ResultError("3 bytes differ")), 1, "3 bytes differ"),
        (raising(FileNotFoundError(2, "No such file", "a.toml")), 2, "a.toml: No such file"),
        (raising(ConfigError("rows is 3,\nnot 4 to 128")), 2, "rows is 3, not 4 to 128"),
        (raising(ToolchainError("make not found")), 2, "make not found"),
        (raising(SimulationError("the model failed")), 1, "the model failed"),
        (raising(KeyboardInterrupt()), 130, "interrupted"),
    ],
)
def test_errors(function, code, line, monkeypatch, capsys):
    use(monkeypatch, function)
    assert tilewright.sw.cli.call(["presets"]) == code
    # click ends a broken-off line of output first.
    assert capsys.readouterr().err.strip() == f"tilewright: {line}"


def test_a_bug_is_not_hidden(monkeypatch):
    use(monkeypatch, raising(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        tilewright.sw.cli.call(["presets"])


def test_traceback_on_request(monkeypatch, capsys):
    use(monkeypatch, raising(UserError("wrong")))
    assert tilewright.sw.cli.call(["--traceback", "presets"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_exit_code_of_a_command(monkeypatch):
    @click.pass_context
    def function(ctx):
        ctx.exit(1)

    use(monkeypatch, function)
    assert tilewright.sw.cli.call(["presets"]) == 1


def test_presets_as_table_and_json(capsys, tmp_path, monkeypatch):
    from tilewright.hw.config import PRESETS

    # A narrow terminal folds names.
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "presets.json"
    assert tilewright.sw.cli.call(["presets", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    document = json.loads(path.read_text())
    assert document["tilewright"] == __version__
    assert [row["name"] for row in document["rows"]] == list(PRESETS)
    for row in document["rows"]:
        assert row["name"] in out
        assert row["onchip_bytes"] == PRESETS[row["name"]].onchip_bytes
    assert [p.name for p in tmp_path.iterdir()] == ["presets.json"]


def test_json_on_standard_output_is_alone(capsys):
    assert tilewright.sw.cli.call(["presets", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"]
    assert "presets" in captured.err


@pytest.mark.parametrize("name", sorted(set(commands()) - {"cache"}))
def test_a_json_file_that_cannot_be_written_is_refused_first(name, capsys):
    command = tilewright.sw.cli.cli.get_command(click.Context(tilewright.sw.cli.cli), name)
    assert command is not None
    needed = [p for p in command.params if p.required]
    words = [w for p in needed for w in ([*p.opts[:1], "x"] if p.opts[0].startswith("-") else "x")]
    assert tilewright.sw.cli.call([name, *words, "--json", "/no/such/x.json"]) == 2
    assert "--json /no/such/x.json: there is no folder" in capsys.readouterr().err


def test_a_json_file_is_never_half_written(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        _output.write_json({"a": object()}, str(path))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_on_a_standard_output_of_ascii(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    _output.write_json({"text": "½"}, "-")
    out.seek(0)
    assert json.load(out) == {"text": "½"}


def test_tables_on_a_standard_output_of_ascii():
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(
        [sys.executable, "-m", "tilewright", "presets"], env=env, check=True, capture_output=True
    ).stdout
    assert b"16?16" in shown


def test_progress_shows_texts_as_they_are():
    bar = _output.progress("text", "detail", "bar", "count", "time", "spinner")
    bar.add_task("models/[/x]", detail="[red]")
    bar.console.width = 200
    with bar.console.capture() as shown:
        bar.console.print(bar.get_renderable())
    assert "models/[/x] [red]" in shown.get()


def test_a_link_to_a_json_file_stays_one(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to("target.json")
    for number in (1, 2):
        _output.write_json({"a": number}, str(link))
        assert link.is_symlink()
        assert json.loads((tmp_path / "target.json").read_text()) == {"a": number}
    link.unlink()
    link.symlink_to("no-such-folder/x.json")
    with pytest.raises(FileNotFoundError, match=r"link\.json"):
        _output.write_json({}, str(link))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1 << 20, "1 MiB"), (5 << 30, "5 GiB")],
)
def test_size(value, text):
    assert _output.size(value) == text


def test_cache_list_and_clear(capsys):
    entry = cache.cache_dir() / "models" / "one"
    entry.mkdir(parents=True)
    (entry / "data").write_bytes(bytes(2048))
    assert tilewright.sw.cli.call(["cache", "list", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bytes"] == 2048
    assert [(r["kind"], r["name"]) for r in document["rows"]] == [("models", "one")]
    assert tilewright.sw.cli.call(["cache", "clear", "simulators"]) == 0
    assert entry.is_dir()
    capsys.readouterr()
    assert tilewright.sw.cli.call(["cache", "clear", "model"]) == 2
    assert "'model' is unknown; one of accuracy, cocotb, models," in capsys.readouterr().err
    with cache.lock(entry):
        assert tilewright.sw.cli.call(["cache", "clear"]) == 1
    assert "models/one" in capsys.readouterr().err
    assert tilewright.sw.cli.call(["cache", "clear"]) == 0
    assert not entry.exists()


def test_doctor_tells_what_is_missing(capsys, monkeypatch):
    from tilewright.sim import toolchain

    tools = [
        tool if tool.name != "cocotb" else dataclasses.replace(tool, ok=False, version=None)
        for tool in toolchain.tools()
    ]
    monkeypatch.setattr(toolchain, "tools", lambda: tools)
    assert tilewright.sw.cli.call(["doctor", "--no-build", "--json", "-"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["ok"] is False
    row = next(row for row in document["rows"] if row["name"] == "cocotb")
    assert row["status"] == "missing"
    assert row["fix"] in captured.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_children_and_theirs(number, tmp_path):
    code = (
        "import subprocess, tilewright.sw.cli\n"
        "def wait(*a, **k):\n"
        "    subprocess.run(['sh', '-c', 'sleep 60 & echo $! > pid; mv pid child; wait'])\n"
        "tilewright.sw.cli.cli.main = wait\n"
        "tilewright.sw.cli.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "child").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child = int((tmp_path / "child").read_text())
        assert child in _children.descendants(process.pid)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    while _alive(child):
        assert time.monotonic() < deadline, "a grandchild outlived Ctrl-C"
        time.sleep(0.02)


def _alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # Nobody may be there to collect it.
    return state != "Z"
