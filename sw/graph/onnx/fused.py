"""Operators that fuse several: normalization, GELU and attention, of ONNX and ONNX Runtime."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import NodeProto

from tilewright.sw.graph import ir
from tilewright.sw.graph.onnx import masks
from tilewright.sw.graph.onnx.draft import Draft
from tilewright.sw.graph.onnx.pointwise import add, add_tensors, add_vector
from tilewright.sw.graph.onnx.products import gemm, linear, product
from tilewright.sw.graph.onnx.read import attributes, f32
from tilewright.sw.graph.onnx.standard import Handler, Inputs, act_of, constant
from tilewright.sw.graph.onnx.values import Act, Array, Known, Sum, Value, as_single
from tilewright.sw.graph.onnx.view import View
from tilewright.sw.models.functions import QUICK_GELU


def _at(inputs: Inputs, index: int) -> Value | None:
    return inputs[index] if index < len(inputs) else None


def _refuse_attributes(draft: Draft, node: NodeProto, **allowed: Any) -> dict[str, Any]:
    """Attributes, where those given here must have the given value."""
    options = attributes(node)
    for name, value in allowed.items():
        if options.get(name, value) != value:
            raise draft.fail(node, f"with {name} = {options[name]} is not supported")
    return options


# ---- normalization ------------------------------------------------------------------------------


def _norm(draft: Draft, node: NodeProto, x: Act, gamma: Array | None, beta: Array | None) -> Act:
    name = draft.rows(x, node)
    width = x.of[-1]
    eps = as_single(attributes(node).get("epsilon", _EPSILON.get(node.op_type, 1e-5)))
    if gamma is None or gamma.reshape(-1).shape != (width,):
        raise draft.fail(node, f"must have a gamma of {width} values")
    shift = np.zeros(width) if beta is None else beta
    if shift.reshape(-1).shape != (width,):
        raise draft.fail(node, f"must have a beta of {width} values")
    norm = ir.LayerNorm(
        out=node.output[0],
        x=name,
        gamma=f32(gamma.reshape(-1)),
        beta=f32(shift.reshape(-1)),
        eps=eps,
    )
    return draft.emit(norm, x.of).seen(x.view)


_EPSILON = {"LayerNormalization": 1e-5, "SkipLayerNormalization": 1e-12}


def layer_norm(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """LayerNormalization over the last axis."""
    x = act_of(draft, node, inputs)
    axis = attributes(node).get("axis", -1)
    if axis not in (-1, len(x.shape) - 1):
        raise draft.fail(node, f"works on axis {axis}, only the last is supported")
    gamma, beta = (constant(draft, node, inputs, i) for i in (1, 2))
    return [_norm(draft, node, x, gamma, beta)]


def skip_layer_norm(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """``LayerNorm(x + skip + bias)``; the fourth output is the sum."""
    x, skip = act_of(draft, node, inputs), _at(inputs, 1)
    gamma, beta = (constant(draft, node, inputs, i) for i in (2, 3))
    bias = _at(inputs, 4)
    none = Known(array=np.zeros(0))
    if isinstance(skip, Known) and bias is None:
        # Rows of an embedding that are the same for every text.
        rows = add(draft, node, x, skip)
        if rows is not None:
            return [_norm(draft, node, rows, gamma, beta), none, none, rows]
    if not isinstance(skip, Act):
        raise draft.fail(node, "adds no activation")
    if isinstance(bias, Known):
        # The bias belongs to whichever operand is a product without one.
        name = f"{node.output[0]}.biased"
        for first, second in ((x, skip), (skip, x)):
            biased = add_vector(draft, node, first, bias, name)
            if biased is not None:
                x, skip = biased, second
                break
        else:
            raise draft.fail(node, "adds a bias to what is no product without one")
    total = add_tensors(draft, node, x, skip, f"{node.output[0]}.sum")
    return [_norm(draft, node, total, gamma, beta), none, none, total]


def embed_layer_norm(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """``LayerNorm(word[ids] + position + type[types])``; the second output counts valid tokens."""
    ids, types, mask = inputs[0], _at(inputs, 1), _at(inputs, 7)
    if _at(inputs, 8) is not None:
        raise draft.fail(node, "with position ids is not supported")
    word, position, kind, gamma, beta = (constant(draft, node, inputs, i) for i in range(2, 7))
    if word is None or position is None or not isinstance(ids, Known) or ids.origin is None:
        raise draft.fail(node, "must look up ids that are an input")
    parts, fixed = [(word, ids.origin)], kind
    if kind is not None and isinstance(types, Known) and types.origin is not None:
        parts, fixed = [(word, ids.origin), (kind, types.origin)], None
    elif isinstance(types, Known) and (not types.constant or types.array.any()):
        raise draft.fail(node, "must look up types that are an input, or 0")
    shape = (*ids.array.shape, word.shape[1])
    total = Sum(parts=tuple(parts), position=position, type=fixed, shape=shape)
    x = Act.plain(total, shape)
    count = Known(array=np.full(shape[:1], shape[1], np.int32))
    if isinstance(mask, Known):
        array = mask.array.reshape(shape[:2]).astype(np.int64).sum(axis=1).astype(np.int32)
        count = Known(array=array, sources=mask.sources)
    embedded = Act.plain(draft.tensor(total, node), shape)
    return [_norm(draft, node, x, gamma, beta), count, embedded]


# ---- GELU ---------------------------------------------------------------------------------------


def gelu(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Gelu, BiasGelu, FastGelu and QuickGelu: a bias, then the function."""
    x, bias = act_of(draft, node, inputs), _at(inputs, 1)
    options = attributes(node)
    function = {"FastGelu": "gelu_tanh", "QuickGelu": "quick_gelu"}.get(node.op_type, "gelu")
    if node.op_type == "Gelu" and options.get("approximate", "none") == "tanh":
        function = "gelu_tanh"
    if function == "quick_gelu" and abs(options.get("alpha", QUICK_GELU) - QUICK_GELU) > 1e-4:
        raise draft.fail(node, f"with alpha = {options['alpha']} is not supported")
    if isinstance(bias, Known):
        biased = add_vector(draft, node, x, bias, f"{node.output[0]}.biased")
        if biased is None:
            raise draft.fail(node, "adds a bias to what is no product without one")
        x = biased
    name = draft.rows(x, node)
    made = draft.emit(ir.Activation(out=node.output[0], x=name, function=function), x.of)
    return [made.seen(x.view)]


