"""Families of encoders: where the configuration, tensors and heads of each differ from BERT's.

Every family here computes what `tilewright.sw.models.bert.Bert` computes: post-LayerNorm layers
behind learned absolute positions. A family is known by ``model_type`` of its ``config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tilewright.sw.models.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Names of a layer's parts in a checkpoint; the fields are those of `bert.Layer`."""

    q: str = "attention.self.query"
    k: str = "attention.self.key"
    v: str = "attention.self.value"
    o: str = "attention.output.dense"
    ln1: str = "attention.output.LayerNorm"
    ffn1: str = "intermediate.dense"
    ffn2: str = "output.dense"
    ln2: str = "output.LayerNorm"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A sequence classifier: ``logits = outputs(function(pooler(first token)))``.

    Attributes
    ----------
    pooler, outputs : str
        Names of the two products in a checkpoint.
    function : str
        Of `tilewright.sw.models.functions.HOST_FUNCTIONS`.
    """

    pooler: str = "pooler.dense"
    function: str = "tanh"
    outputs: str = "classifier"


_DENSE = Classifier(pooler="classifier.dense", outputs="classifier.out_proj")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family; the defaults are BERT.

    Attributes
    ----------
    classes : str
        What the names of its architectures begin with.
    keys : mapping
        Keys of ``config.json`` that have another name, by BERT's.
    defaults : mapping
        What keys that may be missing mean, by BERT's name.
    layer : str
        What names of a layer's tensors begin with: ``{layer}``, or ``{group}`` and ``{inner}`` of
        layers that share weights.
    parts : Parts
    project : str
        Name of the product behind the embedding's LayerNorm; "" where there is none.
    padded_positions : bool
        Positions count from ``pad_token_id`` + 1.
    typed : bool
        There is a table of token types.
    classifier : Classifier
    """

    classes: str
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    layer: str = "encoder.layer.{layer}."
    parts: Parts = Parts()
    project: str = ""
    padded_positions: bool = False
    typed: bool = True
    classifier: Classifier = Classifier()

    def get(self, raw: Mapping[str, Any], key: str) -> Any:
        """The value of a key of ``config.json``, by BERT's name.

        Raises
        ------
        ModelError
            If it is missing and may not be.
        """
        for name in (self.keys.get(key, key), key):
            if name in raw:
                return raw[name]
        known = {**_DEFAULTS, **self.defaults}
        if key not in known:
            raise ModelError(f"config.json has no {self.keys.get(key, key)}")
        return known[key]

    def integer(self, raw: Mapping[str, Any], key: str, least: int = 1) -> int:
        """The value of a key that must be an integer.

        Raises
        ------
        ModelError
            If it is none, or below `least`.
        """
        value = self.get(raw, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            name = self.keys.get(key, key)
            raise ModelError(f"config: {name} = {value!r}: must be an integer of at least {least}")
        return value


_DEFAULTS: Mapping[str, Any] = {
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "use_task_id": False,
    "task_type_vocab_size": 3,
}

BERT = Family(classes="Bert")

_ROBERTA: dict[str, Any] = {
    "defaults": {"pad_token_id": 1},
    "padded_positions": True,
    "classifier": _DENSE,
}

FAMILIES: dict[str, Family] = {
    "bert": BERT,
    "roberta": Family(classes="Roberta", **_ROBERTA),
    "xlm-roberta": Family(classes="XLMRoberta", **_ROBERTA),
    "camembert": Family(classes="Camembert", **_ROBERTA),
    "distilbert": Family(
        classes="DistilBert",
        keys={
            "hidden_size": "dim",
            "num_attention_heads": "n_heads",
            "num_hidden_layers": "n_layers",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        },
        layer="transformer.layer.{layer}.",
        parts=Parts(
            q="attention.q_lin",
            k="attention.k_lin",
            v="attention.v_lin",
            o="attention.out_lin",
            ln1="sa_layer_norm",
            ffn1="ffn.lin1",
            ffn2="ffn.lin2",
            ln2="output_layer_norm",
        ),
        typed=False,
        classifier=Classifier(pooler="pre_classifier", function="relu"),
    ),
    "electra": Family(
        classes="Electra",
        defaults={"embedding_size": 128},
        project="embeddings_project",
        classifier=Classifier(
            pooler="classifier.dense", function="gelu", outputs="classifier.out_proj"
        ),
    ),
    "ernie": Family(classes="Ernie"),
    "albert": Family(
        classes="Albert",
        defaults={"embedding_size": 128, "hidden_act": "gelu_new"},
        layer="encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
        parts=Parts(
            q="attention.query",
            k="attention.key",
            v="attention.value",
            o="attention.dense",
            ln1="attention.LayerNorm",
            ffn1="ffn",
            ffn2="ffn_output",
            ln2="full_layer_layer_norm",
        ),
        project="encoder.embedding_hidden_mapping_in",
        classifier=Classifier(pooler="pooler"),
    ),
}
"""By ``model_type``."""


def family_of(raw: Mapping[str, Any]) -> Family:
    """The family of a ``config.json``; BERT where it names none.

    Raises
    ------
    ModelError
        With the families there are.
    """
    kind = raw.get("model_type", "bert")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ModelError(
            f"config: model_type {kind!r} is not supported, only {', '.join(FAMILIES)}"
        )
    return family


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a checkpoint has the weights of its encoder.

    Attributes
    ----------
    layers : tuple of str
        What names of each layer's tensors begin with; layers that share weights share it.
    parts : Parts
    width : int
        Columns of the embedding tables.
    skipped : int
        Rows of the position table before that of the first token.
    typed : bool
        There is a table of token types.
    tasks : int
        Rows of a table of tasks, whose row 0 is added to every token; 0 without one.
    project : str
        Name of the product behind the embedding's LayerNorm; "" where there can be none.
    """

    layers: tuple[str, ...]
    width: int
    parts: Parts = Parts()
    skipped: int = 0
    typed: bool = True
    tasks: int = 0
    project: str = ""

    @classmethod
    def of_bert(cls, layers: int, width: int) -> Layout:
        """Layout of a BERT."""
        return cls(layers=tuple(BERT.layer.format(layer=i) for i in range(layers)), width=width)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Layout:
        """Layout of what a ``config.json`` describes.

        Raises
        ------
        ModelError
            As `family_of` and `Family.get`.
        """
        family = family_of(raw)
        width = "embedding_size" if family.project else "hidden_size"
        tasks = family is FAMILIES["ernie"] and family.get(raw, "use_task_id")
        return cls(
            layers=_places(family, raw),
            width=family.integer(raw, width),
            parts=family.parts,
            skipped=padding_of(raw) + 1 if family.padded_positions else 0,
            typed=family.typed,
            tasks=family.integer(raw, "task_type_vocab_size") if tasks else 0,
            project=family.project,
        )


def padding_of(raw: Mapping[str, Any]) -> int:
    """The token id of padding, which positions count from."""
    return family_of(raw).integer(raw, "pad_token_id", 0)


def layers_of(raw: Mapping[str, Any]) -> int:
    """Layers that run: those of a group one after the other, as often as the configuration says."""
    family = family_of(raw)
    return family.integer(raw, "num_hidden_layers") * family.integer(raw, "inner_group_num")


def _places(family: Family, raw: Mapping[str, Any]) -> tuple[str, ...]:
    steps, inner, groups = (
        family.integer(raw, key)
        for key in ("num_hidden_layers", "inner_group_num", "num_hidden_groups")
    )
    return tuple(
        family.layer.format(layer=i, group=int(i // inner / (steps / groups)), inner=i % inner)
        for i in range(steps * inner)
    )
