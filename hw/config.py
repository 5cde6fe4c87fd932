"""The design space of the generator: one frozen dataclass, its presets and its files."""

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright import Error

ACTIVATION_FUNCTIONS = ("gelu", "silu", "tanh")

POWERS_OF_TWO: dict[str, tuple[int, int | str]] = {
    "rows": (4, 128),
    "columns": (4, 128),
    "lanes": (1, "columns"),
    "sp_banks": (4, 32),
    "sp_depth": (64, 65536),
    "acc_banks": (2, 16),
    "acc_depth": (16, 16384),
    "scale_rows": (16, 32768),
    "stat_rows": (16, 32768),
    "axi_data_width": (32, 1024),
}
"""Parameters that are powers of two: least and largest value, or the parameter that bounds it."""

RANGES: dict[str, tuple[int, int]] = {
    "weight_bits": (2, 8),
    "row_engines": (1, 16),
    "axi_addr_width": (32, 64),
    "axi_outstanding": (1, 32),
    "axi_max_burst": (1, 256),
    "queue_depth": (1, 64),
    "register_errors": (0, 1),
}
"""Least and largest value of the other integers."""


class ConfigError(Error, ValueError):
    """A configuration that cannot be; names the parameter, its value and the bound."""


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """One accelerator.

    `POWERS_OF_TWO` and `RANGES` hold the bounds of the integers.

    Parameters
    ----------
    name : str
        Name of the configuration, part of the manifest: ASCII letters, digits, - and _.
    rows : int
        Processing elements along K: rows of the array (R).
    columns : int
        Processing elements along N: columns of the array (C).
    lanes : int
        Elements the vector unit takes in a cycle (L).
    weight_bits : int
        Width of the weight port of a processing element. Bytes in memory stay bytes; their values
        must fit.
    row_engines : int
        Rows whose division or reciprocal square root is under way at the same time.
    functions : tuple of str
        Table functions that every lane holds besides exp2: any of "gelu", "silu", "tanh".
    sp_banks : int
        Banks of the scratchpad.
    sp_depth : int
        Words in a scratchpad bank, each of 2·max(R, C) bytes; at most 65536 words in all banks.
    acc_banks : int
        Banks of the accumulators.
    acc_depth : int
        Words in an accumulator bank, each of C s32; at most 65536 words in all banks.
    scale_rows : int
        Row scales (largest magnitudes) that the row table holds.
    stat_rows : int
        Row statistics that the row table holds.
    axi_addr_width : int
        Address bits of the AXI4 master.
    axi_data_width : int
        Data bits of the AXI4 master.
    axi_outstanding : int
        Bursts in flight in each direction.
    axi_max_burst : int
        Beats of the longest burst.
    queue_depth : int
        Commands that the queue of each unit holds at the least.
    register_errors : int
        1: answer SLVERR to an access of a register that does not exist, and to a write of one that
        is read-only; 0: answer OKAY, read 0 and ignore what is written.

    Raises
    ------
    ConfigError
        Naming the parameter, its value and the bound, when a combination cannot work.

    Examples
    --------
    >>> import tilewright as tw
    >>> tw.Config(name="wide", rows=16, columns=32).onchip_bytes > tw.Config().onchip_bytes
    True
    >>> tw.Config(rows=15)
    Traceback (most recent call last):
    tilewright.hw.config.ConfigError: rows = 15: must be a power of two from 4 to 128
    """

    name: str = "default"
    rows: int = 16
    columns: int = 16
    lanes: int = 8
    weight_bits: int = 8
    row_engines: int = 2
    functions: tuple[str, ...] = ("gelu",)
    sp_banks: int = 8
    sp_depth: int = 2048
    acc_banks: int = 4
    acc_depth: int = 512
    scale_rows: int = 1024
    stat_rows: int = 256
    axi_addr_width: int = 40
    axi_data_width: int = 128
    axi_outstanding: int = 16
    axi_max_burst: int = 64
    queue_depth: int = 8
    register_errors: int = 0

    def __post_init__(self) -> None:
        name = self.name.replace("-", "_") if isinstance(self.name, str) else ""
        if not (name.isascii() and name.isidentifier()):
            raise ConfigError(f"name = {self.name!r}: must be ASCII letters, digits, - and _")
        functions = self.functions if isinstance(self.functions, list | tuple) else (None,)
        if not all(isinstance(function, str) for function in functions):
            raise ConfigError(f"functions = {self.functions!r}: must be a list of names")
        object.__setattr__(self, "functions", tuple(functions))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or isinstance(value, bool)):
                raise ConfigError(f"{field.name} = {value!r}: must be an integer")
        for key, (low, most) in POWERS_OF_TWO.items():
            value = getattr(self, key)
            high = getattr(self, most) if isinstance(most, str) else most
            if not low <= value <= high or not _is_power_of_two(value):
                raise ConfigError(f"{key} = {value}: must be a power of two from {low} to {high}")
        for key, (low, high) in RANGES.items():
            value = getattr(self, key)
            if not low <= value <= high:
                raise ConfigError(f"{key} = {value}: must be {low} to {high}")
        if len(set(self.functions)) != len(self.functions):
            raise ConfigError(f"functions = {self.functions}: a name appears twice")
        for function in self.functions:
            if function not in ACTIVATION_FUNCTIONS:
                raise ConfigError(
                    f"functions: {function!r} is unknown; one of {', '.join(ACTIVATION_FUNCTIONS)}"
                )
        if self.sp_words > 65536:
            raise ConfigError(f"sp_banks * sp_depth = {self.sp_words} words: must be at most 65536")
        if self.acc_words > 65536:
            raise ConfigError(
                f"acc_banks * acc_depth = {self.acc_words} words: must be at most 65536"
            )
        # The smallest program that can run: one block of R rows of s16 and two weight tiles.
        least = self.rows + 2 * (self.rows // 2) + 8
        if self.sp_words < 4 * least:
            raise ConfigError(
                f"sp_banks * sp_depth = {self.sp_words} words: must be at least {4 * least}"
            )

    # Derived sizes; every other file takes them from here.

    @property
    def panel(self) -> int:
        """W: channels in a panel, max(R, C)."""
        return max(self.rows, self.columns)

    @property
    def word_bytes(self) -> int:
        """Bytes of a scratchpad word: one s16 row of a panel or two s8/u8 rows."""
        return 2 * self.panel

    @property
    def sp_words(self) -> int:
        return self.sp_banks * self.sp_depth

    @property
    def acc_words(self) -> int:
        return self.acc_banks * self.acc_depth

    @property
    def axi_bytes(self) -> int:
        return self.axi_data_width // 8

    @property
    def queue_places(self) -> int:
        """Places for a unit's commands, those in the queue and those in the unit: a power of two.
        One stays free.
        """
        return 1 << (self.queue_depth + 3).bit_length()

    @property
    def psum_bits(self) -> int:
        """Width of a partial sum in the array: a column adds R products of s9 and s8."""
        return (255 * 128 * self.rows).bit_length() + 1

    @property
    def sp_bytes(self) -> int:
        return self.sp_words * self.word_bytes

    @property
    def acc_bytes(self) -> int:
        return self.acc_words * self.columns * 4

    @property
    def row_table_bytes(self) -> int:
        # u16 magnitudes; s44 + u48 statistics, a 17 + 5 bit row factor and an s32 maximum.
        return self.scale_rows * 2 + self.stat_rows * (44 + 48 + 22 + 32) // 8

    @property
    def onchip_bytes(self) -> int:
        """On-chip memory: scratchpad, accumulators and row table."""
        return self.sp_bytes + self.acc_bytes + self.row_table_bytes

    @property
    def label(self) -> str:
        """The name, and behind it 8 hex digits of a hash of all parameters unless the configuration
        is exactly the preset of that name: two that differ never share a label.
        """
        if PRESETS.get(self.name) == self:
            return self.name
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def title(self) -> str:
        """The name for messages: a preset's only where this is that preset, else as `label`."""
        return self.label if self.name in PRESETS else self.name

    # Files.

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain values (JSON and TOML types)."""
        values = dataclasses.asdict(self)
        values["functions"] = list(self.functions)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, origin: str = "configuration") -> "Config":
        """Build from plain values; an unknown key is refused by name."""
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"{origin}: unknown key {key!r}; known: {', '.join(sorted(known))}"
                )
        return cls(**values)

    @classmethod
    def from_toml(cls, path: Path) -> "Config":
        """Read a TOML file: optional `preset = "…"`, then any parameters."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a TOML file: {error}") from error
        preset = values.pop("preset", None)
        base = preset_config(preset).to_dict() if preset is not None else {}
        base.setdefault("name", Path(path).stem)
        return cls.from_dict({**base, **values}, origin=str(path))

    def with_settings(self, settings: "list[str] | tuple[str, ...]") -> "Config":
        """Return a copy changed by `key=value` texts (values in TOML syntax, strings bare)."""
        values = self.to_dict()
        for setting in settings:
            key, sign, text = setting.partition("=")
            key = key.strip()
            if not sign or not key:
                raise ConfigError(f"--set {setting!r}: must be key=value")
            if key == "functions":
                values[key] = [part for part in text.replace(" ", "").split(",") if part]
                continue
            if key == "name":
                values[key] = text.strip()
                continue
            try:
                values[key] = int(text, 0)
            except ValueError:
                raise ConfigError(f"--set {setting!r}: must be an integer") from None
        return Config.from_dict(values, origin="--set")


