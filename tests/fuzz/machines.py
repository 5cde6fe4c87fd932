"""Random configurations, small ones: no parameter stays at its default."""

from typing import Any

import numpy as np

from tilewright.hw.commands import PARAMETER_ROWS
from tilewright.hw.config import ACTIVATION_FUNCTIONS, Config

VALUES: dict[str, tuple[int, ...]] = {
    "rows": (4, 8),
    "columns": (4, 8),
    "lanes": (1, 2, 4, 8),
    "weight_bits": (2, 3, 4, 5, 6, 7, 8, 8, 8),
    "row_engines": (1, 2, 3, 5, 16),
    "sp_banks": (4, 8, 16, 32),
    "sp_depth": (64, 128, 256, 512),
    "acc_banks": (2, 4, 8, 16),
    "acc_depth": (16, 32, 64, 256),
    "scale_rows": (16, 32, 64, 512),
    "stat_rows": (16, 32, 128),
    "axi_addr_width": (32, 33, 39, 48, 64),
    "axi_data_width": (32, 64, 128, 256, 512),
    "axi_outstanding": (1, 2, 3, 7, 16, 32),
    "axi_max_burst": (1, 2, 3, 5, 16, 63, 64, 256),
    "queue_depth": (1, 2, 3, 5, 8, 17, 64),
    "register_errors": (0, 1),
}
"""What each parameter may be; the presets hold larger ones."""

_BLOCKS = 8
"""Parameter blocks of a random program."""


def _fits(config: Config) -> bool:
    """Whether random programs find room: parameters, scales, weights, accumulators' views."""
    rows = min(config.scale_rows, 64)
    words = PARAMETER_ROWS * _BLOCKS + -(-rows // config.panel) + 3 * config.panel
    words += 4 * min(config.acc_words, 128)
    return config.sp_words >= words and config.acc_words <= 4096


def random_config(seed: int) -> Config:
    """Draw a configuration of at most 8×8; the same of the same seed."""
    rng = np.random.default_rng([0x7711, seed])
    while True:
        values: dict[str, Any] = {
            name: int(rng.choice(choices)) for name, choices in VALUES.items()
        }
        held = [name for name in ACTIVATION_FUNCTIONS if rng.random() < 0.5]
        try:
            config = Config(name=f"fuzz{seed}", functions=tuple(held), **values)
        except ValueError:
            continue
        if _fits(config):
            return config
