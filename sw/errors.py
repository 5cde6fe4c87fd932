"""The exceptions that the command line turns into one line and an exit code."""


class UserError(Exception):
    """Bad usage or input (exit code 2). The message names the value and what was allowed."""


class ResultError(Exception):
    """What ran, ran, but its result is not what it must be (exit code 1)."""
