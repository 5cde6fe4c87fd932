"""The internal graph: a few typed operations between named tensors.

The operations are those the machine and its host have. Larger blocks (a feed-forward block, a whole
encoder) are no nodes of their own: `tilewright.sw.graph.encoder` recognizes them. A dimension is a
number, or a name where it is open (the batch, the sequence); equal names are equal sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilewright.sw.graph.errors import GraphError
from tilewright.sw.models.functions import F32, HOST_FUNCTIONS

Shape = tuple[int | str, ...]

DTYPES = ("f32", "i64", "bool")
"""Reals, token ids and types, masks."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A named tensor: its shape and one of `DTYPES`."""

    name: str
    shape: Shape
    dtype: str = "f32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise GraphError(f"tensor {self.name}: dtype {self.dtype!r}: must be {DTYPES}")

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"


def _input(dtype: str = "f32", **options: Any) -> Any:
    """A field that names a tensor the node reads."""
    return field(metadata={"dtype": dtype}, **options)


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operation; `out` names the tensor it makes, fields made with `_input` those it reads."""

    out: str

    def inputs(self) -> Iterator[tuple[str, str]]:
        """(tensor, dtype) of everything the node reads."""
        for one in fields(self):
            name = getattr(self, one.name)
            if "dtype" in one.metadata and name is not None:
                yield name, one.metadata["dtype"]

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The same node with tensors renamed."""
        changed = {"out": names.get(self.out, self.out)}
        for one in fields(self):
            name = getattr(self, one.name)
            if "dtype" in one.metadata and name is not None:
                changed[one.name] = names.get(name, name)
        return replace(self, **changed)

    def equals(self, other: Node) -> bool:
        """Whether another node is the same operation on the same tensors with the same numbers."""
        if type(self) is not type(other):
            return False
        return all(
            _equal(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)
        )

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """Shape of `out`, from those of the inputs; refuses inputs that do not fit."""
        raise NotImplementedError

    def _fail(self, why: str) -> GraphError:
        return GraphError(f"{type(self).__name__} {self.out}: {why}")

    def _broadcast(self, a: Shape, b: Shape) -> Shape:
        """The shape two tensors have together: axes are equal, or 1, counted from the last."""
        rank = max(len(a), len(b))
        pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
        out = tuple(y if x == 1 else x for x, y in pairs)
        if any(
            size not in (1, out[i - len(part)]) for part in (a, b) for i, size in enumerate(part)
        ):
            raise self._fail(f"axes {list(a)} and {list(b)} do not broadcast")
        return out

    def _vector(self, name: str, vector: npt.NDArray[Any], width: int | str) -> None:
        if vector.shape != (width,):
            raise self._fail(f"{name} has shape {list(vector.shape)}: must have [{width}]")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a is b or np.array_equal(a, b)
    return bool(a == b) if type(a) is type(b) else False


@dataclass(frozen=True, kw_only=True, eq=False)
class LookUp(Node):
    """``word[ids] + position[p] + type[types]``: ids [..., S] -> [..., S, hidden].

    Without `types` every token has type 0. Positions p are 0 … S - 1. With `padding`, a token id,
    they count the other ids only, from ``padding + 1``; that of a padding token is ``padding``.
    """

    ids: str = _input("i64")
    types: str | None = _input("i64", default=None)
    word: F32
    position: F32
    type: F32
    padding: int | None = None

    @property
    def first(self) -> int:
        """Position of the first token."""
        return 0 if self.padding is None else self.padding + 1

    @property
    def longest(self) -> int:
        """Most tokens there are positions for."""
        return len(self.position) - self.first

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        hidden = self.word.shape[-1]
        for name in ("word", "position", "type"):
            table = getattr(self, name)
            if table.ndim != 2 or table.shape[1] != hidden:
                raise self._fail(f"{name} table {list(table.shape)}: must be [rows, {hidden}]")
        if self.types is not None and shapes[self.types] != shapes[self.ids]:
            raise self._fail(f"ids are {shapes[self.ids]}, types are {shapes[self.types]}")
        if self.longest < 1 or self.first < 0:
            raise self._fail(f"{len(self.position)} positions, the first token has {self.first}")
        return (*shapes[self.ids], hidden)


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Node):
    """``x @ w + b``: x [..., K], w [K, N], b [N] or none."""

    x: str = _input()
    w: F32
    b: F32 | None = None

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        x = shapes[self.x]
        if self.w.ndim != 2 or not x or x[-1] != self.w.shape[0]:
            raise self._fail(f"weights {list(self.w.shape)} do not fit an input {list(x)}")
        if self.b is not None:
            self._vector("bias", self.b, self.w.shape[1])
        return (*x[:-1], self.w.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class MatMul(Node):
    """Product of two activations: a [..., M, K], b [..., K, N] ([..., N, K] if `transposed`).

    Leading axes broadcast.
    """

    a: str = _input()
    b: str = _input()
    transposed: bool = False

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        a, b = shapes[self.a], shapes[self.b]
        if min(len(a), len(b)) < 2:
            raise self._fail(f"operands {list(a)} and {list(b)} must have two axes or more")
        rows, columns = (b[-1], b[-2]) if self.transposed else (b[-2], b[-1])
        if a[-1] != rows:
            raise self._fail(f"operands {list(a)} and {list(b)} do not fit: {a[-1]} is not {rows}")
        return (*self._broadcast(a[:-2], b[:-2]), a[-2], columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class Softmax(Node):
    """Softmax over the last axis of x."""

    x: str = _input()

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        return shapes[self.x]


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Node):
    """A function of every element, of `tilewright.sw.models.functions.HOST_FUNCTIONS`."""

    x: str = _input()
    function: str

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if self.function not in HOST_FUNCTIONS:
            raise self._fail(
                f"function {self.function!r}: must be one of {', '.join(HOST_FUNCTIONS)}"
            )
        return shapes[self.x]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerNorm(Node):
    """LayerNorm over the last axis: x [..., N], gamma and beta [N]."""

    x: str = _input()
    gamma: F32
    beta: F32
    eps: float

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        x = shapes[self.x]
        if not x:
            raise self._fail("the input has no axis")
        self._vector("gamma", self.gamma, x[-1])
        self._vector("beta", self.beta, x[-1])
        if not 0 <= self.eps < 1:
            raise self._fail(f"epsilon {self.eps}: must be 0 to 1")
        return x


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Node):
    """Sum of two tensors; axes broadcast."""

    a: str = _input()
    b: str = _input()

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        return self._broadcast(shapes[self.a], shapes[self.b])


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention(Node):
    """Attention of q, k, v [B, S, hidden] in heads; mask [B, S] marks valid tokens."""

    q: str = _input()
    k: str = _input()
    v: str = _input()
    mask: str | None = _input("bool", default=None)
    heads: int
    scale: float

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        q, k, v = shapes[self.q], shapes[self.k], shapes[self.v]
        if len(q) < 2 or q != k or q != v:
            raise self._fail(f"q, k and v are {list(q)}, {list(k)} and {list(v)}")
        if not isinstance(q[-1], int) or self.heads < 1 or q[-1] % self.heads:
            raise self._fail(f"{self.heads} heads do not divide the width {q[-1]}")
        if self.mask is not None and shapes[self.mask] != q[:-1]:
            raise self._fail(f"mask {list(shapes[self.mask])}: must be {list(q[:-1])}")
        return q


