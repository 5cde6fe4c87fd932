"""The shape of an encoder, from ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.sw.errors import reason
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.families import family_of, layers_of, padding_of
from tilewright.sw.models.functions import table_of

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""Values of ``hidden_act``, and the function of `tilewright.sw.models.functions` each means."""

_TABLES = ("gelu", "silu", "tanh")


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Shape of an encoder.

    Attributes
    ----------
    hidden, heads, layers, ffn : int
        Width, attention heads, layers, width of the feed-forward block.
    vocab, positions, types : int
        Rows of the embedding tables; of the positions those that tokens can have.
    act : str
        The hardware's table: ``gelu`` (erf form), ``silu`` or ``tanh``.
    tanh_form : bool
        The model was trained with GELU's tanh form. fp32 computes that; the hardware's erf table
        serves it too, since the two differ by .0005 at most and the table by .0018.
    eps : float
        Of every LayerNorm.
    padding : int or None
        Token id that positions do not count, which a text must not hold; None where they count
        every token.

    Raises
    ------
    ModelError
        A value that is not supported.
    """

    hidden: int
    heads: int
    layers: int
    ffn: int
    vocab: int
    positions: int
    types: int
    act: str
    eps: float
    tanh_form: bool = False
    padding: int | None = None

    def __post_init__(self) -> None:
        for name in ("hidden", "heads", "layers", "ffn", "vocab", "positions", "types"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"config: {name} = {value!r}: must be an integer of at least 1")
        if self.hidden % self.heads:
            raise ModelError(f"config: hidden {self.hidden} is no multiple of heads {self.heads}")
        if self.act not in _TABLES:
            allowed = ", ".join(ACTIVATIONS)
            raise ModelError(f"config: activation {self.act!r} is not supported, only {allowed}")
        if self.tanh_form and self.act != "gelu":
            raise ModelError(f"config: only gelu has a tanh form, not {self.act}")
        if not 0 < self.eps < 1:
            raise ModelError(f"config: layer_norm_eps = {self.eps!r}: must be 0 to 1")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    @property
    def function(self) -> str:
        """The activation that fp32 computes, of `tilewright.sw.models.functions.FUNCTIONS`."""
        return "gelu_tanh" if self.tanh_form else self.act

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> BertConfig:
        """From the content of ``config.json``; ``quick_gelu`` becomes ``silu`` (`fold_act`).

        Raises
        ------
        ModelError
            A missing key, a value or kind of model that is not supported.
        """
        for key, wanted in (
            ("position_embedding_type", "absolute"),
            ("is_decoder", False),
            ("add_cross_attention", False),
        ):
            if raw.get(key, wanted) != wanted:
                raise ModelError(f"config: {key} {raw[key]!r} is not supported, only {wanted!r}")
        if raw.get("pruned_heads"):
            raise ModelError("config: pruned_heads are not supported")
        family, function = family_of(raw), function_of(raw)
        padding = padding_of(raw) if family.padded_positions else None
        skipped = 0 if padding is None else padding + 1
        try:
            return cls(
                hidden=family.integer(raw, "hidden_size"),
                heads=family.integer(raw, "num_attention_heads"),
                layers=layers_of(raw),
                ffn=family.integer(raw, "intermediate_size"),
                vocab=family.integer(raw, "vocab_size"),
                positions=family.integer(raw, "max_position_embeddings") - skipped,
                types=family.integer(raw, "type_vocab_size") if family.typed else 1,
                act=table_of(function),
                tanh_form=function == "gelu_tanh",
                eps=float(family.get(raw, "layer_norm_eps")),
                padding=padding,
            )
        except (TypeError, ValueError) as error:
            raise ModelError(f"config.json: missing or bad entry {error}") from error


def function_of(raw: dict[str, Any]) -> str:
    """The function ``hidden_act`` means; what is unknown comes back as it is."""
    name = family_of(raw).get(raw, "hidden_act")
    return ACTIVATIONS.get(str(name), str(name))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises
    ------
    ModelError
        Unreadable, not JSON, not an object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} holds no JSON object")
    return raw
