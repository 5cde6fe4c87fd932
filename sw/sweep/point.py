"""A point of a sweep: a machine with a precision at work, and the row that says what it gives."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from tilewright.hw.config import Config
from tilewright.sw.arguments import instance, integer, real
from tilewright.sw.errors import UserError

LATENCY, BANDWIDTH = 30, 1.0
"""The memory's, unless a space says otherwise: cycles to the first beat, beats a cycle."""

COLUMNS: dict[str, type] = {
    "point": str,
    "name": str,
    "rows": int,
    "columns": int,
    "lanes": int,
    "row_engines": int,
    "sp_banks": int,
    "sp_depth": int,
    "acc_banks": int,
    "acc_depth": int,
    "axi_data_width": int,
    "precision": str,
    "sequence": int,
    "mem_latency": int,
    "mem_bandwidth": float,
    "status": str,
    "reason": str,
    "cycles": int,
    "utilization": float,
    "rtl_cycles": int,
    "rtl_error": float,
    "accuracy_mean": float,
    "accuracy_worst": float,
    "onchip_bytes": int,
    "dram_bytes": int,
    "lut": int,
    "ff": int,
    "dsp": int,
    "bram": int,
    "units": str,
    "fmax_mhz": float,
    "latency_ms": float,
    "inferences_per_s": float,
    "seconds": float,
    "seed": int,
    "versions": str,
    "manifest_hash": str,
    "command": str,
}
"""Columns of a row and their types; None stands for what was not measured."""

SHOWN = ("row_engines", "sp_banks", "sp_depth", "acc_banks", "acc_depth", "axi_data_width")
"""Parameters of the machine with a column of their own, besides its array and lanes."""

DONE, FAILED, INFEASIBLE = "done", "failed", "infeasible"

Row = dict[str, Any]

_DEFAULTS = Config().to_dict()

_LATER = ("register_errors",)
"""Parameters that stores of earlier versions lack: the default of one is left out of a spec, so
that those stores know their points."""


def resolve_lanes(lanes: int | str, columns: int) -> int:
    """Lanes of an array; "C/2" are half its columns, rounded down.

    Raises
    ------
    UserError
        If the text is neither a number nor a fraction of C.
    """
    text = str(lanes).strip()
    head, slash, under = text.partition("/")
    if head.upper() == "C" and (not slash or (under.isdecimal() and int(under))):
        return math.floor(Fraction(columns, int(under or 1)))
    if not text.isdecimal():
        raise UserError(f"lanes {text!r}: must be a number, C, or a fraction of it such as C/2")
    return int(text)


def _exact(number: float) -> str:
    """The shortest text that reads as the same number."""
    return repr(number).removesuffix(".0")


