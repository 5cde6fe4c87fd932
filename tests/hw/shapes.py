"""Configurations the tests of single cells run on: small memories, odd arrays."""

from pathlib import Path

from tilewright.hw.config import Config


def shape(rows: int, columns: int, lanes: int = 4, **more) -> Config:
    """A configuration of an array, with memories that a test fills and compares as a whole."""
    panel = max(rows, columns)
    values = {
        "sp_banks": 4,
        "sp_depth": max(64, 4 * panel),
        "acc_banks": 4,
        "acc_depth": 32,
        "scale_rows": 64,
        "stat_rows": 64,
        "axi_data_width": 32,
        **more,
    }
    name = f"r{rows}c{columns}l{lanes}"
    return Config(name=name, rows=rows, columns=columns, lanes=lanes, **values)


def identify(value: object) -> str | None:
    """Names of configurations for pytest."""
    return value.name if isinstance(value, Config) else None


VECTORS = str(Path(__file__).parents[1] / "data" / "vectors.npz")
