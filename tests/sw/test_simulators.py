"""Simulators in the cache, wherever that lies; and the commands that install what is missing."""

import numpy as np
import pytest

from tilewright import _extras
from tilewright.hw.config import preset_config
from tilewright.sw.driver import Device, simulators

TINY = preset_config("tiny")


@pytest.fixture
def blank(tmp_path, monkeypatch):
    root = tmp_path / "with a blank"
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(root))
    return root


def test_a_cache_whose_path_has_a_blank(blank):
    """Built where make can, and used from there."""
    ones = np.ones((2, 2), np.int8)
    for _ in range(2):
        with Device("cocotb", TINY, simulator="icarus") as device:
            np.testing.assert_array_equal(device.matmul(ones, ones), [[2, 2], [2, 2]])
    assert len(list((blank / "cocotb").glob("[!.]*"))) == 1


def test_a_native_simulator_below_a_blank(blank, monkeypatch):
    folders = []

    def build(text, folder, **_):
        folders.append(folder)
        (folder / simulators.LIBRARY).write_bytes(b"library")

    monkeypatch.setattr(simulators, "build", build)
    library = simulators.simulator_library("module tilewright; endmodule")
    assert library.is_relative_to(blank)
    assert library.read_bytes() == b"library"
    assert " " not in str(folders[0])
    assert simulators.simulator_library("module tilewright; endmodule") == library
    assert len(folders) == 1


def test_the_command_that_installs_an_extra(monkeypatch):
    """It names the packages: a clone is on no index."""
    lines = ["numpy>=1.26", "a[b]>=2; extra == 'onnx'", "c; extra == 'plot'", "d; extra == 'onnx'"]
    monkeypatch.setattr(_extras.importlib.metadata, "requires", lambda _: lines)
    monkeypatch.setattr(_extras.sys, "executable", "/a b/python")
    assert _extras.install_command("onnx") == "'/a b/python' -m pip install 'a[b]>=2' d"

    def missing(name):
        raise _extras.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(_extras.importlib.metadata, "requires", missing)
    assert _extras.install_command("onnx").endswith(" -m pip install -e '.[onnx]'")


@pytest.mark.parametrize("extra", ["synth", "onnx", "plot", "sweep", "waves"])
def test_extras_are_those_of_the_project(extra):
    assert ".[" not in _extras.install_command(extra)
