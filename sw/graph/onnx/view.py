"""How an ONNX tensor's axes lie over those of an internal tensor.

Exporters spell heads, flattened batches and transposed operands as chains of Reshape, Transpose,
Squeeze and Unsqueeze. Such a chain moves no number: a view says where each axis comes from, so the
chain's meaning can be compared whatever its steps were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Atom = tuple[int, int, int]
"""Part of one axis: the axis, how many steps, how many elements of the axis each step is."""
Group = tuple[Atom, ...]


@dataclass(frozen=True)
class View:
    """One group of atoms for each axis, outermost first; an axis of size 1 has none."""

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, shape: Iterable[int]) -> View:
        """The tensor as it is."""
        return cls(tuple(_whole(axis, size) for axis, size in enumerate(shape)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(math.prod(size for _, size, _ in group) for group in self.groups)

    @property
    def flat(self) -> Group:
        """All atoms in order, neighbours that continue each other joined."""
        return _joined(atom for group in self.groups for atom in group)

    def transpose(self, permutation: Sequence[int]) -> View:
        """Axis i of the result is axis `permutation[i]`."""
        return View(tuple(self.groups[axis] for axis in permutation))

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements in the same order in other axes; None where an axis is cut unevenly."""
        rest = list(self.flat)
        groups = []
        for size in shape:
            group: list[Atom] = []
            while size > 1:
                if not rest:
                    return None
                axis, have, stride = rest.pop(0)
                if size % have:
                    if have % size:
                        return None
                    rest.insert(0, (axis, have // size, stride))
                    stride, have = stride * (have // size), size
                group.append((axis, have, stride))
                size //= have
            groups.append(_joined(group))
        return None if rest else View(tuple(groups))

    def squeeze(self, axes: Sequence[int]) -> View:
        """Without some axes of size 1."""
        return View(tuple(group for axis, group in enumerate(self.groups) if axis not in axes))

    def unsqueeze(self, axes: Sequence[int]) -> View:
        """With axes of size 1 inserted, which `axes` numbers in the result."""
        groups = list(self.groups)
        for axis in sorted(axes):
            groups.insert(axis, ())
        return View(tuple(groups))

    def is_rows(self, shape: Sequence[int]) -> bool:
        """Whether the last axis is that of the tensor, so that what works on rows can see it."""
        return bool(self.groups) and self.groups[-1] == View.of(shape).groups[-1]

    def with_width(self, shape: Sequence[int], width: int) -> View:
        """The view of a tensor whose rows have another width; `is_rows` must hold."""
        return View((*self.groups[:-1], _whole(len(shape) - 1, width)))

    def heads(self, shape: Sequence[int], *, swapped: bool = False) -> int | None:
        """Number of heads of a view [..., heads, S, d] of a tensor [..., S, heads * d].

        Leading axes may be merged, as ``bmm`` has them. `swapped`: [..., heads, d, S].
        """
        if len(shape) < 2 or len(self.groups) < 2:
            return None
        *lead, rows, columns = self.groups
        if swapped:
            rows, columns = columns, rows
        last = len(shape) - 1
        width = math.prod(size for _, size, _ in columns)
        if not width or shape[last] % width:
            return None
        heads = shape[last] // width
        part: Group = ((last, heads, width),) if heads > 1 else ()
        before = (atom for axis in range(last - 1) for atom in _whole(axis, shape[axis]))
        fits = (
            columns == _whole(last, width)
            and rows == _whole(last - 1, shape[last - 1])
            and _joined(atom for group in lead for atom in group) == (*before, *part)
        )
        return heads if fits else None


def _whole(axis: int, size: int) -> Group:
    return ((axis, size, 1),) if size > 1 else ()


def _joined(atoms: Iterable[Atom]) -> Group:
    out: list[Atom] = []
    for axis, size, stride in atoms:
        if out and out[-1][0] == axis and out[-1][2] == size * stride:
            out[-1] = (axis, out[-1][1] * size, stride)
        else:
            out.append((axis, size, stride))
    return tuple(out)
