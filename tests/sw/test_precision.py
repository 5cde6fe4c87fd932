"""Precision: its text, and layers of every mode against fp32 and against the golden functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sw.small_bert import CONFIG, small_bert
from tilewright.sim import golden
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize import reference
from tilewright.sw.quantize.calibrate import LayerRange, calibrate
from tilewright.sw.quantize.evaluation import Ids, evaluate
from tilewright.sw.quantize.formats import EdgeFormat, QLayer, State
from tilewright.sw.quantize.precision import (
    PRODUCTS,
    LayerPrecision,
    Mode,
    format_precision,
    parse_precision,
    uniform,
    with_width,
)
from tilewright.sw.quantize.quantize import Quantizer, Recipe, quantize

LAYERS = st.lists(
    st.builds(
        LayerPrecision,
        **{name: st.sampled_from(Mode) for name in PRODUCTS},
        attention=st.sampled_from([8, 16]),
    ),
    min_size=1,
    max_size=6,
)


@given(LAYERS)
def test_text_and_back(layers: list[LayerPrecision]) -> None:
    assert parse_precision(format_precision(layers), len(layers)) == tuple(layers)


@pytest.mark.parametrize(
    "text",
    [
        *(mode.value for mode in Mode),
        "w8a8,ffn2=w8a16",
        "w8a8,attention=16",
        "w8a16,attention=8",
        "w8a8,2.ffn2=w8a16",
        "w8a8,0-2.qkv=w8a16,4-5.attention=16",
        "w16a16,3.o=w4a8",
    ],
)
def test_shortest_text(text: str) -> None:
    assert format_precision(parse_precision(text, 6)) == text


def test_later_overrides_win() -> None:
    found = parse_precision(" w8a8  ffn2=w8a16, 1.ffn2=W4A8 attention=16,2.attention=8 ", 3)
    assert [layer.ffn2.value for layer in found] == ["w8a16", "w4a8", "w8a16"]
    assert [layer.attention for layer in found] == [16, 16, 8]
    assert {layer.qkv for layer in found} == {Mode.W8A8}


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "mixed.toml"
    path.write_text(
        'ffn2 = "w8a16"\nbase = "w8a8"\n1.o = "w16a16"\n[0-1]\nattention = 16\n[2]\nffn2 = "w4a8"\n'
    )
    want = parse_precision("w8a8,0-1.ffn2=w8a16,1.o=w16a16,0-1.attention=16,2.ffn2=w4a8", 3)
    assert parse_precision(str(path), 3) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no base"),
        ("int8", "base = 'int8': must be one of w8a8, w8a16, w16a16, w4a8, w4a16"),
        ("ffn2=w8a16", "ffn2=w8a16 stands before a base"),
        ("w8a8,w8a16", "'w8a16' is no override"),
        ("w8a8,ffn3=w8a16", r"'ffn3' is no operation \(qkv, o, ffn1, ffn2, attention\)"),
        ("w8a8,ffn2=w2a2", "ffn2 = 'w2a2': must be one of"),
        ("w8a8,attention=12", "attention = '12': must be 8 or 16"),
        ("w8a8,6.ffn2=w8a16", "'6.ffn2': must be layers 0 to 5"),
        ("w8a8,3-1.ffn2=w8a16", "'3-1.ffn2': must be"),
        ("w8a8,-1.ffn2=w8a16", "'-1.ffn2' is no operation"),
        ("w8a8,base=w8a16", "'base' is no operation"),
        ("nowhere.toml", "cannot read nowhere.toml"),
    ],
)
def test_bad_text(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        parse_precision(text, 6)
    assert "\n" not in str(caught.value)


def test_bad_toml(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("base = w8a8\n")
    with pytest.raises(ModelError, match="cannot read"):
        parse_precision(str(path), 6)
    path.write_text('base = "w8a8"\nattention = true\n')
    with pytest.raises(ModelError, match="attention = 'True'"):
        parse_precision(str(path), 6)


def test_bad_attention() -> None:
    with pytest.raises(ModelError, match="attention = 4"):
        replace(LayerPrecision.uniform(Mode.W8A8), attention=4)


def test_mode_widths() -> None:
    widths = {mode: (mode.weight_bits, mode.operand_bits, mode.passes) for mode in Mode}
    assert widths == {
        Mode.W8A8: (8, 8, 1),
        Mode.W8A16: (8, 16, 2),
        Mode.W16A16: (16, 16, 4),
        Mode.W4A8: (4, 8, 1),
        Mode.W4A16: (4, 16, 2),
    }


@pytest.fixture(scope="module")
def small() -> tuple[Bert, Quantizer, list[Ids]]:
    model = small_bert(21)
    rng = np.random.default_rng(21)
    ids = [rng.integers(0, CONFIG.vocab, n).astype(np.int32) for n in rng.integers(4, 40, 40)]
    ranges = calibrate(model, ids[:30], moments=True)
    return model, Quantizer(model, ranges), ids[30:]


LEAST = {
    # mean cosine of the small model's embeddings, a little below what each mode reaches
    "w8a8": 0.999,
    "w8a16": 0.9998,
    "w16a16": 0.99998,
    "w4a8": 0.98,
    "w4a16": 0.98,
    "w8a8,attention=16": 0.999,
    "w8a16,attention=8": 0.9995,
    "w8a8,o=w8a16": 0.999,
    "w16a16,o=w8a8": 0.9995,
    "w8a8,0.ffn2=w16a16,1.qkv=w4a16,1.attention=16": 0.99,
}


@pytest.mark.parametrize("text", LEAST)
def test_modes(small: tuple[Bert, Quantizer, list[Ids]], text: str) -> None:
    model, quantizer, sequences = small
    precision = parse_precision(text, 2)
    quantized = quantizer(precision)
    assert quantized.precision == precision
    for layer in quantized.layers:
        check_formats(layer)
    assert evaluate(model, quantized, sequences).summary.mean >= LEAST[text]


def check_formats(layer: QLayer) -> None:
    """Every width of a layer is what its precision says."""
    widths = layer.precision
    wide = {name: getattr(widths, name).operand_bits == 16 for name in PRODUCTS}
    for name, mode in (
        *((part, widths.qkv) for part in "qkv"),
        *((part, getattr(widths, part)) for part in PRODUCTS[1:]),
    ):
        op = getattr(layer, name)
        assert op.mode is mode
        assert op.row_scaled == (mode.operand_bits == 8)
        limit = {4: 120, 8: 127, 16: 32639}[mode.weight_bits]
        assert np.abs(op.weight.astype(int)).max() <= limit
        assert op.weight.dtype == (np.int16 if mode.weight_bits == 16 else np.int8)
        assert (op.groups is not None) == (mode.weight_bits == 4)
        assert op.shift.min() >= (9 if op.row_scaled else 8)
        assert op.shift.max() <= 61
    heads = EdgeFormat.SYM16 if layer.attention_bits == 16 else EdgeFormat.S8
    assert {layer.q.out, layer.k.out, layer.v.out} == {heads}

    def width(name: str) -> EdgeFormat:
        return EdgeFormat.SYM16 if wide[name] else EdgeFormat.S16

    assert layer.input.width is width("qkv")
    assert layer.context is width("o")
    assert layer.ln1.out is width("ffn1")
    assert layer.ffn1.act_out is width("ffn2")
    assert layer.ln2.out is layer.output.width
    # What is fed 16 bits wide is not smoothed.
    if wide["qkv"]:
        assert (layer.input.smooth == 1).all()
    assert layer.ffn1.smooth is not None
    if wide["ffn2"]:
        assert len(set(layer.ffn1.smooth.mult.tolist())) == 1


def test_16_bits_are_nearer_than_8(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    model, quantizer, sequences = small
    losses = [
        1 - evaluate(model, quantizer(text), sequences).summary.mean
        for text in ("w4a8", "w8a8", "w8a16", "w16a16")
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[3] < losses[1] / 20


def test_w4_nearest(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    """GPTQ's 4-bit weights lose less than the nearest ones."""
    model, _, sequences = small
    ranges = calibrate(model, sequences, moments=True)
    losses = {}
    for way in ("gptq", "nearest"):
        quantized = Quantizer(model, ranges, Recipe(w4=way))("w4a8")
        losses[way] = 1 - evaluate(model, quantized, sequences).summary.mean
    assert losses["gptq"] < 0.8 * losses["nearest"]


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("k", [1, 48, 4096])
def test_product16_is_what_the_regions_combine_to(k: int, dtype: type[np.integer]) -> None:
    rng = np.random.default_rng(k)
    x = rng.integers(-32768, 32640, (5, k)).astype(np.int16)
    limit = 127 if dtype is np.int8 else 32639
    w = rng.integers(-limit, limit + 1, (k, 4)).astype(dtype)
    x[0], x[1], w[:, 0], w[:, 1] = 32639, -32768, limit, -limit
    if dtype is np.int8:
        want = golden.combine_16x8(*golden.matmul_16x8(x, w))
    else:
        want = golden.combine_16x16(*golden.matmul_16x16(x, w))
    np.testing.assert_array_equal(reference.product16(x, w), want)