# ---- products and attention ---------------------------------------------------------------------


def fused_matmul(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """``alpha · A · B``, either transposed."""
    options = _refuse_attributes(draft, node, transBatchA=0, transBatchB=0)
    a, b = act_of(draft, node, inputs), inputs[1]
    rank = len(a.shape)
    swap = [*range(rank - 2), rank - 1, rank - 2]
    if options.get("transA", 0):
        a = a.seen(a.view.transpose(swap))
    if isinstance(b, Act):
        alpha = options.get("alpha", 1.0)
        a = a if alpha == 1 else a.curved(a.samples * alpha)
        b = b.seen(b.view.transpose(swap)) if options.get("transB", 0) else b
        return [product(draft, node, a, b)]
    weights = constant(draft, node, inputs, 1)
    if weights is None:
        raise draft.fail(node)
    weights = weights.T if options.get("transB", 0) else weights
    alpha = options.get("alpha", 1.0)
    return [linear(draft, node, a, weights if alpha == 1 else weights * np.float32(alpha), None)]


def fused_gemm(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """Gemm with an activation behind it."""
    function = attributes(node).get("activation", "")
    if function != "Tanh":
        raise draft.fail(node, f"with activation {function!r} is not supported")
    (x,) = gemm(draft, node, inputs, f"{node.output[0]}.sum")
    assert isinstance(x, Act)  # what `gemm` makes
    name = draft.rows(x, node)
    made = draft.emit(ir.Activation(out=node.output[0], x=name, function="tanh"), x.of)
    return [made.seen(x.view)]


def _attend(
    draft: Draft, node: NodeProto, qkv: list[Act], heads: int, scale: float, mask: str | None
) -> Act:
    """Attention of three tensors [B, S, hidden]."""
    q, k, v = (draft.plain(act, node) for act in qkv)
    of = qkv[0].of
    if any(act.of != of for act in qkv) or heads < 1 or of[-1] % heads:
        raise draft.fail(
            node, f"has {heads} heads and q, k, v of {[list(a.of) for a in qkv]}, which do not fit"
        )
    scale = scale or 1 / math.sqrt(of[-1] // heads)
    made = ir.Attention(out=node.output[0], q=q, k=k, v=v, mask=mask, heads=heads, scale=scale)
    return draft.emit(made, of)


def _mask(
    draft: Draft, node: NodeProto, inputs: Inputs, padding: int, bias: int, act: Act, heads: int
) -> str | None:
    """The input that masks tokens, from a padding mask or from what is added to the scores."""
    found = list[str]()
    if len(act.of) != 3:
        raise draft.fail(node, f"has q of {list(act.of)}: must be [batch, sequence, hidden]")
    batch, sequence, _ = act.of
    for index, meaning in ((padding, "tokens"), (bias, "scores")):
        value = _at(inputs, index)
        if value is None:
            continue
        if not isinstance(value, Known):
            raise draft.fail(node, f"has an input {node.input[index]!r} that is no mask")
        shape = (batch, heads, sequence, sequence)
        try:
            if meaning == "tokens":
                name = masks.tokens(value, batch, sequence)
            elif value.array.dtype == np.bool_:
                name = masks.chosen(value, shape, shape)
            else:
                name = masks.added(value, shape, shape)
        except ValueError as error:
            raise draft.fail(node, str(error)) from error
        found += [name] if name is not None else []
    if len(set(found)) > 1:
        raise draft.fail(node, f"has two masks, {found[0]} and {found[1]}")
    return found[0] if found else None


def packed_attention(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """ONNX Runtime's Attention: q, k, v of one product with weights [hidden, 3 * hidden]."""
    options = _refuse_attributes(draft, node, unidirectional=0, do_rotary=0)
    x = act_of(draft, node, inputs)
    weights, bias = (constant(draft, node, inputs, i) for i in (1, 2))
    width = x.of[-1]
    if weights is None or weights.shape != (width, 3 * width) or len(x.of) != 3:
        raise draft.fail(node, f"must have weights [{width}, {3 * width}]")
    if options.get("qkv_hidden_sizes", [width] * 3) != [width] * 3 or _at(inputs, 4) is not None:
        raise draft.fail(node, "with other widths of q, k, v or a past is not supported")
    heads = options["num_heads"]
    mask = _mask(draft, node, inputs, 3, 5, x, heads)
    qkv = []
    for i, part in enumerate("qkv"):
        columns = slice(i * width, (i + 1) * width)
        b = None if bias is None else bias.reshape(-1)[columns]
        name = f"{node.output[0]}.{part}"
        qkv.append(linear(draft, node, x, weights[:, columns], b, name))
    return [_attend(draft, node, qkv, heads, options.get("scale", 0.0), mask)]


def multi_head_attention(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """ONNX Runtime's MultiHeadAttention: q, k, v [B, S, hidden] and their biases."""
    options = _refuse_attributes(draft, node, unidirectional=0)
    qkv = [value for value in inputs[:3] if isinstance(value, Act)]
    if len(qkv) != 3 or any(len(act.of) != 3 for act in qkv) or len(inputs) > 6:
        raise draft.fail(node, "must have q, k and v of three axes, and no past")
    heads = options["num_heads"]
    bias = constant(draft, node, inputs, 3)
    if bias is not None:
        width = qkv[0].of[-1]
        for i, part in enumerate("qkv"):
            vector = Known(array=bias.reshape(-1)[i * width : (i + 1) * width])
            name = f"{node.output[0]}.{part}"
            biased = add_vector(draft, node, qkv[i], vector, name)
            if biased is None:
                raise draft.fail(node, "adds a bias to what is no product without one")
            qkv[i] = biased
    mask = _mask(draft, node, inputs, 4, 5, qkv[0], heads)
    return [_attend(draft, node, qkv, heads, options.get("scale", 0.0), mask)]


def attention(draft: Draft, node: NodeProto, inputs: Inputs) -> list[Value]:
    """ONNX's Attention: q, k, v [B, S, hidden] or [B, heads, S, head_dim]."""
    options = _refuse_attributes(draft, node, is_causal=0, softcap=0.0, qk_matmul_output_mode=0)
    qkv = [value for value in inputs[:3] if isinstance(value, Act)]
    if len(qkv) != 3 or any(value is not None for value in inputs[4:]):
        raise draft.fail(node, "must have q, k and v, and no past")
    shapes = [list(act.shape) for act in qkv]
    rank = len(shapes[0])
    if rank not in (3, 4) or shapes[1:] != shapes[:1] * 2:
        raise draft.fail(
            node, f"has q, k and v of {shapes}: must be equal, of 3 axes or of 4 with the heads"
        )
    heads = shapes[0][1] if rank == 4 else options.get("q_num_heads", 0)
    if options.get("kv_num_heads", heads) != heads:
        raise draft.fail(node, "with fewer heads of k and v is not supported")
    if rank == 4 and all(act.view == View.of(act.of) for act in qkv):
        # In heads for good: each is an attention of its own.
        if _at(inputs, 3) is not None:
            raise draft.fail(node, "of inputs in heads must have no mask")
        return [_attend(draft, node, qkv, 1, options.get("scale", 0.0), None)]
    if rank == 4:
        if {act.view.heads(act.of) for act in qkv} != {heads}:
            raise draft.fail(node, "must have heads that are columns of q, k and v")
        qkv = [act.seen(View.of(act.of)) for act in qkv]
    mask = _mask(draft, node, inputs, 99, 3, qkv[0], heads)
    out = _attend(draft, node, qkv, heads, options.get("scale", 0.0), mask)
    if rank == 3:
        return [out]
    batch, sequence, width = out.of
    split = out.view.reshape((batch, sequence, heads, width // heads))
    assert split is not None  # heads divide the width
    return [out.seen(split.transpose([0, 2, 1, 3]))]


STANDARD: dict[str, Handler] = {
    "LayerNormalization": layer_norm,
    "Gelu": gelu,
    "Attention": attention,
}
"""Operators of ONNX, by name."""

MICROSOFT: dict[str, Handler] = {
    "LayerNormalization": layer_norm,
    "SkipLayerNormalization": skip_layer_norm,
    "EmbedLayerNormalization": embed_layer_norm,
    "Gelu": gelu,
    "BiasGelu": gelu,
    "FastGelu": gelu,
    "QuickGelu": gelu,
    "FusedMatMul": fused_matmul,
    "FusedGemm": fused_gemm,
    "Attention": packed_attention,
    "MultiHeadAttention": multi_head_attention,
}
"""Operators of ONNX Runtime, by name."""
