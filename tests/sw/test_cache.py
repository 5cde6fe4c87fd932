"""The cache: its place, entries that appear whole or not at all, several processes at once."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tilewright.sw import cache


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("TILEWRIGHT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / ".cache" / "tilewright"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_dir() == tmp_path / ".cache" / "tilewright"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_dir() == Path("/xdg/tilewright")
    monkeypatch.setenv("TILEWRIGHT_CACHE", "~/own")
    assert cache.cache_dir() == tmp_path / "own"
    monkeypatch.setenv("TILEWRIGHT_CACHE", "own")
    assert cache.cache_dir() == Path.cwd() / "own"
    monkeypatch.setenv("TILEWRIGHT_CACHE", "~no-such-user/own")
    with pytest.raises(FileNotFoundError, match="no such home folder: 'TILEWRIGHT_CACHE=~no-such"):
        cache.cache_dir()
    assert not (tmp_path / "own").exists()


def test_kinds():
    from tilewright.sw.cli import synth
    from tilewright.sw.driver.simulators import COCOTB, SIMULATORS, VERILOG
    from tilewright.sw.models import fetch
    from tilewright.sw.quantize import quantize
    from tilewright.sw.sweep.measure import ACCURACY, PROGRAMS

    own = {fetch.KIND, quantize.KIND, synth.KIND}
    assert {ACCURACY, COCOTB, PROGRAMS, SIMULATORS, VERILOG, *own} == set(cache.KINDS)


def test_imports_nothing_heavy():
    code = (
        "import sys, tilewright.sw.cache;"
        "sys.exit(bool({'numpy', 'click', 'rich'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_publish(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    final = tmp_path / "kind" / "final"
    assert cache.publish(tmp_path / "a", final) == final
    # The second comes too late: the first stays.
    assert cache.publish(tmp_path / "b", final) == final
    assert (final / "f").read_text() == "a"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kind"]


def test_publish_replaces_a_file(tmp_path):
    (tmp_path / "new").write_text("new")
    (tmp_path / "final").write_text("old")
    cache.publish(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final").read_text() == "new"


def test_publish_over_a_file_fails(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "final").write_text("a file")
    with pytest.raises(NotADirectoryError):
        cache.publish(tmp_path / "new", tmp_path / "final")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_appears_when_building_fails(root, error):
    final = root / "kind" / "name"

    def build(folder):
        (folder / "half").write_text("…")
        raise error

    with pytest.raises(error):
        cache.build_once(final, build)
    assert cache.entries() == []
    assert [p.name for p in final.parent.iterdir()] == [".name.lock"]
    # It holds no lock either.
    cache.build_once(final, lambda folder: (folder / "f").write_text("whole"))
    assert (final / "f").read_text() == "whole"


def test_build_once_builds_once(root):
    final = root / "kind" / "name"
    built = []
    waited = threading.Event()
    started = threading.Event()

    def build(folder):
        built.append(folder)
        started.set()
        assert waited.wait(30)

    def other():
        cache.build_once(final, build, on_wait=waited.set)

    first = threading.Thread(target=cache.build_once, args=(final, build))
    first.start()
    assert started.wait(30)
    second = threading.Thread(target=other)
    second.start()
    first.join()
    second.join()
    assert len(built) == 1
    assert final.is_dir()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "no sums", "wrong sums"])
def test_a_damaged_entry_is_built_anew(root, damage):
    final = root / "kind" / "name"

    def build(folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "f").write_bytes(b"content")

    file = cache.build_once(final, build) / "sub" / "f"
    assert not cache.damaged(final)
    if damage == "gone":
        file.unlink()
    elif damage == "no sums":
        (final / ".sha256").unlink()
    elif damage == "wrong sums":
        (final / ".sha256").write_text("rubbish")
    else:
        file.write_bytes(b"cont" if damage == "cut" else b"c0ntent")
    assert cache.damaged(final)
    with pytest.raises(RuntimeError):
        cache.build_once(final, raising)
    assert final.is_dir()
    assert cache.build_once(final, build) == final
    assert file.read_bytes() == b"content"
    assert not cache.damaged(final)
    cache.build_once(final, lambda folder: pytest.fail("built twice"))


@pytest.fixture
def settled(root, monkeypatch):
    """An entry whose files are old enough for a stamp, and the files that were hashed."""
    monkeypatch.setattr(cache, "_SETTLED_NS", 0)

    def build(folder):
        (folder / "f").write_bytes(b"content")

    final = cache.build_once(root / "kind" / "name", build)
    hashed = []
    digest = cache._digest

    def counted(path):
        hashed.append(path.name)
        return digest(path)

    monkeypatch.setattr(cache, "_digest", counted)
    assert not cache.damaged(final)
    assert hashed.pop() == "f"
    return final, hashed


def test_files_nobody_touched_are_hashed_once(settled):
    final, hashed = settled
    assert not cache.damaged(final)
    assert hashed == []
    assert not cache.damaged(final, full=True)
    assert hashed == ["f"]


@pytest.mark.parametrize("file", ["f", ".sha256", ".stamp"])
def test_a_flipped_bit_is_seen_whatever_its_time_says(settled, file):
    """The time of modification can be set back, that of the inode cannot."""
    final, hashed = settled
    path = final / file
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    # The stamp itself is no content: all is hashed again, and it is written anew.
    assert cache.damaged(final) == (file != ".stamp")
    assert hashed == ["f"]


def test_files_just_written_get_no_stamp(root):
    """Times count in steps: within one, a file may change twice."""
    final = cache.build_once(root / "kind" / "name", lambda folder: (folder / "f").touch())
    assert not cache.damaged(final)
    assert (final / ".stamp").read_text() == ""


def test_a_copied_entry_gets_a_stamp_of_its_own(settled, tmp_path):
    final, hashed = settled
    copy = shutil.copytree(final, tmp_path / "copy")
    for count in (1, 1):
        assert not cache.damaged(copy)
        assert len(hashed) == count


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_cache_that_cannot_be_written(root, monkeypatch, number):
    """What is there is used, the rest is built for this process, and somebody says so."""
    there = cache.build_once(root / "kind" / "there", lambda folder: (folder / "f").touch())

    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cache.build_once(there, raising) == there
    built: list[Path] = []
    for _ in range(2):
        with pytest.warns(cache.CacheWarning, match=f"the cache {root} cannot be written"):
            folder = cache.build_once(root / "kind" / "new", built.append)
        assert [folder] == built
        assert not folder.is_relative_to(root)
    assert not (root / "kind" / "new").exists()
    with pytest.warns(cache.CacheWarning), pytest.raises(RuntimeError):
        cache.build_once(root / "kind" / "other", raising)


def test_a_full_disk_names_the_entry(root):
    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: '.*kind/name'"):
        cache.build_once(root / "kind" / "name", full)


def raising(folder):
    raise RuntimeError("no")


def test_lock_times_out(root):
    path = root / "kind" / "name"
    with cache.lock(path):
        with pytest.raises(TimeoutError, match=r"\.name\.lock"):
            with cache.lock(path, timeout=0.1):
                pass
    with cache.lock(path, timeout=0):
        pass


@pytest.mark.parametrize("remove", ["clear", "name", "other"])
def test_the_lock_of_a_killed_process_is_free(root, remove):
    path = root / "models" / "name"
    code = (
        "import sys, time, pathlib; from tilewright.sw import cache\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with cache.lock(path), cache.staging(path) as f:\n"
        "    (f / 'half').touch(); print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError), cache.lock(path, timeout=0):
            pass
        # Somebody works on it: its unfinished folder stays.
        cache.clear()
        assert len(list(path.parent.glob("*.staging"))) == 1
        process.kill()
    with cache.lock(path, timeout=10):
        pass
    assert cache.entries() == []
    if remove == "clear":
        cache.clear()
    else:
        # The next run removes it, whatever it builds.
        cache.build_once(path.with_name(remove), lambda folder: None)
    assert list(path.parent.glob(".*.staging")) == []


def test_entries_and_clear(root):
    assert cache.entries() == []
    assert cache.clear() == ([], [])
    for kind, name, length in [("b", "y", 1), ("a", "x", 5), ("a", "z.v", 3)]:
        with cache.staging(root / kind / name) as folder:
            (folder / "f").write_bytes(bytes(length))
    found = cache.entries()
    assert [(e.kind, e.name, e.size) for e in found] == [
        ("a", "x", 5),
        ("a", "z.v", 3),
        ("b", "y", 1),
    ]
    assert all(abs(e.modified - time.time()) < 60 for e in found)
    with cache.lock(root / "a" / "x"):
        removed, busy = cache.clear("a")
    assert [e.name for e in removed] == ["z.v"]
    assert [e.name for e in busy] == ["x"]
    assert [e.name for e in cache.entries()] == ["x", "y"]


def test_clear_leaves_what_is_not_the_project_s(root):
    for kind in ("models", "projects"):
        (root / kind / "a").mkdir(parents=True)
    removed, _ = cache.clear()
    assert [e.kind for e in removed] == ["models"]
    assert [e.kind for e in cache.entries()] == ["projects"]
    removed, _ = cache.clear("projects")
    assert [e.kind for e in removed] == ["projects"]


def test_an_interrupted_removal_leaves_no_part_of_an_entry(root, monkeypatch):
    final = cache.build_once(root / "models" / "a", lambda folder: (folder / "f").touch())

    def interrupted(path):
        (Path(path) / ".sha256").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.clear()
    assert not final.exists()
    assert cache.entries() == []
    cache.clear()
    assert [path.name for path in final.parent.iterdir()] == [".a.lock"]


def test_entries_that_vanish_meanwhile(root, monkeypatch):
    for name in ("a", "b", "c"):
        (root / "models" / name).mkdir(parents=True)
    size = cache._size

    def vanishing(path):
        if path.name == "a":
            path.rmdir()
        return size(path)

    monkeypatch.setattr(cache, "_size", vanishing)
    found = cache.entries()
    assert [e.name for e in found] == ["b", "c"]
    monkeypatch.setattr(cache, "entries", lambda: found)
    found[0].path.rmdir()
    removed, busy = cache.clear()
    assert [e.name for e in removed] == ["c"]
    assert busy == []
