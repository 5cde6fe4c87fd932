"""What is refused about programs and their files."""

from __future__ import annotations

from tilewright.sw.errors import UserError


class ProgramFileError(UserError):
    """A file that is no program, is damaged, or was made for another machine; one line."""
