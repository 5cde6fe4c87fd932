"""Compiled layers on the simulator, against the golden composition of a quantized layer."""

import numpy as np
import pytest

from hw.config import PRESETS, Config
from sim.golden import row_max, xhat_fraction_bits
from sim.iss import Machine
from sw.compiler import CompileError, LayerProgram, compile_layer, estimate
from sw.program import find_problems
from sw.quantize.formats import Factor, QLayer, QLayerNorm, QLinear, QSoftmax, State, Width
from sw.quantize.reference import run_layer


def _multiplier(rng: np.random.Generator, factor: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """About `factor` as M * 2^-sh, a little different in each channel."""
    shift = 15 - int(np.floor(np.log2(factor)))
    mult = np.clip(factor * 2.0**shift * rng.uniform(0.8, 1.2, n), 1 << 15, 65535)
    return mult.astype(np.uint16), np.full(n, shift, dtype=np.uint8) + rng.integers(
        0, 2, n
    ).astype(np.uint8)


def make_layer(
    seed: int, hidden: int = 96, heads: int = 3, head_dim: int = 32, ffn: int = 200
) -> QLayer:
    """A layer of random integers whose edges use their formats."""
    rng = np.random.default_rng(seed)
    width = heads * head_dim

    def product(k: int, n: int, rms: float, target: float, out: Width, **more: object) -> QLinear:
        weight = np.clip(np.round(rng.normal(0, 30, (k, n))), -127, 127).astype(np.int8)
        mult, shift = _multiplier(rng, target / (rms * 30 * np.sqrt(k)), n)
        bias = (rng.normal(0, target * 64, n)).astype(np.int32)
        return QLinear(weight=weight, mult=mult, shift=shift, bias=bias, out=out, **more)

    def factor(n: int, low: int, shift: int) -> Factor:
        return Factor(mult=rng.integers(low, 2 * low, n).astype(np.uint16), shift=shift)

    def norm(n: int) -> QLayerNorm:
        return QLayerNorm(
            gamma=rng.integers(2000, 9000, n).astype(np.int16),
            beta=rng.integers(-(1 << 12), 1 << 12, n).astype(np.int32),
            shift=10,
            fraction=xhat_fraction_bits(n),
            eps=12345,
        )

    unit = State(scale=1.0, smooth=np.ones(hidden))
    q, k, v = (product(hidden, width, 6000, 45, Width.S8) for _ in range(3))
    return QLayer(
        heads=heads,
        head_dim=head_dim,
        hidden=hidden,
        ffn=ffn,
        act="gelu",
        q=q,
        k=k,
        v=v,
        softmax=QSoftmax(mult=40000, shift=18),
        o=product(width, hidden, 2500, 3000, Width.S16, residual=factor(hidden, 3000, 5)),
        ln1=norm(hidden),
        ffn1=product(
            hidden, ffn, 6000, 1500, Width.S16, act="gelu", smooth=factor(ffn, 20000, 12)
        ),
        ffn2=product(ffn, hidden, 5000, 4000, Width.S16, residual=factor(hidden, 2000, 4)),
        ln2=norm(hidden),
        input=unit,
        output=unit,
    )


def make_input(seed: int, sequence: int, hidden: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(0, 6000, (sequence, hidden)), -32768, 32767).astype(np.int16)
    x[rng.integers(sequence)] = 0
    x[-1, -1] = -32768
    return x


def execute(compiled: LayerProgram, x: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Run on the simulator in check mode and return y and its magnitudes."""
    machine = Machine(compiled.config, check=True)
    machine.place(1, compiled.weights)
    machine.place(2, compiled.pack_input(x))
    output = machine.place(3, compiled.regions[3])
    machine.place(4, compiled.regions[4])
    machine.scalars[compiled.scalars["length"]] = length
    machine.run(compiled.program.to_bytes())
    return compiled.unpack_output(output.tobytes())


def check(layer: QLayer, config: Config, sequence: int, length: int, seed: int = 5) -> LayerProgram:
    compiled = compile_layer(layer, config, sequence)
    problems = find_problems(compiled.program, config, scalars={0: length})
    assert not problems, problems[0]
    x = make_input(seed, sequence, layer.hidden)
    y, magnitudes = execute(compiled, x, length)
    expected = run_layer(layer, x, length)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(magnitudes, row_max(expected))
    return compiled


CONFIGS = {
    **{name: config for name, config in PRESETS.items() if name != "huge"},
    "lanes1": Config(name="lanes1", rows=8, columns=8, lanes=1),
    "lanes-c": Config(name="lanes-c", lanes=16),
    "8x16": Config(name="a8x16", rows=8, columns=16, lanes=16),
    "16x8": Config(name="a16x8", rows=16, columns=8, lanes=4),
    "16x4": Config(name="a16x4", rows=16, columns=4, lanes=1),
    "4x16": Config(name="a4x16", rows=4, columns=16, lanes=16),
    "32x32": Config(name="a32x32", rows=32, columns=32, lanes=16),
    "64x64": PRESETS["huge"],
    "queue1": Config(name="queue1", queue_depth=1),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("sequence", "length"), [(19, 11), (1, 1), (64, 64)])
def test_small_layer(name: str, sequence: int, length: int) -> None:
    check(make_layer(1), CONFIGS[name], sequence, length)
