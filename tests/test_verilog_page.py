"""docs/verilog.md as a user follows it: the plain files under other people's tools."""

import json
import re
import shutil
import sys
from pathlib import Path

import pyslang
import pytest

from tilewright.hw.config import preset_config
from tilewright.hw.generate import generate, generate_verilog
from tilewright.hw.names import module_prefix
from tilewright.sim import toolchain

PAGE = Path(__file__).parents[1] / "docs" / "verilog.md"
RECORD, BENCH, RUN = re.findall(
    r"```python[^\n]*\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
)
CHOICE = 'SIMULATOR, ARGUMENTS = "icarus", []'
TINY, SMALL = preset_config("tiny"), preset_config("small")
MODES = [
    ("icarus", []),  # cocotb's own choice: -g2012
    ("icarus", ["-g2001"]),
    ("icarus", ["-g2005"]),
    pytest.param("verilator", [], marks=pytest.mark.slow),
    pytest.param("verilator", ["--default-language", "1364-2001"], marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, cores):
    """A folder where the page was followed up to the testbench."""
    where = tmp_path_factory.mktemp("page")
    folder = shutil.copytree(cores["tilewright_tiny"], where / "build" / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        exec(compile(RECORD, str(PAGE), "exec"), {})
    (folder / "bench.py").write_text(BENCH, encoding="utf-8")
    return where


def follow(place, simulator, arguments):
    """Run the page's last block in a process of its own; whether the testbench passed."""
    assert RUN.count(CHOICE) == 1
    script = place / "run.py"
    script.write_text(
        RUN.replace(CHOICE, f"SIMULATOR, ARGUMENTS = {simulator!r}, {arguments}"), encoding="utf-8"
    )
    command = [sys.executable, script]
    # What cocotb's runner does there is not what a user gets.
    environment = toolchain.build_env()
    environment.pop("PYTEST_CURRENT_TEST", None)
    done = toolchain.run(command, cwd=place, env=environment, check=False)
    assert "bench.runs_the_program" in done.stdout, done.stdout
    return done.returncode == 0


@pytest.mark.parametrize(("simulator", "arguments"), MODES)
def test_a_recorded_program_runs(place, simulator, arguments):
    if simulator == "icarus" and shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed")
    assert follow(place, simulator, arguments)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_the_testbench_sees_what_is_wrong(place, monkeypatch):
    after = place / "build" / "tiny" / "after.bin"
    right = after.read_bytes()
    after.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert not follow(place, "icarus", [])
    after.write_bytes(right)
    # Values in declarations: under SystemVerilog's rules they wake no process.
    verilog = place / "build" / "tiny" / "tilewright_tiny.v"
    text = verilog.read_text()
    monkeypatch.setattr("tilewright.hw.generate._initial_values", lambda module: module)
    verilog.write_text(generate_verilog(TINY))
    assert not follow(place, "icarus", [])
    assert follow(place, "icarus", ["-g2005"])
    verilog.write_text(text)


def test_the_testbench_is_short():
    assert len(BENCH.splitlines()) <= 40
    assert "tilewright" not in BENCH


def elaborate(*texts):
    """Top modules, and what slang holds to be errors, of sources in one design."""
    compilation = pyslang.ast.Compilation()
    for text in texts:
        compilation.addSyntaxTree(pyslang.syntax.SyntaxTree.fromText(text))
    found = compilation.getAllDiagnostics()
    # Of two modules of one name slang takes the first, and only warns.
    errors = [str(d.code) for d in found if d.isError() or "Duplicate" in str(d.code)]
    return [top.name for top in compilation.getRoot().topInstances], errors


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    """Prefix → folder of three configurations, two of one name, and of one with its own prefix."""
    found = {}
    wide = SMALL.with_settings(["lanes=8"])
    for config, prefix in ((TINY, None), (SMALL, None), (wide, None), (TINY, "npu0")):
        folder = tmp_path_factory.mktemp("core")
        verilog = generate(config, folder, prefix=prefix)[0]
        found[verilog.stem] = folder
    return found


def design(cores):
    """Verilog of a module that holds the cores, the first of them twice."""
    lines = [
        f"  {name} core_{number} ();" for number, name in enumerate((*cores, next(iter(cores))))
    ]
    return "\n".join(["module board ();", *lines, "endmodule", ""])


def test_cores_beside_each_other_in_slang(cores):
    texts = [(folder / f"{name}.v").read_text() for name, folder in cores.items()]
    assert elaborate(*texts, design(cores)) == (["board"], [])
    # The test sees what it is for.
    assert elaborate(texts[0], texts[0])[1]


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_cores_beside_each_other_in_icarus(cores, tmp_path):
    top = tmp_path / "design.v"
    top.write_text(design(cores))
    files = [folder / f"{name}.v" for name, folder in cores.items()]
    toolchain.run(["iverilog", "-g2012", "-s", "board", "-o", tmp_path / "out", top, *files])


def test_headers_beside_each_other(cores, tmp_path):
    source = tmp_path / "both.c"
    checks = [f"{name.upper()}_ROWS + {name.upper()}_REG_CONTROL" for name in cores]
    source.write_text(
        "".join(f'#include "{folder}/{name}.h"\n' for name, folder in cores.items())
        + f"int sums[] = {{{', '.join(checks)}}};\n"
    )
    toolchain.run([toolchain.cxx(), "-x", "c", "-Wall", "-Werror", "-fsyntax-only", source])


def test_every_name_has_the_prefix(cores):
    folder = cores["npu0"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"npu0.v", "npu0_instance.v", "npu0.h", "manifest.json", "registers.md"}
    text = (folder / "npu0.v").read_text()
    modules = re.findall(r"^module \\?([^\s(]+)", text, re.MULTILINE)
    assert len(set(modules)) == len(modules) > 50
    assert modules[0] == "npu0"
    assert all(re.match(r"npu0[._]", name) for name in modules[1:])
    assert elaborate(text) == (["npu0"], [])
    macros = re.findall(r"^#(?:define|ifndef) (\w+)", (folder / "npu0.h").read_text(), re.MULTILINE)
    assert macros
    assert all(macro.startswith("NPU0_") for macro in macros)
    assert re.search(r"^npu0 npu0_0 \($", (folder / "npu0_instance.v").read_text(), re.MULTILINE)


def test_lint_pragmas_are_known_to_every_verilator(cores):
    """Verilator 4 knew these names; another is an error in a release that does not."""
    known = {"CASEINCOMPLETE", "CMPCONST", "DECLFILENAME", "UNSIGNED", "UNUSED", "WIDTH"}
    for name, folder in cores.items():
        text = (folder / f"{name}.v").read_text()
        assert set(re.findall(r"verilator +lint_off +(\w+)", text)) <= known
        assert text.count("verilator") == text.count("verilator lint_off")


def test_an_old_verilator_has_nothing_to_say(place):
    """Where there is an old one on PATH, such as Debian 12's 5.006."""
    found = shutil.which("verilator")
    if found is None:
        pytest.skip("no verilator on PATH")
    verilog = place / "build" / "tiny" / "tilewright_tiny.v"
    result = toolchain.run([found, "--lint-only", "-Wall", verilog], check=False)
    assert (result.returncode, "%Warning" in result.stdout) == (0, False), result.stdout


def test_no_value_in_a_declaration(cores):
    """SystemVerilog sets those before any process waits for them."""
    for name, folder in cores.items():
        text = (folder / f"{name}.v").read_text()
        assert not re.search(r"^ *(?:reg|wire|integer)\b[^;]*[^<=]=[^=]", text, re.MULTILINE)
        assert text.count("    \\$once = 0;\n") == text.count("  reg \\$once ;\n") > 50


def test_manifest_names_top_and_prefix(cores):
    for name, folder in cores.items():
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["top"], manifest["prefix"]) == (name, name)
    assert list(cores)[1:3] == ["tilewright_small", module_prefix(SMALL.with_settings(["lanes=8"]))]
