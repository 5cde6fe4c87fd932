"""Operations on NumPy arrays of any shape: cut to pieces, compiled once a shape, kept loaded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilewright.hw.config import ACTIVATION_FUNCTIONS
from tilewright.sw.arguments import choice, integer, integers, real, reals
from tilewright.sw.compiler.operations.activation import compile_activation
from tilewright.sw.compiler.operations.layernorm import compile_layernorm, fraction_bits
from tilewright.sw.compiler.operations.matmul import K_MAX, compile_matmul, longest
from tilewright.sw.compiler.operations.softmax import compile_softmax, factor
from tilewright.sw.compiler.pack import parameters
from tilewright.sw.compiler.tile import COLUMNS_MAX
from tilewright.sw.driver.loaded import Loaded
from tilewright.sw.driver.programs import Programs
from tilewright.sw.driver.runs import Ticket
from tilewright.sw.errors import InputError
from tilewright.sw.quantize.encode import layer_norm

if TYPE_CHECKING:
    from tilewright.sw.driver.device import Device

Array = npt.NDArray[np.integer[Any]]
I16 = npt.NDArray[np.int16]
U16 = npt.NDArray[np.uint16]
F64 = npt.NDArray[np.float64]
_Run = tuple[Ticket, Array, int]
"""A run, where its result belongs, and what it is multiplied by."""

PIECE_ROWS, PIECE_COLUMNS, PIECE_K = 1024, 4096, 8192
"""Sizes up to which an operation is one program; larger ones are run piece by piece."""
PIECE_ELEMENTS = 1 << 20

QUEUED = 8
"""Runs whose inputs are held at a time."""

_SCALES = 1e-100, 1e100
"""Steps whose squares and quotients a float64 holds."""
_EPS_BOUND = 2.0**40 - 1
_GAMMA_BOUND, _BETA_BOUND = 2.0**15 - 1, 2.0**31 - 1
"""What LayerNorm's integers hold where nothing is shifted."""

_FORMATS = {"int8": "s8", "uint8": "u8", "int16": "s16"}


def _spans(total: int, most: int) -> list[tuple[int, int]]:
    return [(first, min(first + most, total)) for first in range(0, total, most)]


def _add(runs: deque[_Run], most: int) -> None:
    """Add the results of the oldest runs to their places until `most` are left."""
    while len(runs) > most:
        ticket, target, times = runs.popleft()
        target += times * ticket.result()["y"].astype(target.dtype)


def _byte_planes(b: Array) -> tuple[dict[str, Array], Array | None]:
    """Balanced bytes of an s16 operand, and where 256 is missing from them.

    Above 32639 the high byte would be 128: 127 is sent, and those elements (as 1) need one product
    more.
    """
    wide = b.astype(np.int32)
    high, low = wide + 128 >> 8, (wide + 128 & 255) - 128
    over = high == 128
    planes = {"b high": (high - over).astype(np.int8), "b low": low.astype(np.int8)}
    return planes, over.astype(np.int8) if over.any() else None


