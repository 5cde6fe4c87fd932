"""What is refused about programs, their files and their inputs."""

from __future__ import annotations

from tilewright.sw.errors import UserError


class ProgramFileError(UserError):
    """A file that is no program, is damaged, or was made for another machine; one line."""


class InputError(UserError, ValueError):
    """An array that does not fit its buffer; names the buffer, what came and what is needed."""
