"""Spaces: what a sweep varies, read from options or a TOML file, and the points in it."""

from __future__ import annotations

import dataclasses
import math
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.hw.config import Config
from tilewright.sw.arguments import instance
from tilewright.sw.errors import InputError, UserError
from tilewright.sw.sweep.point import BANDWIDTH, LATENCY, Point, resolve_lanes

MEMORY = ("mem_latency", "mem_bandwidth")
"""Axes the program does not depend on; they vary slowest, so that it is compiled by then."""
OTHERS = ("precision", "sequence", "lanes", "array", "rows", "columns")

_FIELDS = {one.name: one.type for one in dataclasses.fields(Config) if one.name != "name"}
KEYS = (*MEMORY, *OTHERS, *(key for key in _FIELDS if key not in OTHERS))
"""What a space may vary: axes of the sweep, and every parameter of `Config` but its name."""

_BITS, _SLOWEST = 32, 1e-6
"""Of integers, and the least bandwidth in beats a cycle: beyond all that is of use, and within what
the store holds, where cycles are integers of 64 bits."""


def split_precisions(text: str) -> list[str]:
    """Precisions of a list: "w8a8,attention=16,w4a8" are two, as an override has a "=" in it."""
    found: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if "=" in part and found:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _functions(value: Any) -> tuple[str, ...]:
    parts = value.split("+") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be a list of names")
    return tuple(part for part in parts if part)


def _integer(value: Any) -> int:
    number = int(value, 0) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError("must be an integer")
    if abs(number) >> _BITS:
        raise ValueError(f"must be an integer of at most {_BITS} bits")
    return number


def _value(key: str, value: Any) -> Any:
    """A value of an axis, from TOML or from text.

    Raises
    ------
    UserError
        If it is none. Whether the machine is legal with it is another matter.
    """
    try:
        if key == "precision":
            return str(value)
        if key == "lanes":
            _integer(resolve_lanes(value, 1))
            return str(value)
        if key == "functions":
            return _functions(value)
        if key == "mem_bandwidth":
            bandwidth = float(value)
            if not _SLOWEST <= bandwidth <= 1:
                raise InputError(f"{key} = {value}: must be {_SLOWEST:g} to 1")
            return bandwidth
        number = _integer(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} = {value!r}: {error}") from error
    if key in (*MEMORY, "sequence") and number < 1:
        raise InputError(f"{key} = {number}: must be 1 or more")
    return number


@dataclass(frozen=True)
class Space:
    """A design space: the values of each axis; all combinations are its points.

    Parameters
    ----------
    axes : mapping of str to sequence or one value
        By a name of `KEYS`; "array" is rows and columns alike. Lanes may be fractions of the
        columns: "C/4". What no axis names is as in `base`; but lanes are "C/2" where an axis names
        the columns, or `array`.
    base : Config, optional
        The machine the axes change.

    Raises
    ------
    UserError
        Naming an axis that is unknown, empty, or has a value that cannot be one; or if there are
        2^63 combinations or more.

    Examples
    --------
    >>> import tilewright as tw
    >>> len(tw.Space({"array": [8, 16], "lanes": ["C/2", "C"], "precision": ["w8a8"]}))
    4
    """

    axes: Mapping[str, Any]
    base: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        instance("base", self.base, Config)
        checked: dict[str, tuple[Any, ...]] = {}
        for key, values in instance("axes", self.axes, Mapping).items():  # type: ignore[type-abstract]
            if key not in KEYS:
                raise InputError(f"a space has no {key!r}; known: {', '.join(sorted(KEYS))}")
            several = isinstance(values, Sequence) and not isinstance(values, str)
            listed = values if several else [values]
            checked[key] = tuple(dict.fromkeys(_value(key, value) for value in listed))
            if not checked[key]:
                raise InputError(f"{key}: must not be an empty list")
        if "array" in checked and {"rows", "columns"} & set(checked):
            raise InputError("array sets rows and columns: give one or the other")
        count = math.prod(map(len, checked.values()))
        if count > sys.maxsize:
            raise InputError(f"{count:.2e} combinations: must be fewer than 2^63")
        ordered = {key: checked[key] for key in KEYS if key in checked}
        object.__setattr__(self, "axes", ordered)

    @classmethod
    def from_toml(cls, path: Path, base: Config | None = None) -> Space:
        """Read a file: a list (or one value) a key, `preset = "…"` for the rest of the machine.

        Parameters
        ----------
        path : Path
        base : Config, optional
            Goes before the file's preset.

        Raises
        ------
        UserError
            If it is no such file.
        """
        from tilewright.hw.config import preset_config

        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a TOML file: {error}") from error
        preset = values.pop("preset", None)
        try:
            named = Config() if preset is None else preset_config(preset)
            return cls(values, named if base is None else base)
        except (UserError, ValueError) as error:
            raise UserError(f"{path}: {error}") from error

    def with_axes(self, axes: Mapping[str, Sequence[Any]]) -> Space:
        """The same with other values of these axes; an array replaces rows and columns."""
        kept = dict(self.axes)
        if "array" in axes:
            kept = {key: v for key, v in kept.items() if key not in ("rows", "columns")}
        if {"rows", "columns"} & set(axes):
            kept.pop("array", None)
        return Space({**kept, **axes}, self.base)

    def __len__(self) -> int:
        """Combinations, those that make the same machine included."""
        return math.prod(len(values) for values in self.axes.values())

    def choice(self, index: int) -> dict[str, Any]:
        """A combination by its number: the last axis varies fastest."""
        found = {}
        for key, values in reversed(list(self.axes.items())):
            index, at = divmod(index, len(values))
            found[key] = values[at]
        return {key: found[key] for key in self.axes}

    def point(
        self, choice: Mapping[str, Any], precision: Callable[[str], str] = lambda text: text
    ) -> Point:
        """The point of a combination.

        Parameters
        ----------
        choice : mapping
            A value of every axis.
        precision : callable, optional
            Brings a precision into its shortest form.
        """
        machine = {**self.base.to_dict(), **{k: v for k, v in choice.items() if k in _FIELDS}}
        if "array" in choice:
            machine["rows"] = machine["columns"] = choice["array"]
        if "lanes" not in choice and {"array", "columns"} & set(choice):
            # A number that suits the base's columns may be more than these.
            machine["lanes"] = "C/2"
        machine["lanes"] = resolve_lanes(machine["lanes"], machine["columns"])
        return Point.of(
            machine,
            precision=precision(choice.get("precision", "w8a8")),
            sequence=choice.get("sequence", 128),
            mem_latency=choice.get("mem_latency", LATENCY),
            mem_bandwidth=choice.get("mem_bandwidth", BANDWIDTH),
        )

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination."""
        return (self.choice(index) for index in range(len(self)))

    def sample(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """Some combinations, each at most once, drawn at random; all if there are no more."""
        total = len(self)
        rng = np.random.default_rng(seed)
        return (
            self.choice(int(index)) for index in rng.choice(total, min(count, total), replace=False)
        )


def distinct(points: Iterable[Point]) -> list[Point]:
    """Points without those that came before: "C/2" and 8 may be the same."""
    return list(dict.fromkeys(points))
