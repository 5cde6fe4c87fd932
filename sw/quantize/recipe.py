"""Choices of the quantization that no precision makes."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize.precision import Mode

ROUNDINGS = ("gptq", "nearest")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Choices of the quantization, whatever the precision.

    Attributes
    ----------
    alpha : float
        Smoothing exponent, 0 ... 1.
    margin8 : float
        Headroom over the calibrated range of s8 q, k, v, at least 1.
    margin16 : float
        Headroom over the calibrated range of s16 edges, at least 1; a bit of 16 is cheap, a
        massive activation that saturates is not.
    w4, w8 : str
        How 4 and 8-bit weights are rounded: "gptq" or "nearest". 16-bit ones are rounded to
        nearest.
    """

    alpha: float = 0.7
    margin8: float = 1.1
    margin16: float = 1.5
    w4: str = "gptq"
    w8: str = "gptq"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ModelError(f"recipe: alpha = {self.alpha}: must be 0 to 1")
        for name in ("margin8", "margin16"):
            if not 1 <= getattr(self, name) <= 4:
                raise ModelError(f"recipe: {name} = {getattr(self, name)}: must be 1 to 4")
        for name in ("w4", "w8"):
            if getattr(self, name) not in ROUNDINGS:
                allowed = " or ".join(ROUNDINGS)
                raise ModelError(f"recipe: {name} = {getattr(self, name)!r}: must be {allowed}")

    def rounding(self, mode: Mode) -> str:
        """How the weights of a product are rounded."""
        return {4: self.w4, 8: self.w8}.get(mode.weight_bits, "nearest")
