"""What is known of an ONNX tensor while a graph is read.

Open dimensions are given sample sizes, and inputs of integers sample values, so that everything
exporters compute from shapes and masks is plain numbers. An activation is a tensor of the internal
graph or a stage on the way to one, seen through a view (`tilewright.sw.graph.onnx.view`) and a
curve: the function of one variable applied to each element so far, as samples. So GELU, for
instance, is recognized by its values, in whatever operators it was spelled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from tilewright.sw.graph.onnx.view import View
from tilewright.sw.models.functions import HOST_FUNCTIONS, QUICK_GELU, erf

Array = npt.NDArray[Any]
Curve = npt.NDArray[np.float64]

GRID: Curve = np.linspace(-8, 8, 513)
"""Where curves are sampled; it holds 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Numbers: a constant, or what follows from the sample values of some inputs.

    Attributes
    ----------
    array : ndarray
    sources : frozenset of str
        Inputs it depends on; none of a constant.
    origin : str or None
        The input it is, unchanged.
    table, index : ndarray or None
        It is ``table[index]``; of an index that an input makes, too.
    """

    array: Array
    sources: frozenset[str] = frozenset()
    origin: str | None = None
    table: Array | None = None
    index: Array | None = None

    @property
    def constant(self) -> bool:
        """Whether it depends on no input."""
        return not self.sources

    @property
    def scalar(self) -> float | None:
        """The value of a constant of one element."""
        return float(self.array.reshape(-1)[0]) if self.constant and self.array.size == 1 else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sum:
    """Rows of embedding tables, added: on the way to a look-up.

    Attributes
    ----------
    parts : tuple of (table, input that holds the ids)
    position, type : ndarray or None
        Table of the positions, of the types if every token has type 0.
    padding : int or None
        The id that positions do not count, see `tilewright.sw.graph.ir.LookUp`.
    shape : tuple of int
    """

    parts: tuple[tuple[Array, str], ...]
    position: Array | None = None
    type: Array | None = None
    padding: int | None = None
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean of each row of tensor `x`, [..., 1]."""

    x: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Centred:
    """Tensor `x` less the mean of each row."""

    x: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Variance:
    """Variance of each row of tensor `x`, [..., 1]."""

    x: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length of each row of tensor `x`, [..., 1]; the square of it if `squared`."""

    x: str
    squared: bool
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted:
    """Tokens of tensor `x` [B, S, hidden], each times its one of `weights` [B, S]."""

    x: str
    weights: Known
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenSum:
    """Sum of the tokens of `x`, each times its one of `weights` [B, S]: [B, hidden]."""

    x: str
    weights: Known
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Products of queries and keys in heads, [..., heads, S, S]; softmax of them if `normal`.

    `scale` is their factor, `mask` the input that marks the tokens attended to.
    """

    q: str
    k: str
    heads: int
    scale: float = 1.0
    mask: str | None = None
    normal: bool = False
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class NotNumber:
    """Where the softmax of `scores` is NaN: nowhere, since no row is wholly masked."""

    scores: Scores
    shape: tuple[int, ...]


Base = str | Sum | Mean | Centred | Variance | Length | Weighted | TokenSum | Scores | NotNumber


@dataclass(frozen=True, kw_only=True, eq=False)
class Act:
    """An activation.

    Attributes
    ----------
    base : str or stage
        Tensor of the internal graph, or a stage on the way to one.
    of : tuple of int
        Shape of the base.
    view : View
    curve : ndarray or None
        Function of each element on `GRID`; None for none.
    node : NodeProto or None
        The ONNX node it came out of, for messages.
    """

    base: Base
    of: tuple[int, ...]
    view: View
    curve: Curve | None = None
    node: NodeProto | None = field(default=None)

    @classmethod
    def plain(cls, base: Base, shape: tuple[int, ...]) -> Act:
        """A base as it is."""
        return cls(base=base, of=shape, view=View.of(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the ONNX tensor."""
        return self.view.shape

    @property
    def samples(self) -> Curve:
        """The curve, drawn for none too."""
        return GRID if self.curve is None else self.curve

    def seen(self, view: View) -> Act:
        """The same elements in another view."""
        return replace(self, view=view)

    def curved(self, curve: Curve) -> Act:
        """Another function of each element."""
        same = np.array_equal(curve, GRID)
        return replace(self, curve=None if same else curve)

    @property
    def slope(self) -> float | None:
        """The factor, if the curve is a mere multiplication."""
        if self.curve is None:
            return 1.0
        factor = float(self.curve[-1] / GRID[-1])
        return factor if factor and np.allclose(self.curve, factor * GRID, rtol=1e-9) else None

    @property
    def squared(self) -> bool:
        """Whether the curve is the square."""
        return self.curve is not None and np.allclose(self.curve, GRID**2, rtol=1e-9)

    def is_length(self, *, inverse: bool) -> bool:
        """Whether this is the length of each row, or its reciprocal if `inverse`.

        Exporters keep it from 0 by a bound or a summand, which no row of a model comes near.
        """
        if not isinstance(self.base, Length):
            return False
        right = GRID > 0
        length = np.sqrt(GRID[right]) if self.base.squared else GRID[right]
        return np.allclose(self.samples[right], 1 / length if inverse else length, rtol=1e-6)

    def root(self, *, inverse: bool) -> float | None:
        """The eps of a curve ``sqrt(x + eps)``, or of ``1 / sqrt(x + eps)`` if `inverse`."""
        if self.curve is None:
            return None
        right = GRID >= 0
        samples = self.curve[right]
        # At x = 0; the reciprocal of a reciprocal keeps all but the last bits.
        root = 1 / samples if inverse else samples
        eps = float(root[0] ** 2)
        same = np.allclose(root, np.sqrt(GRID[right] + eps), rtol=1e-7, atol=0)
        return as_single(eps) if eps >= 0 and same else None


Value = Known | Act


def as_single(x: float) -> float:
    """The shortest decimal fp32 means: exporters keep 1e-12 as 9.999999960041972e-13."""
    return float(str(np.float32(x)))


def _curves() -> dict[str, Curve]:
    wide = {
        "gelu": GRID / 2 * (1 + erf(GRID / math.sqrt(2))),
        "gelu_tanh": GRID / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (GRID + 0.044715 * GRID**3))),
        "quick_gelu": GRID / (1 + np.exp(-QUICK_GELU * GRID)),
        "silu": GRID / (1 + np.exp(-GRID)),
        "tanh": np.tanh(GRID),
        "relu": np.maximum(GRID, 0),
    }
    return {name: wide[name] for name in HOST_FUNCTIONS}


_CURVES = _curves()
# Half of what lies between the nearest two, GELU's forms; fp16 constants move a curve by less.
_CURVE_TOLERANCE = 2e-4


def function_of(curve: Curve) -> str | None:
    """The activation function a curve is."""
    for name, wanted in _CURVES.items():
        if np.abs(curve - wanted).max() <= _CURVE_TOLERANCE:
            return name
    return None
