"""The exceptions that the command line turns into one line and an exit code."""

from tilewright import Error


def reason(error: Exception) -> str:
    """What an exception says, without number and path where it is the system's."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class UserError(Error):
    """Bad usage or input (exit code 2). The message names the value and what was allowed."""


class ResultError(Error):
    """What ran, ran, but its result is not what it must be (exit code 1)."""
