"""Program files: what is saved is loaded, everything else is refused in one line."""

import errno
import os
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.sw.small_programs import copy_executable, state_executable
from tilewright import __version__
from tilewright.hw.config import Config, preset_config
from tilewright.hw.manifest import identity, parameters
from tilewright.sw.compiler.operations.matmul import compile_matmul
from tilewright.sw.errors import UserError
from tilewright.sw.program import ProgramFileError, file

CONFIG = preset_config("tiny")
META: dict[str, Any] = {
    "scale": 0.1,
    "names": ["a", "ü"],
    "estimate": {"cycles": 10, "busy": {"load": 3}},
}


def refusal(path, config=None):
    """The one line a file is refused with."""
    with pytest.raises(ProgramFileError) as caught:
        file.load(path, config)
    assert isinstance(caught.value, UserError), "exit code 2"
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text


@pytest.mark.parametrize(
    "executable",
    [
        copy_executable(CONFIG, **META),
        state_executable(CONFIG, bytes(range(100))),
        compile_matmul(CONFIG, 5, 6, 7, a="s16", b="s16"),
    ],
    ids=["copy", "state", "matmul"],
)
def test_there_and_back(executable, tmp_path):
    path = file.save(executable, tmp_path / "a.tilewright")
    again = file.load(path, CONFIG)
    assert again == executable
    assert file.load(path) == executable
    assert file.to_bytes(again) == path.read_bytes(), "equal programs are equal files"
    assert os.listdir(tmp_path) == ["a.tilewright"]


def test_the_container_is_safetensors(tmp_path):
    from safetensors import safe_open

    executable = state_executable(CONFIG, bytes(range(100)))
    with safe_open(file.save(executable, tmp_path / "a"), "np") as container:
        assert sorted(container.keys()) == ["commands", "region 2"]
        assert container.get_tensor("region 2").tobytes() == bytes(range(100))


def test_every_truncation(tmp_path):
    data = file.to_bytes(copy_executable(CONFIG))
    path = tmp_path / "a"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        text = refusal(path)
        assert "truncated" in text or length < 16
    path.write_bytes(b"")
    assert refusal(path) == f"{path}: not a Tilewright program"
    path.write_bytes(data + b"1")
    assert "corrupt" in refusal(path)


def test_every_byte_counts():
    data = file.to_bytes(copy_executable(CONFIG, note="text"))
    rng = np.random.default_rng(3)
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1 << int(rng.integers(8))
        with pytest.raises(ProgramFileError):
            file.from_bytes(bytes(changed))


def test_foreign_files(tmp_path):
    path = tmp_path / "a"
    for content in (b"#!/bin/sh\necho no\n", b"\0" * 100, b"\xff" * 100, os.urandom(4096)):
        path.write_bytes(content)
        assert refusal(path) == f"{path}: not a Tilewright program"
    save_file({"commands": np.zeros(64, np.uint8)}, path, {"format": "np"})
    assert refusal(path) == f"{path}: not a Tilewright program"
    with pytest.raises(FileNotFoundError):
        file.load(tmp_path / "none")


def test_another_machine(tmp_path):
    path = file.save(copy_executable(CONFIG), tmp_path / "a")
    assert refusal(path, preset_config("small")) == (
        f"{path}: made by version {__version__} for 'tiny'; version {__version__} of 'small' "
        "differs: the program has rows 4, not 8; columns 4, not 8"
    )
    # The same name, another machine.
    changed = CONFIG.with_settings(["acc_depth=1024", "functions=gelu,tanh"])
    assert refusal(path, changed).endswith(
        f"of {changed.label!r} differs: the program has functions gelu, not gelu+tanh; "
        "acc_words 2048, not 4096"
    )


def test_a_machine_that_no_program_can_tell_from_its_own(tmp_path):
    path = file.save(copy_executable(CONFIG), tmp_path / "a")
    changed = ["name=mine", "lanes=4", "row_engines=2", "sp_banks=16", "sp_depth=512"]
    changed += ["acc_banks=2", "acc_depth=1024", "axi_addr_width=48", "axi_data_width=128"]
    changed += ["axi_outstanding=1", "axi_max_burst=1", "queue_depth=1"]
    assert file.load(path, CONFIG.with_settings(changed)).config == CONFIG


def test_another_version(tmp_path, monkeypatch):
    path = tmp_path / "a"
    monkeypatch.setattr(file, "VERSION", 99)
    file.save(copy_executable(CONFIG), path)
    monkeypatch.undo()
    assert refusal(path) == f"{path}: format version 99, this software reads 2"
    # A later one whose configurations have a parameter more, and whose arithmetic differs.
    monkeypatch.setattr(file, "__version__", "99.0.0")
    executable = copy_executable(CONFIG)
    for change, text in (
        ({}, None),
        ({"arithmetic": 7}, "revision 7 of the arithmetic, not 1"),
        ({"commands": "0"}, "other command layouts"),
        ({"registers": "0"}, "another register map"),
        ({"parameters": {**parameters(CONFIG), "depth": 3}}, "depth 3, not unknown"),
    ):
        known = identity(CONFIG)
        monkeypatch.setattr(file, "identity", lambda config, new={**known, **change}: new)
        monkeypatch.setattr(
            Config, "to_dict", lambda self, old=Config.to_dict: old(self) | {"x": 1}
        )
        file.save(executable, path)
        monkeypatch.undo()
        if text is None:
            assert file.load(path).config == CONFIG
        else:
            assert refusal(path) == (
                f"{path}: made by version 99.0.0 for 'tiny'; version {__version__} of 'tiny' "
                f"differs: the program has {text}"
            )
        monkeypatch.setattr(file, "__version__", "99.0.0")


def test_whole_but_senseless(tmp_path, monkeypatch):
    """A digest that is right does not make up for buffers outside their regions."""
    path = tmp_path / "a"
    executable = copy_executable(CONFIG)
    object.__setattr__(executable, "regions", {1: 8, 3: 80})
    file.save(executable, path)
    assert "not a valid program: buffer 'x': bytes 0 to 80 of region 1, which has 8" in refusal(
        path
    )


def test_nothing_half_written(tmp_path, monkeypatch):
    path = file.save(copy_executable(CONFIG), tmp_path / "a")
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, full)
        with pytest.raises(OSError, match="No space"):
            file.save(copy_executable(CONFIG, more=1), path)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["a"]
    for place in (tmp_path / "none" / "a", tmp_path):
        with pytest.raises(OSError) as caught:
            file.save(copy_executable(CONFIG), place)
        assert caught.value.filename == str(place)
    with pytest.raises(ValueError, match="metadata"):
        file.save(copy_executable(CONFIG, more=object()), path)
    assert path.read_bytes() == before
