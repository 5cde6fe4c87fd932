"""Widths of a model's products: the modes, one choice a layer, and their text form."""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tilewright.sw.errors import reason
from tilewright.sw.models.errors import ModelError


class Mode(enum.Enum):
    """Width of a product's weights and of the operand fed to the array.

    An 8-bit operand is s16 at rest and fed as s8 through a row scale; a 16-bit one is fed as
    balanced bytes, without a row scale. 16-bit weights are balanced bytes too; 4-bit weights are
    w4 * g in groups of 32 rows of K (docs/numerics.md, section 3).
    """

    W8A8 = "w8a8"
    W8A16 = "w8a16"
    W16A16 = "w16a16"
    W4A8 = "w4a8"
    W4A16 = "w4a16"

    @property
    def weight_bits(self) -> int:
        """4, 8 or 16."""
        return int(self.value[1:].partition("a")[0])

    @property
    def operand_bits(self) -> int:
        """8 or 16."""
        return int(self.value.partition("a")[2])

    @property
    def passes(self) -> int:
        """Byte passes through the array: 1 (W8A8, W4A8), 2 (W8A16, W4A16) or 4 (W16A16)."""
        return -(-self.weight_bits // 8) * (self.operand_bits // 8)


PRODUCTS = ("qkv", "o", "ffn1", "ffn2")
"""Products of a layer with a mode of their own; q, k and v share theirs."""


@dataclass(frozen=True, kw_only=True)
class LayerPrecision:
    """Widths within one layer.

    Attributes
    ----------
    qkv, o, ffn1, ffn2 : Mode
        Of the products with weights.
    attention : int
        8 or 16: width of q, k and v, as results and as operands of attention.
    """

    qkv: Mode
    o: Mode
    ffn1: Mode
    ffn2: Mode
    attention: int

    def __post_init__(self) -> None:
        if self.attention not in (8, 16):
            raise ModelError(f"precision: attention = {self.attention}: must be 8 or 16")

    @classmethod
    def uniform(cls, mode: Mode) -> LayerPrecision:
        """One mode for all products; attention as wide as their operands."""
        return cls(qkv=mode, o=mode, ffn1=mode, ffn2=mode, attention=mode.operand_bits)

    def modes(self) -> tuple[Mode, ...]:
        """Modes in the order of `PRODUCTS`."""
        return tuple(getattr(self, name) for name in PRODUCTS)


EdgeFormat = Mode | int
"""Of an operation: a product's mode, or the bits of attention."""
ModelPrecision = tuple[LayerPrecision, ...]
"""One choice a layer."""

OPERATIONS = tuple(field.name for field in fields(LayerPrecision))
"""What a precision chooses in each layer: the products, and `attention`."""


def with_width(layer: LayerPrecision, operation: str, width: EdgeFormat) -> LayerPrecision:
    """The same layer with another width of one of `OPERATIONS`."""
    changes: dict[str, Any] = {operation: width}
    return replace(layer, **changes)


def uniform(mode: Mode, layers: int) -> ModelPrecision:
    """The same mode everywhere."""
    return (LayerPrecision.uniform(mode),) * layers


def parse_precision(text: str, layers: int) -> ModelPrecision:
    """Read a precision.

    Parameters
    ----------
    text : str
        A base (``w8a8``, ``w8a16``, ``w16a16``, ``w4a8``, ``w4a16``) and overrides behind it,
        separated by commas or blanks; later ones win: ``ffn2=w8a16`` in every layer,
        ``2.ffn2=w8a16`` in layer 2, ``0-2.attention=16`` in layers 0, 1 and 2. Or the path of a
        TOML file (``….toml``) with ``base`` and the same keys, which may be grouped in tables
        (``[0-2]``).
    layers : int
        Layers of the model.

    Raises
    ------
    ModelError
        One line that names the part that cannot be read, and what is allowed.
    """
    if text.strip().endswith(".toml"):
        items = _toml_items(Path(text.strip()))
    else:
        items = _text_items(text)
    base: Mode | None = None
    chosen: list[LayerPrecision] = []
    for key, value in items:
        if base is None:
            if key != "base":
                raise ModelError(f"precision: {key}={value} stands before a base ({_MODES})")
            base = _mode(value, "base")
            chosen = list(uniform(base, layers))
        else:
            for layer, operation, width in _override(key, value, layers):
                chosen[layer] = with_width(chosen[layer], operation, width)
    if base is None:
        raise ModelError(f"precision: {text!r} names no base ({_MODES})")
    return tuple(chosen)


def format_precision(precision: Sequence[LayerPrecision]) -> str:
    """The shortest text of a base, overrides of all layers and overrides of runs of layers.

    `parse_precision` reads it back.
    """
    texts = []
    for base in Mode:
        ground = LayerPrecision.uniform(base)
        parts = [base.value]
        for operation in OPERATIONS:
            column = [getattr(layer, operation) for layer in precision]
            parts += _overrides(operation, getattr(ground, operation), column)
        texts.append(",".join(parts))
    return min(texts, key=len)


_MODES = ", ".join(mode.value for mode in Mode)
_KEY = re.compile(r"(?:(\d+)(?:-(\d+))?\.)?([a-z]\w*)")


def _text_items(text: str) -> list[tuple[str, str]]:
    items: list[tuple[str, str]] = []
    for part in filter(None, re.split(r"[,\s]+", text)):
        key, equals, value = part.partition("=")
        if not equals:
            # A bare word is the base, and there is one, in front.
            if items:
                raise ModelError(f"precision: {part!r} is no override OPERATION=WIDTH")
            key, value = "base", part
        items.append((key, value))
    return items


def _toml_items(path: Path) -> list[tuple[str, str]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
    items = list(_flat(content))
    # The base holds for the whole file, wherever it stands.
    items.sort(key=lambda item: item[0] != "base")
    return items


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)


def _mode(value: str, key: str) -> Mode:
    try:
        return Mode(value.lower())
    except ValueError:
        raise ModelError(f"precision: {key} = {value!r}: must be one of {_MODES}") from None


def _override(key: str, value: str, layers: int) -> Iterable[tuple[int, str, EdgeFormat]]:
    match = _KEY.fullmatch(key)
    if match is None or match[3] not in OPERATIONS:
        allowed = ", ".join(OPERATIONS)
        raise ModelError(
            f"precision: {key!r} is no operation ({allowed}), alone or behind LAYER. or FROM-TO."
        )
    width: EdgeFormat
    if match[3] == "attention":
        if value not in ("8", "16"):
            raise ModelError(f"precision: {key} = {value!r}: must be 8 or 16")
        width = int(value)
    else:
        width = _mode(value, key)
    first = 0 if match[1] is None else int(match[1])
    last = layers - 1 if match[1] is None else first if match[2] is None else int(match[2])
    if not first <= last < layers:
        raise ModelError(f"precision: {key!r}: must be layers 0 to {layers - 1}")
    return ((layer, match[3], width) for layer in range(first, last + 1))


def _overrides(operation: str, ground: EdgeFormat, column: list[EdgeFormat]) -> list[str]:
    """Fewest characters that make `column` of a ground value."""
    choices = []
    for default in dict.fromkeys([ground, *column]):
        parts = [] if default == ground else [f"{operation}={_show(default)}"]
        choices.append(parts + _runs(operation, default, column))
    return min(choices, key=lambda parts: len(",".join(parts)))


def _runs(operation: str, default: EdgeFormat, column: list[EdgeFormat]) -> list[str]:
    parts = []
    first = 0
    for i, value in enumerate(column):
        if i + 1 < len(column) and column[i + 1] == value:
            continue
        if value != default:
            where = f"{first}" if first == i else f"{first}-{i}"
            parts.append(f"{where}.{operation}={_show(value)}")
        first = i + 1
    return parts


def _show(width: EdgeFormat) -> str:
    return width.value if isinstance(width, Mode) else str(width)
