"""Ctrl-C ends every process that this one started, and theirs."""

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType


def descendants(root: int | None = None) -> list[int]:
    """Process ids of all that this process started, directly or not; empty without /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in parentheses, may hold blanks and parentheses.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    queue = [os.getpid() if root is None else root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _interrupted(number: int, frame: FrameType | None) -> None:
    # Now, while the tree still hangs together: once a `make` is gone, its compilers are nobody's.
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    if number == signal.SIGTERM:
        raise SystemExit(128 + number)
    raise KeyboardInterrupt


def end_children_on_interrupt() -> None:
    """Have SIGINT and SIGTERM end all descendants before they end this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Respect a parent that had it ignored (nohup, a script's background job).
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupted)
