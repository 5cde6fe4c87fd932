"""The cache on disk: where it is, and how several processes share it.

An entry is a folder `<cache>/<kind>/<name>`, for example `simulators/3f2a…` or `models/minilm`. It
appears whole or not at all: it is written under another name beside its place and renamed. A file
in it says the SHA-256 of all others, so that what is damaged later is built anew; another one is
the stamp of the last time they were hashed (inode, size, times of each file), so that files that
nobody has touched since are not hashed again. Nothing here depends on the rest of the project.
"""

import atexit
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = (
    "accuracy",
    "cocotb",
    "models",
    "programs",
    "quantized",
    "simulators",
    "synth",
    "verilog",
)
"""Kinds of entries the project makes."""

_STAGING = ".staging"
_LOCK = ".lock"
_SUMS = ".sha256"
_STAMP = ".stamp"
_SETTLED_NS = 2 * 10**9
"""Files younger than that may change again without another time: file systems count in steps."""
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class CacheWarning(UserWarning):
    """The cache cannot be written; what is made is not kept."""


def cache_dir() -> Path:
    """Folder of everything cached; it need not exist.

    `TILEWRIGHT_CACHE` if set, else `tilewright` in `XDG_CACHE_HOME`, else `~/.cache/tilewright`.

    Raises
    ------
    FileNotFoundError
        If it lies in the home folder of somebody who has none.
    """
    own = os.environ.get("TILEWRIGHT_CACHE")
    if own:
        return _expanded(own, f"TILEWRIGHT_CACHE={own}").absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification has a relative path ignored.
    if shared and os.path.isabs(shared):
        return Path(shared) / "tilewright"
    return _expanded("~/.cache/tilewright", "~/.cache/tilewright")


def _expanded(path: str, said: str) -> Path:
    found = os.path.expanduser(path)
    # Left as it is where there is no such home: a folder named ~ is nobody's wish.
    if found.startswith("~"):
        raise FileNotFoundError(errno.ENOENT, "there is no such home folder", said)
    return Path(found)


def _beside(final: Path, suffix: str) -> Path:
    return final.with_name(f".{final.name}{suffix}")