PRESETS: dict[str, Config] = {
    config.name: config
    for config in (
        Config(
            name="tiny",
            rows=4,
            columns=4,
            lanes=2,
            row_engines=1,
            sp_depth=1024,
            axi_addr_width=32,
            axi_data_width=32,
            axi_outstanding=8,
            queue_depth=4,
        ),
        Config(
            name="small",
            rows=8,
            columns=8,
            lanes=4,
            row_engines=1,
            sp_depth=1024,
            axi_data_width=64,
        ),
        Config(name="default"),
        Config(name="large", rows=32, columns=32, lanes=16, row_engines=4),
        Config(
            name="huge",
            rows=64,
            columns=64,
            lanes=32,
            row_engines=8,
            sp_depth=4096,
            acc_depth=1024,
            stat_rows=512,
            axi_data_width=256,
        ),
    )
}


def preset_config(name: str) -> Config:
    """A configuration that comes along.

    Parameters
    ----------
    name : str
        "tiny", "small", "default", "large" or "huge": arrays from 4×4 to 64×64.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        If there is no such preset; the message lists the presets.

    Examples
    --------
    >>> import tilewright as tw
    >>> tw.preset("small").rows
    8
    """
    try:
        return PRESETS[name]
    except (KeyError, TypeError):
        # A file's may be of any type, such as a list, which is no key.
        raise ConfigError(f"preset {name!r} is unknown; one of {', '.join(PRESETS)}") from None
