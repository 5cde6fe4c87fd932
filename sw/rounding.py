"""Integer division that rounds up."""


def ceil_div(value: int, unit: int) -> int:
    """``ceil(value / unit)``."""
    return -(-value // unit)


def round_up(value: int, unit: int) -> int:
    """``value`` rounded up to a multiple of ``unit``."""
    return ceil_div(value, unit) * unit