def _staged(final: Path) -> Path:
    """A name beside `final` that is no entry's."""
    return _beside(final, f".{os.getpid()}-{secrets.token_hex(4)}{_STAGING}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_entry(final: Path) -> None:
    """Remove an entry in one step for all who look for it: a part of one counts as whole."""
    tmp = _staged(final)
    os.rename(final, tmp)
    _remove(tmp)


@contextlib.contextmanager
def lock(
    path: Path, *, timeout: float | None = None, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the lock of the entry `path` against every other process and thread.

    The lock is advisory and ends with the process that holds it, however that ends. It is not
    reentrant.

    Parameters
    ----------
    path : Path
        The entry. The lock itself is a small file beside it, which stays.
    timeout : float, optional
        Seconds to wait; 0 tries once. Without it, wait for ever.
    on_wait : callable, optional
        Called once if another process holds the lock.

    Raises
    ------
    TimeoutError
        When another process still holds the lock after `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = _beside(path, _LOCK)
    handle = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = None if timeout is None else time.monotonic() + timeout
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told and on_wait is not None:
                    on_wait()
                told = True
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"another process has held {lock_path} for {timeout:g} s"
                    ) from None
                # Polling, not a blocking flock, so that Ctrl-C and the time-out work in any thread.
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def publish(tmp: Path, final: Path) -> Path:
    """Move the finished `tmp` (a file or folder) to `final` in one step and return `final`.

    Both must be on one file system. A file takes the place of an older one. A folder does not: if
    `final` is already there, another process made the same, `tmp` is removed and theirs stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    if not tmp.is_dir():
        os.replace(tmp, final)
        return final
    try:
        os.rename(tmp, final)
    except OSError:
        if not final.is_dir():
            raise
        _remove(tmp)
    return final


@contextlib.contextmanager
def staging(final: Path) -> Iterator[Path]:
    """An empty folder beside `final` that becomes `final` at the end of the block.

    If the block raises, Ctrl-C included, the folder is removed and nothing appears.
    """
    tmp = _staged(final)
    tmp.mkdir(parents=True)
    try:
        yield tmp
        publish(tmp, final)
    except OSError as error:
        # Of a full disk the system names no file.
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(final)
        raise
    finally:
        if tmp.exists():
            _remove(tmp)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_sums(folder: Path) -> None:
    """Write what `sha256sum -c` reads."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / _SUMS).write_text("".join(lines), encoding="utf-8")
    (folder / _STAMP).write_text("")


def _stamp(entry: Path, names: Sequence[str]) -> str:
    """What the system knows of files. A change of content changes it, whoever restores the time of
    modification: the inode's own time cannot be set.
    """
    lines = []
    for name in (_SUMS, *names):
        found = os.stat(entry / name)
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        lines.append(f"{found.st_ino} {found.st_size} {times} {name}\n")
        if time.time_ns() - found.st_ctime_ns < _SETTLED_NS:
            return ""
    return "".join(lines)


def damaged(entry: Path, *, full: bool = False) -> bool:
    """Whether a file of an entry of `build_once` is gone or is not what was built.

    Parameters
    ----------
    entry : Path
    full : bool
        Hash every file; else only where the stamp is not that of the files.
    """
    try:
        sums = dict(_sum(line) for line in (entry / _SUMS).read_text("utf-8").splitlines())
        stamp = _stamp(entry, list(sums))
        if not full and stamp and (entry / _STAMP).read_text("utf-8") == stamp:
            return False
        if any(_digest(entry / name) != digest for name, digest in sums.items()):
            return True
    except (OSError, ValueError):
        return True
    # Of a cache that cannot be written, everything is hashed each time.
    with contextlib.suppress(OSError):
        (entry / _STAMP).write_text(stamp, encoding="utf-8")
    return False


def _sum(line: str) -> tuple[str, str]:
    digest, name = line.split("  ", 1)
    return name, digest


def build_once(
    final: Path,
    build: Callable[[Path], object],
    *,
    full: bool = False,
    timeout: float | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Path:
    """Return `final`, built by `build(folder)` if it is not there yet or damaged.

    Of several processes that ask at the same time one builds and the others wait for it. `build`
    fills the folder it is given; absolute paths of that folder must not end up inside, since it is
    renamed afterwards. A damaged entry stays where building fails. Where the cache cannot be
    written, what is built lies in a temporary folder as long as this process runs, and a
    `CacheWarning` says so.

    Parameters
    ----------
    final : Path
        The entry.
    build : callable
    full : bool
        Of `damaged`.
    timeout, on_wait
        Of `lock`.

    Raises
    ------
    TimeoutError
        When another process builds for longer than `timeout` seconds.
    """

    def there() -> bool:
        return final.is_dir() and not damaged(final, full=full)

    if there():
        return final
    if not writable(final):
        return _build_elsewhere(final, build)
    with lock(final, timeout=timeout, on_wait=on_wait):
        if not there():
            _remove_leftovers(final.parent, own=final)
            with staging(final) as folder:
                build(folder)
                _write_sums(folder)
                if final.is_dir():
                    _remove_entry(final)
    return final


def writable(entry: Path) -> bool:
    """Whether an entry can be made in its place; if not, a `CacheWarning` says so."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(_beside(entry, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        text = f"the cache {cache_dir()} cannot be written ({error.strerror}): nothing is kept"
        warnings.warn(text, CacheWarning, stacklevel=2)
        return False
    return True


_elsewhere: dict[Path, Path] = {}
"""Folders of entries that could not be made in their places."""


def _build_elsewhere(final: Path, build: Callable[[Path], object]) -> Path:
    if final not in _elsewhere:
        made = Path(tempfile.mkdtemp(prefix="tilewright-"))
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        build(made)
        _elsewhere[final] = made
    return _elsewhere[final]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing in the cache: its kind, name, place, size in bytes and time of last change."""

    kind: str
    name: str
    path: Path
    size: int
    modified: float


def _size(path: Path) -> int:
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            # A file may vanish while another process cleans up.
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def entries() -> list[Entry]:
    """Everything cached, by kind and name; unfinished entries and locks are left out."""
    found = []
    root = cache_dir()
    if not root.is_dir():
        return []
    for kind in sorted(root.iterdir()):
        if not kind.is_dir() or kind.name.startswith("."):
            continue
        for path in sorted(kind.iterdir()):
            if path.name.startswith("."):
                continue
            # An entry may vanish as well.
            with contextlib.suppress(FileNotFoundError):
                found.append(
                    Entry(
                        kind=kind.name,
                        name=path.name,
                        path=path,
                        size=_size(path),
                        modified=path.lstat().st_mtime,
                    )
                )
    return found


def _leftovers(kind: Path) -> Iterator[tuple[Path, Path]]:
    """Each unfinished folder below `kind`, with the entry it was to become."""
    for path in sorted(kind.glob(f".*{_STAGING}")):
        name = path.name[1:].removesuffix(_STAGING).rpartition(".")[0]
        yield path, kind / name


def _remove_leftovers(kind: Path, *, own: Path | None = None) -> None:
    """Remove unfinished folders that nobody works on: whoever does holds the lock of the entry.

    The lock of the entry `own` is held by the caller.
    """
    for path, final in _leftovers(kind):
        with contextlib.ExitStack() as held, contextlib.suppress(TimeoutError, FileNotFoundError):
            if final != own:
                held.enter_context(lock(final, timeout=0))
            _remove(path)


def clear(kind: str | None = None) -> tuple[list[Entry], list[Entry]]:
    """Remove what is cached, and what broken-off processes left.

    Parameters
    ----------
    kind : str, optional
        Only entries of this kind; all of `KINDS` by default. Other folders may be somebody else's.

    Returns
    -------
    removed, busy : list of Entry
        What went, and what stays because another process is working on it.
    """
    removed: list[Entry] = []
    busy: list[Entry] = []
    kinds = KINDS if kind is None else (kind,)
    for entry in entries():
        if entry.kind not in kinds:
            continue
        try:
            with lock(entry.path, timeout=0):
                _remove_entry(entry.path)
        except TimeoutError:
            busy.append(entry)
        except FileNotFoundError:
            # Another process was faster.
            continue
        else:
            removed.append(entry)
    for name in kinds:
        _remove_leftovers(cache_dir() / name)
    return removed, busy
