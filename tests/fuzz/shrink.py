"""A failing case made small: fewer commands, a plain bus, a smaller machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from tests.fuzz.case import Case, draw
from tests.fuzz.machines import VALUES
from tests.fuzz.scenarios import NotApplicable

Fails = Callable[[Case], bool]
"""Whether a case fails; one that cannot be drawn does not."""


def shrink(case: Case, fails: Fails, *, machines: int = 12) -> Case:
    """The smallest failing case found from one that fails.

    Parameters
    ----------
    case : Case
    fails : callable
    machines : int
        Other machines tried at most: each is built, half a minute.
    """
    case = dataclasses.replace(case, scenario=draw(case).name, commands=draw(case).commands)
    case = _commands(case, fails)
    case = _first_that_fails(case, [dataclasses.replace(case, plain_bus=True)], fails)
    built = 0
    for name, values in VALUES.items():
        now = getattr(case.config, name)
        for value in sorted({value for value in values if value < now})[:1]:
            if built == machines:
                return case
            built += 1
            settings = (*(s for s in case.settings if not s.startswith(f"{name}=")),)
            small = dataclasses.replace(case, settings=(*settings, f"{name}={value}"))
            case = _first_that_fails(case, [small], fails)
    return _commands(case, fails)


def _first_that_fails(case: Case, candidates: list[Case], fails: Fails) -> Case:
    for candidate in candidates:
        try:
            if fails(candidate):
                return candidate
        except (NotApplicable, ValueError):
            continue
    return case


def _commands(case: Case, fails: Fails) -> Case:
    """Cut the end off by halves, then leave out one command after the other."""
    assert case.commands is not None
    low, high = 0, case.commands
    while low < high:
        middle = (low + high) // 2
        shorter = dataclasses.replace(case, commands=middle)
        if _first_that_fails(case, [shorter], fails) is shorter:
            high = middle
        else:
            low = middle + 1
    case = dataclasses.replace(case, commands=high)
    for smaller in _each_left_out(case):
        kept = (*sorted({*case.without, *smaller}),)
        case = _first_that_fails(case, [dataclasses.replace(case, without=kept)], fails)
    return case


def _each_left_out(case: Case) -> Iterator[tuple[int, ...]]:
    assert case.commands is not None
    for index in reversed(range(case.commands)):
        if index not in case.without:
            yield (index,)
