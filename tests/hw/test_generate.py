"""The generator's files: the same bytes everywhere, clean for linters, told apart by their hash."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hw.shapes import identify, shape
from tilewright import __version__
from tilewright.hw.config import ACTIVATION_FUNCTIONS, PRESETS, Config, preset_config
from tilewright.hw.documents import manifest, ports
from tilewright.hw.generate import YosysError, generate, generate_verilog
from tilewright.hw.manifest import manifest_hash
from tilewright.hw.names import module_prefix
from tilewright.hw.registers import REGISTERS
from tilewright.sim import toolchain

TINY = preset_config("tiny")
ROOT = Path(__file__).parents[2]
SHAPES = [
    # Two beats or more a word, a word a beat, several words a beat.
    shape(8, 4, 1, axi_data_width=32, row_engines=1, queue_depth=1, axi_addr_width=64),
    shape(4, 4, 4, axi_data_width=64, row_engines=3, functions=ACTIVATION_FUNCTIONS),
    shape(4, 8, 8, axi_data_width=256, row_engines=16, functions=(), weight_bits=4),
    # A command a beat, queues whose memory would have one word.
    shape(4, 4, 2, axi_data_width=512, queue_depth=2),
]
MORE_SHAPES = [
    shape(16, 4, 2, axi_data_width=1024, axi_outstanding=1, axi_max_burst=1, functions=()),
    shape(4, 4, 1, axi_data_width=1024, queue_depth=64, acc_banks=2, acc_depth=16),
    shape(4, 16, 1, axi_data_width=128, sp_banks=32, scale_rows=16, stat_rows=16),
    shape(16, 16, 16, axi_data_width=256, queue_depth=1, row_engines=2, weight_bits=2),
    shape(16, 16, 4, sp_depth=16384),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("generated")
    generate(TINY, where)
    return where


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_nothing_and_names_the_file(tmp_path, monkeypatch, there):
    monkeypatch.setattr("tilewright.hw.generate.generate_verilog", lambda *_, **__: "module\n")
    where = tmp_path / "a" / "b"
    if there:
        where.mkdir(parents=True)
        (where / "manifest.json").write_text("old")
    write = Path.write_text

    def full(path, text, **options):
        if ".h." in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a/b/tilewright_\w+\.h'$"):
        generate(TINY, where)
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert left == (["a/b/manifest.json"] if there else [])
    assert where.is_dir() == there
    assert (tmp_path / "a").is_dir() == there


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("mmap failed to reserve 0x104000000 bytes", "Yosys cannot run: it is WebAssembly"),
        ("ERROR: syntax", "Yosys cannot write the Verilog"),
    ],
)
def test_a_yosys_that_fails_is_one_line(tmp_path, monkeypatch, said, line):
    failed = subprocess.CompletedProcess([], 1, "", f"Traceback\n{said}\n")
    monkeypatch.setattr("tilewright.hw.generate.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(YosysError, match=line) as caught:
        generate(TINY, tmp_path / "new")
    assert "\n" not in str(caught.value)
    # For people, unless the line says all.
    assert ("syntax" in caught.value.output) == ("syntax" in said)
    assert not (tmp_path / "new").exists()


def test_same_bytes_in_another_process_and_folder(folder, tmp_path):
    script = (
        "import sys; from pathlib import Path; from tilewright.hw.config import preset_config; "
        "from tilewright.hw.generate import generate; "
        "generate(preset_config('tiny'), Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_no_path_no_date(folder):
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert ".py" not in text
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text)
        assert "(* src" not in text


def assert_clean(verilog: Path, scratch: Path) -> None:
    """Verilator and Icarus Verilog have nothing to say about the file."""
    result = toolchain.run(
        [
            str(toolchain.verilator()),
            "--lint-only",
            "-Wall",
            "--default-language",
            "1364-2001",
            "--top-module",
            verilog.stem,
            str(verilog),
        ],
        env=toolchain.build_env(),
        check=False,
    )
    output = result.stdout or ""
    assert result.returncode == 0, output
    assert "%Warning" not in output, output
    if shutil.which("iverilog") is not None:
        command = ["iverilog", "-g2001", "-Wall", "-Wno-timescale", "-s", verilog.stem]
        command += ["-o", str(scratch / "out"), str(verilog)]
        result = toolchain.run(command, check=False)
        assert result.returncode == 0, result.stdout
        assert not result.stdout, result.stdout


def test_linters_are_silent(folder, tmp_path):
    assert_clean(folder / "tilewright_tiny.v", tmp_path)


@pytest.mark.parametrize(
    "config",
    [*SHAPES, *(pytest.param(c, marks=pytest.mark.slow) for c in MORE_SHAPES)],
    ids=lambda config: f"{identify(config)}b{config.axi_data_width}",
)
def test_linters_are_silent_on_every_shape(config, tmp_path):
    path = tmp_path / "tilewright.v"
    path.write_text(generate_verilog(config, prefix="tilewright"), encoding="utf-8")
    assert_clean(path, tmp_path)


def test_ports():
    listed = {port["name"]: port for port in ports(TINY)}
    assert {"clk", "rst", "irq"} < set(listed)
    for name in set(listed) - {"clk", "rst", "irq"}:
        assert name.startswith(("m_axi_", "s_axi_")), name
    assert listed["m_axi_rdata"] == {"name": "m_axi_rdata", "direction": "input", "width": 32}
    assert listed["m_axi_araddr"]["width"] == TINY.axi_addr_width
    assert listed["s_axi_awaddr"]["direction"] == "input"


def test_ports_are_those_of_the_verilog(folder):
    text = (folder / "tilewright_tiny.v").read_text(encoding="utf-8")
    head = re.search(r"^module tilewright_tiny\(([^)]*)\)", text, re.MULTILINE)
    assert head is not None
    assert {name.strip() for name in head[1].split(",")} == {p["name"] for p in ports(TINY)}
    template = (folder / "tilewright_tiny_instance.v").read_text(encoding="utf-8")
    assert {m[1] for m in re.finditer(r"^    \.(\w+)\(", template, re.MULTILINE)} == {
        p["name"] for p in ports(TINY)
    }


def test_manifest(folder):
    found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert found == manifest(TINY, "tilewright_tiny")
    assert found["version"] == __version__
    assert int(found["hash"], 16) == manifest_hash(TINY)
    assert Config.from_dict(found["config"]) == TINY


def test_hash_tells_configurations_apart():
    hashes = {manifest_hash(config) for config in PRESETS.values()}
    assert len(hashes) == len(PRESETS)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("rows=8", True),
        ("columns=8", True),
        ("weight_bits=4", True),
        ("functions=gelu,silu", True),
        ("sp_depth=2048", True),
        ("acc_depth=1024", True),
        ("scale_rows=512", True),
        ("stat_rows=512", True),
        ("name=other", False),
        ("lanes=4", False),
        ("row_engines=2", False),
        ("axi_addr_width=40", False),
        ("axi_data_width=64", False),
        ("axi_outstanding=1", False),
        ("axi_max_burst=1", False),
        ("queue_depth=8", False),
    ],
)
def test_hash_covers_what_programs_depend_on(setting, told):
    assert (manifest_hash(TINY) != manifest_hash(TINY.with_settings([setting]))) == told


def test_hash_is_the_same_in_every_release(monkeypatch):
    number = manifest_hash(TINY)
    monkeypatch.setattr("tilewright.__version__", "99.0.0")
    assert manifest_hash(TINY) == number


def test_label_tells_configurations_apart():
    changed = TINY.with_settings(["axi_outstanding=1"])
    assert [config.label for config in PRESETS.values()] == list(PRESETS)
    labels = {changed.label, TINY.with_settings(["lanes=4"]).label, Config(name="tiny").label}
    assert len(labels) == 3
    assert all(re.fullmatch("tiny-[0-9a-f]{8}", label) for label in labels)
    assert changed.with_settings(["axi_outstanding=8"]).label == "tiny"


def test_prefix_is_a_name_of_verilog(tmp_path):
    assert module_prefix(TINY) == "tilewright_tiny"
    mine = Config(name="my-npu")
    assert module_prefix(mine) == f"tilewright_{mine.label.replace('-', '_')}"
    assert module_prefix(TINY, "npu0") == "npu0"
    for bad in ("", "0npu", "my-npu", "_npu", "npu\n", "é", "small", "module", "logic"):
        with pytest.raises(ValueError, match=r"prefix .* must "):
            generate(TINY, tmp_path / "none", prefix=bad)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_c_header_compiles(folder):
    source = '#include "tilewright_tiny.h"\nint x[TILEWRIGHT_TINY_REG_CONTROL == 0x20 ? 1 : -1];\n'
    for language in ("c", "c++"):
        subprocess.run(
            ["g++", "-fsyntax-only", "-Wall", "-Werror", "-I", str(folder), "-x", language, "-"],
            input=source,
            text=True,
            check=True,
        )


def test_register_documentation_names_every_register(folder):
    text = (folder / "registers.md").read_text(encoding="utf-8")
    for register in REGISTERS.values():
        assert f"| 0x{register.address:03X} | {register.name} |" in text


@pytest.mark.slow
def test_text_grows_with_rows_plus_columns():
    base = preset_config("default")
    sizes = [
        len(generate_verilog(base.with_settings([f"rows={n}", f"columns={n}"])))
        for n in (16, 32, 64)
    ]
    # Linear growth doubles the step; growth with rows times columns would make it four times.
    assert sizes[2] - sizes[1] < 2.6 * (sizes[1] - sizes[0])


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("rows=12", "rows = 12: must be a power of two from 4 to 128"),
        ("columns=2", "columns = 2: must be a power of two"),
        ("lanes=32", "lanes = 32: must be a power of two from 1 to 16"),
        ("weight_bits=9", "weight_bits = 9: must be 2 to 8"),
        ("functions=gelu,relu", "functions: 'relu' is unknown"),
        ("functions=gelu,gelu", "a name appears twice"),
        ("sp_depth=65536", "words: must be at most 65536"),
        ("axi_data_width=96", "axi_data_width = 96"),
        ("axi_max_burst=257", "axi_max_burst = 257: must be 1 to 256"),
        ("queue_depth=0", "queue_depth = 0: must be 1 to 64"),
        ("depth=3", "unknown key 'depth'"),
        ("rows", "must be key=value"),
        ("rows=many", "must be an integer"),
        ("name=a b", "letters, digits"),
        ("name=é", "name = 'é': must be ASCII letters"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(setting, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        preset_config("default").with_settings([setting])


def test_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "small"\nlanes = 8\nfunctions = ["gelu", "tanh"]\n', encoding="utf-8")
    config = Config.from_toml(path)
    assert config == preset_config("small").with_settings(["lanes=8", "functions=gelu,tanh"])
    path.write_text("rows = [", encoding="utf-8")
    with pytest.raises(ValueError, match="not a TOML file"):
        Config.from_toml(path)
    path.write_text("lines = 8\n", encoding="utf-8")
    with pytest.raises(ValueError, match="unknown key 'lines'"):
        Config.from_toml(path)
    for value in ('"gelu"', "3", '[["gelu"]]'):
        path.write_text(f"functions = {value}\n", encoding="utf-8")
        with pytest.raises(ValueError, match="must be a list of names"):
            Config.from_toml(path)
    for value in ('"other"', "3", "[1]"):
        path.write_text(f"preset = {value}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"preset .* is unknown; one of tiny"):
            Config.from_toml(path)


def test_failed_write_leaves_nothing_behind(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        generate(TINY, blocked)
    assert blocked.read_text(encoding="utf-8") == "in the way"