def id_of(spec: str) -> str:
    """Name of a point by the text of its `Point.spec`, as JSON with its keys sorted."""
    return hashlib.sha256(spec.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the machines of a sweep do, and what is measured of them.

    Attributes
    ----------
    model : str
        A known name, a folder or an ONNX file.
    layer : str
        Number of a layer, or "whole".
    texts : int
        Evaluation texts of the accuracy; 0 measures none.
    effort : int
        Of the compiler: choices of each part of a plan it compares.
    synth : str or None
        Target of the synthesis.
    pnr : bool
        Place and route, too.
    clock : float or None
        MHz for latency and inferences a second where no Fmax is measured; 1e-6 to 1e6.

    Raises
    ------
    InputError
        Naming a value that cannot be.
    """

    model: str = "minilm"
    layer: str = "0"
    texts: int = 40
    effort: int = 5
    synth: str | None = None
    pnr: bool = False
    clock: float | None = None

    def __post_init__(self) -> None:
        for name in ("model", "layer"):
            instance(name, getattr(self, name), str)
        integer("texts", self.texts, 0)
        integer("effort", self.effort, 1)
        if self.clock is not None:
            # In MHz: no time is 0 or infinite.
            real("clock", self.clock, 1e-6, 1e6)

    def arguments(self) -> list[str]:
        """The options of `tilewright sweep` that say the same."""
        words = [self.model, "--layer", self.layer, "--texts", str(self.texts)]
        words += ["--effort", str(self.effort)]
        words += ["--synth", self.synth] if self.synth else []
        words += ["--pnr"] if self.pnr else []
        return words + (["--clock", _exact(self.clock)] if self.clock else [])


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point: a machine, legal or not, its precision, its work's length, the memory behind it.

    Attributes
    ----------
    machine : tuple of (str, value)
        Every parameter of `Config` but its name, by name.
    precision : str
        As of `tilewright.sw.quantize.precision`, in its shortest form.
    sequence : int
    mem_latency : int
        Cycles from an accepted address to the first beat.
    mem_bandwidth : float
        Beats a cycle in each direction.
    """

    machine: tuple[tuple[str, Any], ...]
    precision: str = "w8a8"
    sequence: int = 128
    mem_latency: int = LATENCY
    mem_bandwidth: float = BANDWIDTH

    @classmethod
    def of(cls, machine: Mapping[str, Any], **more: Any) -> Point:
        """A point whose machine differs from `Config()` by these parameters."""
        values = {**_DEFAULTS, **machine}
        values.pop("name", None)
        frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(machine=tuple(sorted(frozen.items())), **more)

    @property
    def values(self) -> dict[str, Any]:
        """The machine's parameters."""
        return dict(self.machine)

    @property
    def name(self) -> str:
        """Name of the machine: its array, lanes, and what else differs from the default."""
        values = self.values
        words = ["sweep", f"{values['rows']}x{values['columns']}", f"l{values['lanes']}"]
        for key, value in self._changed().items():
            if key not in ("rows", "columns", "lanes"):
                text = "_".join(value) if isinstance(value, tuple) else str(value)
                words.append(f"{key}{text or '_none'}")
        return "-".join(words)

    def _changed(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in self.machine
            if value != (tuple(d) if isinstance(d := _DEFAULTS[key], list) else d)
        }

    @property
    def config(self) -> Config:
        """The machine; ValueError where the parameters do not go together."""
        return Config(name=self.name, **self.values)

    def spec(self, work: Measurement) -> dict[str, Any]:
        """All that the row's figures depend on, but the sources: values that JSON knows."""
        values = self.values
        for key in _LATER:
            if values[key] == _DEFAULTS[key]:
                del values[key]
        return {"point": asdict(self) | {"machine": values}, "work": asdict(work)}

    def id(self, work: Measurement) -> str:
        """Hash of `spec`, the same on every machine and in every run."""
        return id_of(json.dumps(self.spec(work), sort_keys=True))

    def command(self, work: Measurement, folder: str) -> str:
        """The command that measures this point again."""
        values, words = self.values, ["tilewright", "sweep", *work.arguments()]
        for key in ("rows", "columns", "lanes"):
            words += [f"--{key}", str(values[key])]
        words += ["--precision", self.precision, "--seq", str(self.sequence)]
        words += ["--latency", str(self.mem_latency), "--bandwidth", _exact(self.mem_bandwidth)]
        for key, value in self._changed().items():
            if key not in ("rows", "columns", "lanes"):
                # A sign alone is an empty list of names: no text is none of its values.
                text = "+".join(value) or "+" if isinstance(value, tuple) else str(value)
                words += ["--set", f"{key}={text}"]
        return shlex.join([*words, "--point", self.id(work), "-o", folder])

    def row(self, work: Measurement, folder: str, **found: Any) -> Row:
        """Its row, with what was found."""
        values = self.values
        known = {
            "point": self.id(work),
            "name": self.name,
            **{key: values[key] for key in ("rows", "columns", "lanes", *SHOWN)},
            "precision": self.precision,
            "sequence": self.sequence,
            "mem_latency": self.mem_latency,
            "mem_bandwidth": self.mem_bandwidth,
            "command": self.command(work, folder),
        }
        return {**dict.fromkeys(COLUMNS), **known, **found}


def from_spec(spec: Mapping[str, Any]) -> tuple[Point, Measurement]:
    """Point and work of what `Point.spec` gave."""
    point = dict(spec["point"])
    return Point.of(point.pop("machine"), **point), Measurement(**spec["work"])


def time_of(row: Row, work: Measurement) -> dict[str, Any]:
    """Latency and inferences a second of a row, where cycles and a clock are known."""
    mhz = row["fmax_mhz"] or work.clock
    if not mhz or not row["cycles"]:
        return {}
    milliseconds = row["cycles"] / mhz / 1000
    return {"latency_ms": milliseconds, "inferences_per_s": 1000 / milliseconds}
