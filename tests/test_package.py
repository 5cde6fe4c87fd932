"""The wheel: what is in it, and that it works beside a project with folders of the same names.

It is built from the sdist, and installed into an environment of its own that sees the packages of
this one, but not the editable install.
"""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tilewright.sw.cache import cache_dir

ROOT = Path(__file__).parents[1]
LAYERS = ("hw", "sim", "sw", "synth")

CHECK = """
import sys

import tilewright as tw

import numpy as np

config = tw.preset("tiny")
files = tw.generate(config, "made")
a, b = np.full((3, 5), 2, np.int8), np.full((5, 4), 3, np.int8)
with tw.Device("iss", config) as device:
    assert (device.matmul(a, b) == 30).all()
own = [name for name in ("hw", "sim", "sw", "synth") if name in sys.modules]
print(tw.__file__, len(files), own)
"""

COCOTB = """
import tilewright as tw

import numpy as np

with tw.Device("cocotb", tw.preset("tiny"), simulator="icarus") as device:
    print(device.matmul(np.full((1, 4), 2, np.int8), np.full((4, 1), 3, np.int8)))
"""


def run(*words: str | Path, cwd: Path, **more: str) -> str:
    """What a command prints; the environment knows this checkout no more."""
    environment = {"PATH": sysconfig.get_path("scripts") + ":/usr/local/bin:/usr/bin:/bin"}
    environment |= {"HOME": str(cwd), "TILEWRIGHT_CACHE": str(cache_dir())} | more
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """A distribution of a folder."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, cwd=source)
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder / "dist")) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.name != "dist")
    return source


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    found = folder / "bin" / "python"
    packages = Path(
        run(found, "-c", "import site; print(*site.getsitepackages())", cwd=folder)[:-1]
    )
    run(
        *(sys.executable, "-m", "pip", "--python", found, "install", "--quiet", "--no-deps"),
        *("--no-index", wheel),
        cwd=folder,
    )
    # Behind the wheel, and by its name only: what a .pth file names is searched, its own .pth files
    # are not read, and so the editable install is not there.
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "shared.pth").write_text("\n".join(sorted(shared)) + "\n")
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with packages `hw`, `sim`, `sw` and `synth` of its own."""
    folder = tmp_path_factory.mktemp("project")
    for layer in LAYERS:
        (folder / layer).mkdir()
        (folder / layer / "__init__.py").write_text(f"raise RuntimeError('{layer} of the project')")
    return folder


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"tilewright", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    # All that is in the four folders, C++ sources and TOML with the Python; less what tests run.
    paths = (path for layer in LAYERS for path in (ROOT / layer).rglob("*") if path.is_file())
    listed = {path.relative_to(ROOT).as_posix() for path in paths if path.suffix != ".pyc"}
    wanted = {f"tilewright/{name}" for name in listed if "/testbenches/units/" not in name}
    loose = (path for path in (ROOT / "src" / "tilewright").iterdir() if path.is_file())
    wanted |= {f"tilewright/{path.name}" for path in loose}
    assert {name for name in names if name.startswith("tilewright/")} == wanted
    assert "tilewright/sim/testbenches/serve.py" in wanted


def test_the_sdist_holds_the_testbenches(sdist: Path) -> None:
    assert (sdist / "sim" / "testbenches" / "units" / "core.py").is_file()
    assert (sdist / "tests" / "test_package.py").is_file()
    assert not (sdist / "src" / "tilewright" / "hw").exists()


def test_it_runs_beside_folders_of_the_same_names(python: Path, project: Path) -> None:
    """In a script beside them, with the folder first on the path."""
    script = project / "check.py"
    script.write_text(CHECK)
    shown = run(python, script, cwd=project, PYTHONPATH=str(project))
    where, files, own = shown.split(" ", 2)
    assert Path(where).is_relative_to(python.parents[1]), where
    assert (int(files), own.strip()) == (5, "[]")


def test_the_command_line_runs_there(python: Path, project: Path) -> None:
    shown = run(python, "-m", "tilewright", "presets", cwd=project)
    assert all(name in shown for name in ("tiny", "small", "default", "large", "huge"))
    script = python.parent / "tilewright"
    assert run(script, "presets", cwd=project, PYTHONPATH=str(project)) == shown


def test_the_simulator_of_cocotb_starts_there(python: Path, project: Path) -> None:
    """Its process imports nothing of the current folder, where `cocotbext` would be found first."""
    trap = project / "cocotbext"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise RuntimeError('cocotbext of the project')")
    assert run(python, "-c", COCOTB, cwd=project).strip() == "[[24]]"
