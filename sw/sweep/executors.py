"""Where a sweep's jobs run: processes of this machine, or the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.process import parent_process
from typing import Any

from tilewright.extras import install
from tilewright.sw.errors import UserError
from tilewright.sw.sweep.measure import versions

ANSWER = 10
"""Seconds a scheduler has to answer; whether it still does is asked as often."""
START = 60
"""Seconds its workers have to import the project."""

Alive = Callable[[], None]
"""Raises UserError once jobs can no longer come back, within `ANSWER` seconds."""


@contextmanager
def executor(jobs: int | None, scheduler: str | None) -> Iterator[tuple[Executor, Alive]]:
    """An executor, and what tells whether it is alive.

    However the block is left, no process that it started stays behind.

    Parameters
    ----------
    jobs : int, optional
        Processes; as many as there are cores by default.
    scheduler : str, optional
        Address of a Dask scheduler, instead of processes.

    Raises
    ------
    UserError
        If no scheduler answers there, it has no worker, or a worker has another version.
    """
    with _processes(jobs) if scheduler is None else _cluster(scheduler) as found:
        yield found


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a job's function in a worker."""
    global _working
    try:
        _working = True
        return function(*arguments)
    except SystemExit:
        # The pool would take it for a result, and the worker for its next job.
        os._exit(_TERMINATED)
    finally:
        _working = False


_TERMINATED = 128 + signal.SIGTERM
_working = False


def _terminate(number: int, frame: object) -> None:
    if _working:
        # An exception, so that a tool in a process of its own is ended on the way.
        sys.exit(_TERMINATED)
    os._exit(_TERMINATED)


def _start() -> None:
    """Prepare a worker: it leaves when it is told to, or when its parent is gone."""
    # The terminal sends Ctrl-C to all; who ends the workers is the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _processes(jobs: int | None) -> Iterator[tuple[Executor, Alive]]:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        # Of the workers: there is one for each core.
        os.environ.setdefault(name, "1")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs or os.cpu_count(), multiprocessing.get_context("spawn"), initializer=_start
    )
    try:
        # The first job starts the workers. They inherit that Ctrl-C waits: until `_start` it would
        # end each with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.submit(os.getpid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield pool, lambda: None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    pool.shutdown()


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, Alive]]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError(f"scheduler {address}: it needs Dask; type: {install('sweep')}") from None
    with _silent("distributed", "tornado", "asyncio"), _client(Client, address) as found:
        yield found


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Nothing from the loggers of some packages: what ends a sweep is said in one line."""
    known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in names]
    loggers = [one for one in map(logging.getLogger, known) if not one.disabled]
    for one in loggers:
        one.disabled = True
    try:
        yield
    finally:
        for one in loggers:
            one.disabled = False


@contextmanager
def _client(kind: Any, address: str) -> Iterator[tuple[Executor, Alive]]:
    try:
        _within(_reach, address)
        client = _within(partial(kind, address, timeout=ANSWER, set_as_default=False))
    except Exception as error:
        # What Dask raises of an address it cannot use is of any kind.
        why = f": {error}" if str(error) else f" in {ANSWER} s"
        if isinstance(error, MemoryError):
            # Bytes of another protocol, taken for a length.
            why = " of a Dask scheduler: something else is there"
        raise UserError(f"scheduler {address}: no answer{why}") from error

    answered = time.monotonic()

    def alive() -> None:
        nonlocal answered
        try:
            if client.status != "running":
                raise OSError("the connection is lost")
            if time.monotonic() - answered > ANSWER:
                _within(client.run_on_scheduler, os.getpid)
                answered = time.monotonic()
        except Exception as error:
            why = str(error) or f"no answer in {ANSWER} s"
            raise UserError(f"scheduler {address}: {why}; finished points stay") from error

    try:
        try:
            _within(client.wait_for_workers, 1, ANSWER)
        except (OSError, TimeoutError):
            raise UserError(f"scheduler {address}: it has no worker") from None
        _same_everywhere(client, address)
        yield client.get_executor(pure=False), alive
    finally:
        # Of one that does not answer nothing is left but this process's own end.
        with suppress(Exception):
            _within(client.close, ANSWER)


def _within(function: Callable[..., Any], *arguments: Any, limit: float | None = None) -> Any:
    """What a call returns or raises; TimeoutError if that takes longer than `ANSWER`, or a limit.

    Dask's own time-outs do not hold where the other side is there and silent.
    """
    result: Future[Any] = Future()

    def call() -> None:
        try:
            result.set_result(function(*arguments))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return result.result(ANSWER if limit is None else limit)


def _reach(address: str) -> None:
    """Connect once, and raise what comes of it.

    A client that fails to is left half made, and waits for itself when it is deleted.
    """
    from distributed.comm import connect
    from distributed.security import Security
    from distributed.utils import LoopRunner, sync

    async def reach() -> None:
        options = Security().get_connection_args("client")
        comm = await asyncio.wait_for(connect(address, **options), ANSWER)
        await comm.close()

    runner = LoopRunner()
    runner.start()
    try:
        sync(runner.loop, reach)
    finally:
        runner.stop()


def _same_everywhere(client: Any, address: str) -> None:
    """Refuse a cluster that has not this version of the project, its scheduler included."""
    own = versions()
    try:
        found = {
            "its scheduler": _within(client.run_on_scheduler, versions, limit=START),
            **_within(client.run, versions, limit=START),
        }
    except TimeoutError:
        raise UserError(f"scheduler {address}: it or a worker does not answer") from None
    except Exception as error:
        # Whatever unpickling made of it, there or on the way back.
        raise UserError(
            f"scheduler {address}: the project is not installed there: {error}"
        ) from error
    for place, other in found.items():
        if other != own:
            raise UserError(f"scheduler {address}: {place} has other versions: {other}")
