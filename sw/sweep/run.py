"""Sweeps: points measured in parallel, each stored as it finishes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilewright.sw.arguments import integer
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.errors import UserError
from tilewright.sw.sweep import measure
from tilewright.sw.sweep.executors import Alive, executor, run
from tilewright.sw.sweep.measure import Synthesize
from tilewright.sw.sweep.point import (
    DONE,
    FAILED,
    INFEASIBLE,
    Measurement,
    Point,
    Row,
    from_spec,
    time_of,
)
from tilewright.sw.sweep.search import batches
from tilewright.sw.sweep.space import Space, distinct
from tilewright.sw.sweep.store import Store, export

FOLDER = Path("build") / "sweep"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Tell = Callable[[float, float, str], None]
"""Told the work done and the work there is, in the same unit, and what ended last."""
Synthesis = Callable[[str, bool], Synthesize]
"""Gives what synthesizes for a target and, if so told, places and routes; or raises UserError."""


def sweep(
    space: Space | Mapping[str, Any],
    model: str = "minilm",
    *,
    folder: Path | str = FOLDER,
    layer: str = "0",
    texts: int = 40,
    effort: int = 5,
    synthesis: Synthesis | None = None,
    synth: str | None = None,
    pnr: bool = False,
    clock: float | None = None,
    rtl: int = 0,
    search: str = "grid",
    count: int | None = None,
    objectives: Sequence[str] | None = None,
    seed: int = 0,
    only: str | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    tell: Tell | None = None,
) -> list[Row]:
    """Measure points of a space.

    Parameters
    ----------
    space : Space or mapping of str to list
        The values of each axis, such as ``{"array": [8, 16], "lanes": ["C/4", "C/2"]}``: any
        parameter of `Config`, "array" (rows and columns alike), "precision", "sequence",
        "mem_latency" (cycles) and "mem_bandwidth" (beats a cycle). All combinations are points.
    model : str
        A known name, a folder or an ONNX file.
    folder : Path or str
        Keeps the store, in which every finished point stands at once; a sweep that was broken off
        goes on where it was. `points.csv` and `points.parquet` are written there at the end.
    layer : str
        What the machine runs: a layer's number, or "whole".
    texts : int
        Evaluation texts of the accuracy, which is the whole model's; 0 for none.
    effort : int
        Choices the compiler compares; 1 is quickest.
    synthesis : callable, optional
        Gives what synthesizes machines, where `synth` or the work of `only` names a target; the
        command `tilewright sweep --synth` has one.
    synth : str, optional
        Target of the synthesis, "ecp5" or "xc7".
    pnr : bool
        Place and route, too.
    clock : float, optional
        MHz for latency and inferences a second where there is no Fmax, 1e-6 to 1e6.
    rtl : int
        Finished points that are simulated in RTL, too.
    search : str
        "grid" (all points), "random" or "optuna".
    count : int, optional
        Points of random and optuna, 50 by default.
    objectives : sequence of str, optional
        Columns that optuna aims at; cycles, accuracy_mean and onchip_bytes by default.
    seed : int
        Of random and optuna.
    only : str, optional
        The point to measure, even if it is in the store; one of the store, with the work it has
        there, or of the space. What the store has of it, synthesis and RTL, is measured again.
    jobs : int, optional
        Processes; as many as there are cores by default.
    scheduler : str, optional
        Address of a Dask scheduler, instead of processes.
    tell : callable, optional
        Told the work done, the work there is, and what ended last.

    Returns
    -------
    list of dict
        A row for each point, in the order of the space: the columns of ``points.csv``, None where
        nothing was measured. They make a data frame: ``pandas.DataFrame(rows)``.

    Raises
    ------
    UserError
        If an option or no point can be, a scheduler is gone, or the disk is full; finished points
        are kept.

    Examples
    --------
    Points run in processes of their own: call it behind ``if __name__ == "__main__":``.

    >>> import tilewright as tw
    >>> rows = tw.sweep({"array": [8, 16]}, texts=0)  # doctest: +SKIP
    >>> [(row["name"], row["cycles"]) for row in rows]  # doctest: +SKIP
    """
    space = space if isinstance(space, Space) else Space(space)
    folder = Path(folder)
    work = Measurement(
        model=model, layer=layer, texts=texts, effort=effort, synth=synth, pnr=pnr, clock=clock
    )
    integer("rtl", rtl, 0)
    if jobs is not None:
        integer("jobs", jobs, 1)
    integer("seed", seed, 0, (1 << 32) - 1)
    source = batches(space, search, count, seed, objectives)
    with Store(folder) as store:
        chosen: list[Point] | None = None
        if only is not None:
            point, work = _only(only, space, work, store)
            chosen = [point]
            known = store.rows().get(only)
            if known is not None:
                # Its row is replaced: nothing that it says may be lost.
                seed = known["seed"]
                rtl = max(rtl, int(known["rtl_cycles"] is not None))
        synthesize = _synthesize(work, synthesis)
        asked = space.axes.get("precision", ["w8a8"])
        short = measure.check(work, asked if chosen is None else [chosen[0].precision])
        if chosen is None and search == "grid":
            _some_legal(space.point(choice, short.__getitem__) for choice in space.grid())
        rows: dict[Point, Row] = {}
        with executor(jobs, scheduler) as (pool, alive):
            runner = _Runner(
                store=store,
                work=work,
                folder=folder,
                pool=pool,
                alive=alive,
                seed=seed,
                synthesize=synthesize,
                tell=tell or (lambda done, total, text: None),
                again=only is not None,
            )
            try:
                for points in _batches(source, chosen, space, short, rows):
                    rows.update(runner.measure(points))
                rows.update(runner.simulate(rows, rtl))
            finally:
                # One point measured again is no table.
                if only is None:
                    runner.export()
    if all(row["status"] == INFEASIBLE for row in rows.values()):
        reason = next(iter(rows.values()))["reason"]
        raise UserError(f"no point of the space is feasible; the first one: {reason}")
    return list(rows.values())


def _batches(
    source: Any,
    chosen: list[Point] | None,
    space: Space,
    short: dict[str, str],
    rows: dict[Point, Row],
) -> Iterator[list[Point]]:
    """Points to measure; `rows` holds what came of the batches before."""
    if chosen is not None:
        yield chosen
        return
    choices = next(source, None)
    while choices is not None:
        points = [space.point(choice, short.__getitem__) for choice in choices]
        yield distinct(points)
        try:
            choices = source.send([rows[point] for point in points])
        except StopIteration:
            return


def _only(name: str, space: Space, work: Measurement, store: Store) -> tuple[Point, Measurement]:
    """A point by its id: of the store, which knows its work too, or of the space."""
    if name not in store.rows():
        short = measure.check(work, space.axes.get("precision", ["w8a8"]))
        for choice in space.grid():
            point = space.point(choice, short.__getitem__)
            if point.id(work) == name:
                return point, work
    return from_spec(store.spec(name))


def _synthesize(work: Measurement, synthesis: Synthesis | None) -> Synthesize | None:
    if work.synth is None:
        return None
    if synthesis is None:
        raise UserError(f"synth {work.synth}: nothing was given that synthesizes")
    return synthesis(work.synth, work.pnr)


def _some_legal(points: Iterable[Point]) -> None:
    reasons = []
    for point in points:
        try:
            _ = point.config
            return
        except ValueError as error:
            reasons.append(str(error))
    raise UserError(f"no point of the space is legal; the first one: {reasons[0]}")


@dataclass
class _Runner:
    """Measures points; what several of them share is done once."""

    store: Store
    work: Measurement
    folder: Path
    pool: Executor
    alive: Alive
    seed: int
    synthesize: Synthesize | None
    tell: Tell
    again: bool
    ids: dict[str, None] = field(default_factory=dict)
    """Of the points of this sweep so far, in order."""
    results: dict[Hashable, Any] = field(default_factory=dict)
    """Of jobs by their keys: columns, or an exception."""
    done: float = 0
    total: float = 0

    def __post_init__(self) -> None:
        self.versions = measure.versions(self.work.model)
        self.stored = {} if self.again else self.store.rows()

    def measure(self, points: Sequence[Point]) -> dict[Point, Row]:
        """Rows of points: from the store, or measured now."""
        rows: dict[Point, Row] = {}
        todo = []
        self.ids |= dict.fromkeys(point.id(self.work) for point in points)
        for point in points:
            row = self.stored.get(point.id(self.work))
            current = row is not None and row["versions"] == self.versions
            if row is not None and current and row["status"] in (DONE, INFEASIBLE):
                rows[point] = row
                continue
            try:
                _ = point.config
                todo.append(point)
            except ValueError as error:
                rows[point] = self._keep(point, status=INFEASIBLE, reason=str(error))
        self.total += sum(map(_weight, todo))
        if todo:
            self._prepare(todo)
            for point in self._run({point: self._jobs(point) for point in todo}):
                rows[point] = self._finish(point)
        # Points end in any order; the table is the space's.
        return {point: rows[point] for point in points}

    def export(self) -> None:
        """Write the tables; the store knows what is finished, whenever this is interrupted."""
        stored = self.store.rows()
        found = [stored[one] for one in self.ids if one in stored]
        rows = [row for row in found if row["versions"] == self.versions]
        if rows:
            export(rows, self.folder)

    def _prepare(self, points: Sequence[Point]) -> None:
        precisions = list(dict.fromkeys(point.precision for point in points))
        job = "quantize", *precisions
        self.tell(self.done, self.total, f"quantize {self.work.model}")
        for _ in self._run({job: {job: (measure.quantize_all, self.work.model, precisions)}}):
            if isinstance(self.results[job], Exception):
                raise self.results[job]

    def _jobs(self, point: Point) -> dict[Hashable, tuple[Any, ...]]:
        """What a point needs: jobs by their keys, which points may share."""
        jobs: dict[Hashable, tuple[Any, ...]] = {}
        if self.work.texts:
            job = measure.accuracy, self.work, point.precision
            jobs["accuracy", point.precision] = job
        if self.synthesize is not None:
            kind = f"{self.work.synth}-pnr" if self.work.pnr else f"{self.work.synth}"
            files = self.folder.absolute() / "synth" / kind / point.name
            jobs["synth", point.machine] = (
                measure.synthesis,
                self.synthesize,
                point.config,
                files,
            )
        jobs["cycles", point] = (measure.cycles, point, self.work)
        return jobs

    def _run(self, wanted: dict[Any, dict[Hashable, tuple[Any, ...]]]) -> Iterator[Any]:
        """Run jobs, each key once; give what wanted them as soon as all of its own are through."""
        futures: dict[Future[Any], Hashable] = {}
        submitted = set(self.results)
        for jobs in wanted.values():
            for key, job in jobs.items():
                if key not in submitted:
                    submitted.add(key)
                    futures[self.pool.submit(run, *job)] = key
        waiting = {one: set(jobs) - set(self.results) for one, jobs in wanted.items()}
        while waiting:
            for one in [one for one, keys in waiting.items() if not keys]:
                del waiting[one]
                yield one
            ended, _ = wait(futures, timeout=1, return_when=FIRST_COMPLETED)
            for future in ended:
                key = futures.pop(future)
                self.results[key] = self._result(future)
                for keys in waiting.values():
                    keys.discard(key)
            if not ended:
                self.alive()

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.alive()
            raise UserError(
                "a worker or its cluster ended before the job, perhaps for want of memory; "
                "finished points are kept, the same command goes on"
            ) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            return error

    def _finish(self, point: Point) -> Row:
        """The row of a point whose jobs are through."""
        found: dict[str, Any] = {}
        verdicts = []
        for key in self._jobs(point):
            result = self.results[key]
            columns = _refused(result) if isinstance(result, Exception) else result
            found |= columns
            if "status" in columns:
                verdicts.append((columns["status"], columns["reason"]))
        # What failed is tried again, and decides before what cannot be.
        status, reason = min(
            verdicts, key=lambda verdict: verdict[0] != FAILED, default=(DONE, None)
        )
        row = self._keep(point, **found | {"status": status, "reason": reason})
        self.done += _weight(point)
        self.tell(self.done, self.total, f"{point.name} {point.precision}: {row['status']}")
        return row

    def _keep(self, point: Point, **found: Any) -> Row:
        row = point.row(
            self.work, str(self.folder), seed=self.seed, versions=self.versions, **found
        )
        row |= time_of(row, self.work)
        self.store.put(row, point.spec(self.work))
        return row

    def simulate(self, rows: dict[Point, Row], count: int) -> dict[Point, Row]:
        """Rows of some finished points with their cycles in RTL; which ones, the ids say."""
        able = [p for p, row in rows.items() if row["status"] == DONE and p.mem_bandwidth == 1]
        chosen = sorted(able, key=lambda point: point.id(self.work))[:count]
        chosen = [point for point in chosen if rows[point]["rtl_cycles"] is None]
        jobs: dict[Any, dict[Hashable, tuple[Any, ...]]] = {
            point: {("rtl", point): (measure.rtl, point, self.work)} for point in chosen
        }
        self.total += sum(map(_weight, chosen))
        made: dict[Point, Row] = {}
        for point in self._run(jobs):
            result, row = self.results["rtl", point], rows[point]
            if isinstance(result, Exception):
                row = {**row, "status": FAILED, "reason": f"RTL: {_line(result)}"}
            else:
                error = row["cycles"] / result["rtl_cycles"] - 1
                row = {**row, **result, "rtl_error": error}
            self.store.put(row, point.spec(self.work))
            made[point] = row
            self.done += _weight(point)
            self.tell(self.done, self.total, f"{point.name} in RTL")
        return made


def _weight(point: Point) -> float:
    """What share of the time a point takes, roughly: small arrays have long programs."""
    return float((point.values["rows"] * point.values["columns"]) ** -0.5 * point.sequence)


def _refused(error: Exception) -> dict[str, Any]:
    """Columns of a point by what a job of it raised."""
    status = INFEASIBLE if isinstance(error, CompileError) else FAILED
    return {"status": status, "reason": _line(error)}


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) and text else f"{type(error).__name__}: {text}"