class ArrayOperations:
    """The operations of a device.

    Parameters
    ----------
    device : Device

    Attributes
    ----------
    programs : Programs
        One for each shape that was used lately.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.programs = Programs(device)

    # ---- products ----

    def matmul(self, a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
        """Exact product of integer arrays, of the shape `numpy.matmul` gives.

        Parameters
        ----------
        a, b : int8, uint8 or int16, [..., M, K] and [..., K, N]
            Any shapes that `numpy.matmul` takes, values too: vectors and batches that broadcast. On
            a machine with narrow weights, b must fit them.

        Returns
        -------
        int32 array; int64 if either operand is int16 (b uint8 counts as int16), or K is above 32768

        Raises
        ------
        InputError
            If the shapes do not fit together, or the types are others.
        """
        x, w = integers("a", a, _FORMATS), integers("b", b, _FORMATS)
        if not x.ndim or not w.ndim or x.shape[-1] != w.shape[0 if w.ndim == 1 else -2]:
            raise InputError(f"matmul: shapes {x.shape} and {w.shape} do not fit together")
        if w.dtype == np.uint8:
            w = w.astype(np.int16)
        self._check_weights(w)
        rows = x[None, :] if x.ndim == 1 else x
        columns = w[:, None] if w.ndim == 1 else w
        if columns.ndim == 2:
            # One product over all rows of a.
            count = math.prod(rows.shape[:-1])
            flat = self._products(rows.reshape(1, count, rows.shape[-1]), columns[None])
            out = flat.reshape(*rows.shape[:-1], columns.shape[1])
        else:
            out = self._batches(rows, columns)
        if x.ndim == 1:
            out = out[..., 0, :]
        return out[..., 0] if w.ndim == 1 else out

    def _check_weights(self, w: Array) -> None:
        config = self._device.config
        bound = 1 << config.weight_bits - 1
        if config.weight_bits == 8 or not w.size:
            return
        low, high = int(w.min()), int(w.max())
        if low < -bound or high >= bound:
            raise InputError(
                f"matmul: b of {low} to {high}, weight_bits = {config.weight_bits} of "
                f"{config.title} holds {-bound} to {bound - 1}"
            )

    def _batches(self, x: Array, w: Array) -> Array:
        try:
            shape = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
        except ValueError:
            raise InputError(
                f"matmul: batches {x.shape[:-2]} and {w.shape[:-2]} do not broadcast"
            ) from None
        count = math.prod(shape)
        xs, ws = (
            np.broadcast_to(part, (*shape, *part.shape[-2:])).reshape(count, *part.shape[-2:])
            for part in (x, w)
        )
        return self._products(xs, ws).reshape(*shape, x.shape[-2], w.shape[-1])

    def _products(self, x: Array, w: Array) -> Array:
        """Products of matrices [B, M, K] and [B, K, N]."""
        wide = x.dtype == np.int16 or w.dtype == np.int16 or x.shape[-1] > K_MAX
        out = np.zeros((len(x), x.shape[1], w.shape[2]), dtype=np.int64 if wide else np.int32)
        runs: deque[_Run] = deque()
        for target, one, other in zip(out, x, w, strict=True):
            planes: dict[str, Array] = {"b": other}
            over = None
            if other.dtype == np.int16:
                planes, over = _byte_planes(other)
            self._submit(runs, target, one, planes, 1)
            if over is not None:
                self._submit(runs, target, one, {"b": over}, 256)
        _add(runs, 0)
        return out

    def _submit(
        self, runs: deque[_Run], out: Array, x: Array, planes: dict[str, Array], times: int
    ) -> None:
        """Queue what makes ``out += times · x @ b``, piece by piece; pieces along K are added."""
        formats = _FORMATS[x.dtype.name], "s8" if "b" in planes else "s16"
        for m0, m1 in _spans(x.shape[0], PIECE_ROWS):
            for n0, n1 in _spans(out.shape[1], PIECE_COLUMNS):
                for k0, k1 in _spans(x.shape[1], min(PIECE_K, longest(*formats))):
                    loaded = self._matmul_program((m1 - m0, k1 - k0, n1 - n0), formats)
                    inputs = {name: plane[k0:k1, n0:n1] for name, plane in planes.items()}
                    ticket = loaded.submit({"a": x[m0:m1, k0:k1], **inputs})
                    runs.append((ticket, out[m0:m1, n0:n1], times))
                    _add(runs, QUEUED)

    def _matmul_program(self, sizes: tuple[int, int, int], formats: tuple[str, str]) -> Loaded:
        m, k, n = sizes
        return self.programs.get(
            ("matmul", sizes, formats),
            lambda: compile_matmul(self._device.config, m, k, n, a=formats[0], b=formats[1]),
        )

    # ---- rows ----

    def _rows(
        self,
        x: Array,
        program: Callable[[int], Loaded],
        inputs: Callable[[Array], dict[str, Array]],
        output: str,
        scalars: dict[str, int] | None = None,
    ) -> Array:
        """Run a program of rows over all rows of x, [..., N]; the output has its shape."""
        flat = x.reshape(-1, x.shape[-1])
        tickets = [
            program(last - first).submit(inputs(flat[first:last]), scalars)
            for first, last in _spans(len(flat), PIECE_ROWS)
        ]
        return np.concatenate([ticket.result()[output] for ticket in tickets]).reshape(x.shape)

    def softmax(self, x: npt.ArrayLike, scale: float = 1.0, *, valid: int | None = None) -> U16:
        """Softmax over the last axis.

        Parameters
        ----------
        x : int8 or int16, [..., N], N at most 4096
            In units of `scale`.
        scale : float
            Real value of one step.
        valid : int, optional
            Columns that count, 0 … N; the others become 0. All by default.

        Returns
        -------
        uint16 array [..., N], Q15
            Probabilities as `tilewright.sw.compiler.operations.softmax` defines them; 32768 is 1.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        array = self._matrix("softmax", x, ("int8", "int16"))
        columns = array.shape[-1]
        length = columns if valid is None else integer("softmax: valid", valid, 0, columns)
        mult, shift = factor(scale)
        if not array.size:
            return np.zeros(array.shape, dtype=np.uint16)

        def program(rows: int) -> Loaded:
            return self.programs.get(
                ("softmax", rows, columns, mult, shift),
                lambda: compile_softmax(self._device.config, rows, columns, mult=mult, shift=shift),
            )

        out = self._rows(array, program, lambda rows: {"x": rows}, "p", {"length": length})
        return out.astype(np.uint16, copy=False)

    def layernorm(
        self,
        x: npt.ArrayLike,
        gamma: npt.ArrayLike | None = None,
        beta: npt.ArrayLike | None = None,
        *,
        eps: float = 1e-5,
        scale: float = 1.0,
        out_scale: float = 2.0**-10,
    ) -> I16:
        """LayerNorm over the last axis, by docs/numerics.md.

        Parameters
        ----------
        x : int8 or int16, [..., N], N at most 4096
            In units of `scale`.
        gamma, beta : real numbers [N], optional
            1 and 0 by default.
        eps : float
            Added to the variance, of the real values.
        scale, out_scale : float
            Real value of one step of x, and of the result (Q10 by default).

        Returns
        -------
        int16 array [..., N], in units of `out_scale`, saturated

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        array = self._matrix("layernorm", x, ("int8", "int16"))
        columns = array.shape[-1]
        g, b = self._vector("gamma", gamma, columns, 1.0), self._vector("beta", beta, columns, 0.0)
        scale = real("layernorm: scale", scale, *_SCALES)
        out_scale = real("layernorm: out_scale", out_scale, *_SCALES)
        eps = real("layernorm: eps", eps, 0.0, _EPS_BOUND / max(columns, 1) ** 2 * scale * scale)
        if not array.size:
            return np.zeros(array.shape, dtype=np.int16)
        for name, value, bound in (
            ("gamma", g, _GAMMA_BOUND * 2.0 ** fraction_bits(columns)),
            ("beta", b, _BETA_BOUND),
        ):
            if np.abs(value).max() > bound * out_scale:
                raise InputError(
                    f"layernorm: {name} of magnitude {np.abs(value).max():g}: with out_scale = "
                    f"{out_scale:g} must be at most {bound * out_scale:g}"
                )
        constants = layer_norm(
            g,
            b,
            np.full(columns, out_scale),
            eps=eps,
            z_scale=scale,
            fraction=fraction_bits(columns),
            name="layernorm",
        )
        packed = parameters(columns, bias=constants.beta, factor=constants.gamma)

        def program(rows: int) -> Loaded:
            return self.programs.get(
                ("layernorm", rows, columns, constants.eps, constants.shift),
                lambda: compile_layernorm(
                    self._device.config, rows, columns, eps=constants.eps, shift=constants.shift
                ),
            )

        out = self._rows(array, program, lambda rows: {"z": rows, "parameters": packed}, "y")
        return out.astype(np.int16, copy=False)

    @staticmethod
    def _matrix(name: str, x: npt.ArrayLike, allowed: tuple[str, ...]) -> Array:
        array = integers(name, x, allowed)
        if not array.ndim or array.shape[-1] > COLUMNS_MAX:
            raise InputError(
                f"{name}: expected a last axis of at most {COLUMNS_MAX}, got shape {array.shape}"
            )
        return array.astype(np.int16)

    @staticmethod
    def _vector(name: str, value: npt.ArrayLike | None, columns: int, default: float) -> F64:
        if value is None:
            return np.full(columns, default)
        return reals(f"layernorm: {name}", value, (columns,))

    # ---- elements ----

    def activation(self, name: str, x: npt.ArrayLike) -> I16:
        """A table function of every element, by docs/numerics.md.

        Parameters
        ----------
        name : str
            "gelu", "silu" or "tanh"; the machine's lanes must hold it.
        x : int16 Q10, or int8 Q4 (-8 … 7.94), any shape

        Returns
        -------
        int16 array of the same shape, Q10

        Raises
        ------
        InputError
            If there is no such function, or the type is another.
        CompileError
            If the lanes do not hold the function.
        """
        choice("function", name, ACTIVATION_FUNCTIONS)
        array = integers(name, x, ("int8", "int16"))
        wide = array.astype(np.int16)
        if array.dtype == np.int8:
            wide = wide << 6
        width = self._device.config.panel
        flat = wide.reshape(-1)
        tickets = []
        for first, last in _spans(flat.size, PIECE_ELEMENTS):
            rows = -(-(last - first) // width)
            padded = np.zeros(rows * width, dtype=np.int16)
            padded[: last - first] = flat[first:last]
            loaded = self._activation_program(name, rows)
            tickets.append(loaded.submit({"x": padded.reshape(rows, width)}))
        parts = [ticket.result()["y"].reshape(-1) for ticket in tickets]
        out = np.concatenate([*parts, np.zeros(0, np.int16)])[: flat.size]
        return out.reshape(array.shape).astype(np.int16, copy=False)

    def _activation_program(self, name: str, rows: int) -> Loaded:
        return self.programs.get(
            (name, rows), lambda: compile_activation(self._device.config, name, rows)
        )
