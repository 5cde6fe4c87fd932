"""Who may import whom: the rules of docs/architecture.md, read from the source."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("hw", "sim", "sw", "synth")

PROJECT = "tilewright"
"""What users import; the rules below name modules from the layer on."""

DEFINITIONS = {
    "hw.commands",
    "hw.config",
    "hw.encoding",
    "hw.manifest",
    "hw.names",
    "hw.registers",
    "hw.tables",
    "hw.words",
}
"""They say what the machine is; software and simulators know it by them alone."""

GENERATES = {"sim.verilog", "sim.native.probes"}
"""What in `sim` generates Verilog, or knows the layout of its nets."""

KNOWN = {
    "sw.models": ("sw.errors", "sw.cache"),
    "sw.graph": ("sw.errors", "sw.models"),
}
"""Models and graphs are read without anything that quantizes or compiles them."""


def modules():
    """Every module of the project: its dotted name and its file."""
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            words = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(words[:-1] if words[-1] == "__init__" else words), path


MODULES = dict(modules())


def imports(module, path):
    """(line, imported module) for each import of the project's own in a file, lazy ones too."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = f"{PROJECT}.{package}".split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            # `from tilewright.hw import config` imports a module, `… import __version__` does not.
            for alias in node.names:
                full = f"{base}.{alias.name}"
                names.append(full if full.removeprefix(f"{PROJECT}.") in MODULES else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            names = [str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == PROJECT and rest.split(".")[0] in LAYERS:
                yield node.lineno, rest
            elif top in LAYERS:
                yield node.lineno, name


def within(name, package):
    return name == package or name.startswith(package + ".")


def refusal(module, name):
    """Why `module` must not import `name`, or None."""
    if module in DEFINITIONS:
        allowed = name in DEFINITIONS or name == "hw"
        return None if allowed else "definitions import nothing of the project but each other"
    layer, target = module.split(".")[0], name.split(".")[0]
    if within(module, "sw.cli") or module == "sw.__main__":
        return None
    if within(name, "sw.cli"):
        return "only the command line knows the command line"
    if layer == "hw" and target != "hw":
        return "the generator knows nothing but itself"
    if layer == "synth" and target not in ("synth", "hw"):
        return "synth imports hw only"
    if layer == "sim" and target not in ("sim", "hw"):
        return "sim imports neither sw nor synth"
    if layer == "sw" and target == "synth":
        return "sw does not import synth"
    component = target == "hw" and name not in DEFINITIONS and name != "hw"
    if layer in ("sim", "sw") and component and module not in GENERATES:
        return "of hw only the definitions may be imported here"
    if within(module, "sw.compiler") and target == "sim" and not within(name, "sim.cycles"):
        return "the compiler knows no backend, but the cycle model"
    for package, known in KNOWN.items():
        if within(module, package) and target in ("hw", "sim"):
            return f"{package} knows nothing of the machine"
        if within(module, package) and not any(within(name, one) for one in (package, *known)):
            return f"{package} knows of sw only {', '.join(known)}"
    return None


@pytest.mark.parametrize("module", MODULES)
def test_imports(module):
    path = MODULES[module]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module} imports {name}: {reason}"
        for line, name in imports(module, path)
        if (reason := refusal(module, name)) is not None
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_import_nothing():
    """Every `__init__` of a layer is free."""
    for layer in LAYERS:
        assert not list(imports(layer, MODULES[layer]))


def test_layers_are_imported_by_the_projects_name():
    """`import hw` finds another project's folder of that name."""
    for path in sorted(path for name in (*LAYERS, "tests") for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            wrong = [name for name in names if name.split(".")[0] in LAYERS]
            assert not wrong, f"{path.relative_to(ROOT)}:{node.lineno}: {wrong}"


def test_every_folder_with_modules_is_a_package():
    for layer in (*LAYERS, "tests"):
        for path in (ROOT / layer).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


@pytest.mark.parametrize(
    ("module", "name", "allowed"),
    [
        ("hw.config", "hw.registers", True),
        ("hw.config", "hw.array", False),
        ("hw.array", "hw.config", True),
        ("hw.array", "sim.golden", False),
        ("sim.iss", "hw.commands", True),
        ("sim.iss", "hw.core", False),
        ("sim.iss", "sw.errors", False),
        ("sim.verilog", "hw.generate", True),
        ("sw.compiler.emit", "hw.commands", True),
        ("sw.compiler.emit", "sim.golden", False),
        ("sw.compiler.estimate", "sim.cycles", True),
        ("sw.driver", "sim.native", True),
        ("sw.models.bert", "sw.quantize.formats", False),
        ("sw.models.fetch", "sw.cache", True),
        ("sw.graph.encoder", "sw.models.bert", True),
        ("sw.graph.encoder", "sw.compiler", False),
        ("sw.graph.run", "sim.golden", False),
        ("sw.pipeline.engine", "sw.quantize.formats", True),
        ("sw.driver", "hw.core", False),
        ("sw.driver", "sw.cli.demo", False),
        ("sw.cli.demo", "hw.generate", True),
        ("sw.cli.demo", "synth.flow", True),
        ("synth.flow", "hw.generate", True),
        ("synth.flow", "sim.golden", False),
    ],
)
def test_the_rules(module, name, allowed):
    assert (refusal(module, name) is None) == allowed


def test_all_ways_to_import_are_seen(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import tilewright.hw.config as c, numpy\n"
        "from tilewright.hw import config, nothing\n"
        "from . import toolchain\n"
        "from ..hw import nothing\n"
        "def f():\n"
        "    from tilewright.sw.errors import UserError\n"
        "    importlib.import_module('tilewright.sim.native')\n"
    )
    found = {(line, name) for line, name in imports("sim.a", path)}
    assert {(1, "hw.config"), (2, "hw.config"), (2, "hw"), (3, "sim.toolchain")} <= found
    assert {(6, "sw.errors"), (7, "sim.native")} <= found


STRAY = re.compile(r"(\.(orig|rej|bak|tmp|swp|swo|pyc|patch|diff)|~|\.DS_Store)$")
"""Names of what editors, merges and tools leave behind."""


def test_no_stray_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone")
    names = listed.stdout.splitlines()
    assert "pyproject.toml" in names
    assert [name for name in names if STRAY.search(name)] == []
    assert STRAY.search("hw/systolic/matmul.py.orig")
