"""Random arrays with corners, and machines whose shape fits nothing."""

import numpy as np

from tilewright.hw.config import Config, preset_config

TINY = preset_config("tiny")
# Shapes that fit nothing: narrow, flat, small memories, one lane.
AWKWARD = (
    Config(name="flat", rows=4, columns=16, lanes=1, sp_depth=64, acc_banks=2, acc_depth=64),
    Config(name="tall", rows=16, columns=4, lanes=4, sp_depth=128, acc_banks=2, acc_depth=32),
    Config(
        name="least",
        rows=4,
        columns=4,
        lanes=1,
        sp_banks=4,
        sp_depth=64,
        acc_banks=2,
        acc_depth=16,
        scale_rows=16,
        stat_rows=16,
    ),
)
BOUNDS = {"int8": (-128, 128), "uint8": (0, 256), "int16": (-32768, 32768)}
BYTES = ("int8", "uint8")
TYPES = tuple(BOUNDS)


def draw(rng, kind, *shape):
    """Random values, corners among them."""
    low, high = BOUNDS[kind]
    values = rng.integers(low, high, shape)
    corners = rng.choice([low, high - 1, 0, min(high - 1, 32639)], shape)
    return np.where(rng.random(shape) < 0.2, corners, values).astype(kind)