def test_product16_refuses() -> None:
    one = np.ones((1, 1), np.int16)
    with pytest.raises(ValueError, match="operand 32640: must be at most 32639"):
        reference.product16(one * 32640, one)
    with pytest.raises(ValueError, match="weight 32767: must be at most 32639"):
        reference.product16(one, one * 32767)
    with pytest.raises(ValueError, match="K = 4097"):
        reference.product16(np.ones((1, 4097), np.int16), np.ones((4097, 1), np.int8))


def test_16_bit_edges_saturate_at_both_bytes(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    """An input far beyond the calibrated range stays within +-32639 wherever it is fed."""
    _, quantizer, _ = small
    layer = quantizer("w16a16").layers[0]
    rng = np.random.default_rng(22)
    x = rng.choice(np.array([-32639, 32639], np.int16), (12, CONFIG.hidden))
    # Shifted by a few bits, every product overflows its result.
    loud = {part: replace(getattr(layer, part), shift=getattr(layer, part).shift - 6) for part in
            ("q", "k", "v", "ffn1")}  # fmt: skip
    ln1 = replace(layer.ln1, shift=layer.ln1.shift - 6)
    trace = reference.trace_layer(replace(layer, ln1=ln1, **loud), x)
    for name in ("q", "k", "v", "ctx", "x1", "g"):
        values = getattr(trace, name).astype(int)
        assert np.abs(values).max() <= 32639, name
    for name in ("q", "k", "v", "x1"):
        assert {-32639, 32639} <= set(getattr(trace, name).reshape(-1).tolist())
    assert trace.h.max() == 32767


@pytest.mark.parametrize(("text", "lowest"), [("w8a16", -32639), ("w8a16,o=w8a8", -32767)])
def test_context_saturates_where_it_is_fed_wide(
    small: tuple[Bert, Quantizer, list[Ids]], text: str, lowest: int
) -> None:
    layer = small[1](text).layers[0]
    zero = np.zeros((4, CONFIG.hidden), np.int16)
    v = np.full_like(zero, -32768)
    assert set(reference.attention(layer, zero, zero, v, 4)[1].flat) == {lowest}


@pytest.mark.parametrize("text", ["w16a16", "w8a8"])
def test_16_bit_operands_may_take_a_smaller_shift(text: str) -> None:
    """A loud weight into a fine residual: shift 8, which a row scale's exponent does not allow."""
    model = small_bert(24)
    rng = np.random.default_rng(24)
    ranges = calibrate(model, [rng.integers(0, CONFIG.vocab, 20)], moments=True)
    real = model.layers[0].q
    bits = 16 if text == "w16a16" else 8
    quantized = quantize(model, ranges, precision=text).layers[0].q
    # The multiplier of channel 0 is what its weights say: scale them until its shift is 8.
    factor = 2.0 ** (int(quantized.shift[0]) - 8)
    w = real.w.copy()
    w[:, 0] *= factor
    first = replace(model.layers[0], q=replace(real, w=w, b=0 * real.b))
    loud = replace(model, layers=(first, model.layers[1]))
    if bits == 16:
        assert quantize(loud, ranges, precision=text).layers[0].q.shift.min() <= 8
    else:
        with pytest.raises(ModelError, match=r"layer 0\.q: weights too large"):
            quantize(loud, ranges, precision=text)


def test_state_saturates_at_its_width() -> None:
    for width in (EdgeFormat.S16, EdgeFormat.SYM16):
        state = State(scale=1.0, smooth=np.ones(2), width=width)
        assert state.to_int(np.array([-1e6, 1e6])).tolist() == list(width.bounds)


def test_wide_attention_equals_integers(small: tuple[Bert, Quantizer, list[Ids]]) -> None:
    """Scores and context of 16-bit q, k, v by plain integer arithmetic."""
    _, quantizer, sequences = small
    layer = quantizer("w8a16").layers[0]
    embedding = quantizer("w8a16").embedding
    x = reference.run_embedding(embedding, sequences[0])
    trace = reference.trace_layer(layer, x, len(x) - 1)
    d = layer.head_dim
    for head in range(layer.heads):
        span = slice(head * d, (head + 1) * d)
        q, k, v = (getattr(trace, n)[:, span].astype(object) for n in ("q", "k", "v"))
        scores = q @ k.T
        for i, e8 in enumerate(trace.e8[head].astype(int)):
            row = scores[i, :-1]
            order = np.argsort(-row, kind="stable")
            assert (np.diff(e8[:-1][order]) <= 0).all()
            assert e8[-1] == 0
            den = int(e8.sum())
            n = den.bit_length()
            o = e8.astype(object) @ v
            want = [(int(value) * ((1 << n + 15) // den) + (1 << n + 14)) >> n + 15 for value in o]
            assert trace.ctx[i, span].tolist() == want


def test_ranges_keep_moments() -> None:
    model = small_bert(23)
    rng = np.random.default_rng(23)
    ids = [rng.integers(0, CONFIG.vocab, n).astype(np.int32) for n in (5, 9)]
    found: LayerRange = calibrate(model, ids, moments=True)[1]
    x = np.concatenate([model.forward(i)[1].a for i in ids]).astype(np.float64)
    moment = found.moment("a")
    assert moment is not None
    np.testing.assert_allclose(moment, x.T @ x / 14, rtol=1e-4, atol=1e-5)
    assert calibrate(model, ids)[0].moment("a") is None


def test_with_width() -> None:
    first = uniform(Mode.W8A8, 1)[0]
    assert with_width(first, "attention", 16).attention == 16
    assert with_width(first, "o", Mode.W4A8).o is Mode.W4A8
