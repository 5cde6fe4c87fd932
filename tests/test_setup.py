"""scripts/setup on machines of stubs: what it installs, and when it does so again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

_TOOLS = "cat chmod cksum cp dirname env flock grep mkdir mktemp rm sed sh touch"
"""Of this machine."""

_PYTHON = """#!/bin/sh
echo "$*" >>"$MACHINE/log"
case "$*" in
-V) echo "Python $(cat "$MACHINE/version")" ;;
-) [ -e "$MACHINE/libpython3.11" ] ;;
*base_prefix*) echo /usr ;;
*%d.%d*) echo 3.11 ;;
*ensurepip*) [ -e "$MACHINE/python3-venv" ] ;;
*"--group bench"*) [ ! -e "$MACHINE/no wheel" ] ;;
"-m venv "*)
    for folder; do :; done
    rm -rf "$folder"
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    cp "$0" "$folder/bin/tilewright"
    echo "#!$PWD/$folder/bin/python" >"$folder/bin/pip"
    ;;
esac
"""
_APT_GET = """#!/bin/sh
[ "$1" = install ] || exit 0
for package; do
    echo >"$MACHINE/$package"
    case $package in
    python3 | iverilog) cp "$MACHINE/stubs/$package" "$MACHINE/bin/" ;;
    chromium-driver) cp "$MACHINE/stubs/iverilog" "$MACHINE/bin/chromedriver" ;;
    esac
done
"""


class Machine:
    """A machine on which the user is root, with a compiler, and Python if `packages` has it."""

    def __init__(self, folder: Path, packages: str = "") -> None:
        self.folder = folder
        self.project = folder / "project"
        for name in ("bin", "stubs", "project/scripts"):
            (folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup", self.project / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.project)
        (folder / "version").write_text("3.11.2\n")
        for tool in _TOOLS.split():
            if found := shutil.which(tool):
                (folder / "bin" / tool).symlink_to(found)
        for name in ("g++", "make", "perl"):
            self.stub(f"bin/{name}", "#!/bin/sh\n")
        self.stub("bin/id", "#!/bin/sh\necho 0\n")
        self.stub("bin/apt-get", _APT_GET)
        self.stub("stubs/iverilog", "#!/bin/sh\n")
        self.stub("stubs/python3", _PYTHON)
        self._run("apt-get", "install", *packages.split())

    def stub(self, name: str, text: str) -> None:
        """Put a command of its own there."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": os.fspath(self.folder / "bin"), "MACHINE": os.fspath(self.folder)}
        return subprocess.run(
            words,
            cwd=self.project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def setup(self, level: str, code: int = 0) -> str:
        """Run it; what it said."""
        done = self._run("sh", "scripts/setup", level)
        assert done.returncode == code, done.stderr
        return done.stderr

    def has(self, package: str) -> bool:
        return (self.folder / package).exists()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path, "python3 python3-venv libpython3.11 iverilog chromium-driver")


def test_a_machine_without_python(tmp_path):
    """What Python needs shows only once there is one; it is installed, too."""
    machine = Machine(tmp_path)
    machine.setup("test")
    assert machine.has("python3")
    assert machine.has("libpython3.11")
    assert machine.setup("test") == ""


def test_a_package_that_is_not_to_be_had(tmp_path):
    machine = Machine(tmp_path)
    machine.stub("bin/apt-get", "#!/bin/sh\nexit 1\n")
    last = machine.setup("test", 2).splitlines()[-1]
    assert "apt-get install -y iverilog python3 python3-venv" in last


def test_a_folder_that_was_moved(machine):
    """Scripts in .venv have its path in them: all are made anew."""
    machine.setup("test")
    machine.project = machine.project.rename(machine.folder / "moved")
    machine.setup("test")
    assert f"{machine.project}/.venv" in (machine.project / ".venv/bin/pip").read_text()
    assert machine.setup("test") == ""
    # A link to it is no other place.
    (machine.folder / "link").symlink_to(machine.project)
    machine.project = machine.folder / "link"
    assert machine.setup("test") == ""


def test_the_peers_of_the_benchmark(machine):
    """They are installed again when their Python is another, and refused in one line."""
    made = "venv --clear .venv-bench"
    log = machine.folder / "log"
    machine.setup("bench")
    assert log.read_text().count(made) == 1
    assert machine.setup("bench") == ""
    (machine.folder / "version").write_text("3.12.1\n")
    machine.setup("bench")
    assert log.read_text().count(made) == 2
    (machine.project / ".venv-bench/bin/python").unlink()
    (machine.folder / "no wheel").touch()
    last = machine.setup("bench", 2).splitlines()[-1]
    assert "could not install the peers of `make bench` for Python 3.12.1" in last
