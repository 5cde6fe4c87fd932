"""Results in a file, one JSON object a line, so that an interrupted run can go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilewright.sw.errors import reason
from tilewright.sw.models.errors import ModelError

_CHECK = "check"
"""Member of every line but the header: a digest of the others."""


class JsonLines:
    """A file of results that survives being interrupted.

    Parameters
    ----------
    path : Path
        Made, with its folder, where it is missing.
    header : mapping
        First line: what the results belong to.

    Attributes
    ----------
    records : list of dict
        What the file holds behind the header.

    Raises
    ------
    ModelError
        If the file cannot be read or written, has another header or none, or a line that is no JSON
        object, or not what was written. It is unchanged then.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = path.read_bytes() if path.exists() else b""
            # What stands behind the last line end was cut off while it was written.
            whole = raw[: raw.rfind(b"\n") + 1]
            lines = [json.loads(line) for line in whole.splitlines()]
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read {path}: {reason(error)}") from error
        if not all(isinstance(line, dict) for line in lines):
            raise ModelError(f"{path}: a line is no JSON object")
        if lines and lines[0] != dict(header):
            raise ModelError(f"{path} holds results of {lines[0]}, not of {dict(header)}")
        if not lines and not _line(header).startswith(raw):
            raise ModelError(f"{path} holds no results, and would be overwritten")
        for number, line in enumerate(lines[1:], start=2):
            if line.pop(_CHECK, None) != _check(line):
                raise ModelError(f"{path}: line {number} is damaged")
        # Only now is it known that the file is one of these.
        if len(whole) < len(raw):
            try:
                os.truncate(path, len(whole))
            except OSError as error:
                raise ModelError(f"cannot write {path}: {reason(error)}") from error
        if not lines:
            self._write(header)
        self.records += lines[1:]

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line, at once."""
        self._write({**record, _CHECK: _check(record)})

    def _write(self, record: Mapping[str, Any]) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(_line(record))
        except OSError as error:
            raise ModelError(f"cannot write {self._path}: {reason(error)}") from error


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record) + "\n").encode()


def _check(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(record)).hexdigest()[:16]
