"""The compiler's refusal."""

from tilewright.sw.errors import UserError


class CompileError(UserError):
    """A layer cannot be mapped onto a configuration; the message names sizes and bounds."""
