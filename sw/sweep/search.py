"""Which points of a space are measured: all, some at random, or those a search asks for."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

from tilewright._extras import install_command
from tilewright.sw.arguments import choice, integer
from tilewright.sw.errors import InputError, UserError
from tilewright.sw.sweep.point import DONE, Row
from tilewright.sw.sweep.space import Space

SEARCHES = ("grid", "random", "optuna")
OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    **dict.fromkeys(
        ("cycles", "onchip_bytes", "dram_bytes", "lut", "ff", "dsp", "bram", "latency_ms"),
        "minimize",
    ),
    **dict.fromkeys(
        ("utilization", "accuracy_mean", "accuracy_worst", "fmax_mhz", "inferences_per_s"),
        "maximize",
    ),
}
"""What a search may aim at, and which way."""
DEFAULT = ("cycles", "accuracy_mean", "onchip_bytes")
BATCH = 4
"""Points a guided search asks for at a time; it learns from all of them, so that what it finds does
not depend on the order in which they end."""
GRID = 1_000_000
"""Most points of a grid."""
_ASKS = 25
"""Questions for each new point before the space counts as exhausted."""

Choice = Mapping[str, Any]
Batches = Generator[list[Choice], list[Row], None]
"""Gives combinations to measure, and takes their rows, in the same order."""


def batches(
    space: Space, search: str, count: int | None, seed: int, objectives: Sequence[str] | None = None
) -> Batches:
    """The points of a search, batch by batch.

    Parameters
    ----------
    space : Space
    search : str
        One of `SEARCHES`.
    count : int, optional
        Of random and optuna: points, 50 by default.
    seed : int
        Of random and optuna.
    objectives : sequence of str, optional
        Of optuna: names of `OBJECTIVES`, `DEFAULT` by default.

    Raises
    ------
    UserError
        If there is no such search or objective, a grid is too large, or Optuna is not installed.
    """
    choice("search", search, SEARCHES)
    if count is not None:
        integer("points", count, 1)
        if search == "grid":
            raise InputError(f"points = {count}: search grid takes all, random and optuna some")
    if search == "grid" and len(space) > GRID:
        raise UserError(
            f"{len(space):,} combinations: a grid must have at most {GRID:,}, use random or optuna"
        )
    if objectives is not None and search != "optuna":
        raise UserError(f"objective {', '.join(objectives)}: search {search} has none, optuna has")
    if search == "optuna":
        aims = DEFAULT if objectives is None else objectives
        return _guided(space, count or min(len(space), 50), seed, aims)
    if search == "random":
        return _once(list(space.sample(count or min(len(space), 50), seed)))
    return _once(list(space.grid()))


def _once(choices: list[Choice]) -> Batches:
    yield choices


def _guided(space: Space, count: int, seed: int, objectives: Sequence[str]) -> Batches:
    for name in objectives:
        choice("objective", name, OBJECTIVES)
    if not objectives:
        raise UserError("no objective to search for")
    try:
        import optuna
    except ImportError:
        raise UserError(f"search optuna needs Optuna; type: {install_command('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        directions=[OBJECTIVES[name] for name in objectives],
    )
    known: dict[tuple[int, ...], Row] = {}

    def tell(trial: optuna.trial.Trial, row: Row) -> None:
        if row["status"] != DONE:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for name in objectives:
            if row[name] is None:
                raise UserError(f"objective {name}: it is not measured in this sweep")
        study.tell(trial, [row[name] for name in objectives])

    while len(known) < count:
        asked: dict[tuple[int, ...], optuna.trial.Trial] = {}
        for _ in range(_ASKS * BATCH):
            trial = study.ask()
            # Numbers of values, since a category may be no tuple.
            at = tuple(
                int(trial.suggest_categorical(key, range(len(values))))
                for key, values in space.axes.items()
            )
            if at in known:
                tell(trial, known[at])
            elif at in asked:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                asked[at] = trial
            if len(asked) == min(BATCH, count - len(known)):
                break
        if not asked:
            return
        rows = yield [
            {key: values[i] for i, (key, values) in zip(at, space.axes.items(), strict=True)}
            for at in asked
        ]
        for (at, trial), row in zip(asked.items(), rows, strict=True):
            known[at] = row
            tell(trial, row)