@dataclass(frozen=True, kw_only=True, eq=False)
class Select(Node):
    """One slice of x along an axis: -2 for a token, -1 for a column; that axis is dropped."""

    x: str = _input()
    axis: int
    index: int

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        x = shapes[self.x]
        if self.axis not in (-1, -2) or len(x) < -self.axis:
            raise self._fail(f"axis {self.axis} of {list(x)}: must be -1 or -2")
        size = x[self.axis]
        if isinstance(size, int) and not 0 <= self.index < size:
            raise self._fail(f"index {self.index} of {size}")
        return (*x[: self.axis], *x[len(x) + self.axis + 1 :])


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenMean(Node):
    """Mean over the tokens of x [B, S, hidden] that mask [B, S] marks (all without) -> [B, hidden].

    A row without a token gives 0.
    """

    x: str = _input()
    mask: str | None = _input("bool", default=None)

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        x = shapes[self.x]
        if len(x) < 2:
            raise self._fail(f"an input of {list(x)}: must have two axes or more")
        if self.mask is not None and shapes[self.mask] != x[:-1]:
            raise self._fail(f"mask {list(shapes[self.mask])}: must be {list(x[:-1])}")
        return (*x[:-2], x[-1])


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitLength(Node):
    """The rows of x over their lengths; no length is less than 1e-12."""

    x: str = _input()

    def shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if not shapes[self.x]:
            raise self._fail("the input has no axis")
        return shapes[self.x]


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """Nodes in an order in which each one's inputs are there.

    Attributes
    ----------
    inputs : tuple of Tensor
    outputs : tuple of str
        Tensors that are the result.
    nodes : tuple of Node

    Raises
    ------
    GraphError
        A tensor made twice or not at all, of the wrong type or shape, NaN in a constant.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        known = self.tensors
        for name in self.outputs:
            if name not in known:
                raise GraphError(f"output {name}: no node makes it")
        if not self.outputs:
            raise GraphError("the graph has no output")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name, with inferred shapes."""
        found: dict[str, Tensor] = {}
        shapes: dict[str, Shape] = {}

        def add(tensor: Tensor) -> None:
            if tensor.name in found:
                raise GraphError(f"tensor {tensor.name} is made twice")
            found[tensor.name] = tensor
            shapes[tensor.name] = tensor.shape

        for tensor in self.inputs:
            add(tensor)
        for node in self.nodes:
            label = f"{type(node).__name__} {node.out}"
            for name, dtype in node.inputs():
                if name not in found:
                    raise GraphError(f"{label}: there is no tensor {name}")
                if found[name].dtype != dtype:
                    raise GraphError(f"{label}: {found[name]} must be {dtype}")
            for one in fields(node):
                value = getattr(node, one.name)
                if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                    raise GraphError(f"{label}: {one.name} holds NaN or infinity")
            add(Tensor(name=node.out, shape=node.shape(shapes)))
        return found

    def readers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a tensor."""
        return tuple(node for node in self.nodes if name in (one for one, _ in node.inputs()))
