"""Compiled layers on the simulator, against the golden composition of a quantized layer."""

import dataclasses
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from tilewright.hw.commands import Opcode
from tilewright.hw.config import PRESETS, Config
from tilewright.sim.golden import row_max
from tilewright.sim.iss import IssMachine
from tilewright.sw.compiler import CompileError, compile_layer, estimate
from tilewright.sw.errors import UserError
from tilewright.sw.models.errors import ModelError
from tilewright.sw.program import Executable, InputError, find_problems
from tilewright.sw.quantize.formats import QLayer
from tilewright.sw.quantize.precision import LayerPrecision, Mode, with_width
from tilewright.sw.quantize.reference import run_layer
from tilewright.sw.quantize.seeded import PRECISIONS, make_input, make_layer


def execute(compiled: Executable, x: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Run on the simulator in check mode and return y and its magnitudes."""
    machine = IssMachine(compiled.config, check=True)
    contents: dict[int, Any] = {**compiled.constants, **compiled.pack({"x": x})}
    placed = {r: machine.place(r, contents.get(r, size)) for r, size in compiled.regions.items()}
    machine.scalars[compiled.scalars["length"]] = length
    machine.run(compiled.commands)
    values = compiled.unpack(placed)
    return values["y"], values["y magnitudes"]


def check(
    layer: QLayer, config: Config, sequence: int, length: int, seed: int = 5, effort: int = 1
) -> Executable:
    compiled = compile_layer(layer, config, sequence, effort=effort)
    # The checker takes minutes for the 100,000 commands of `tiny` at 512.
    if len(compiled.program) <= 30000:
        regions = {
            region: (region << 32, (region << 32) + size)
            for region, size in {0: len(compiled.commands), **compiled.regions}.items()
        }
        scalars = {compiled.scalars["length"]: length}
        problems = find_problems(compiled.program, config, scalars=scalars, regions=regions)
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
    "a8x16": Config(name="a8x16", rows=8, columns=16, lanes=16),
    "a16x8": Config(name="a16x8", rows=16, columns=8, lanes=4),
    "a16x4": Config(name="a16x4", rows=16, columns=4, lanes=1),
    "a4x16": Config(name="a4x16", rows=4, columns=16, lanes=16),
    "a32x32": Config(name="a32x32", rows=32, columns=32, lanes=16),
    "a64x64": PRESETS["huge"],
    "queue1": Config(name="queue1", queue_depth=1),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("sequence", "length"), [(19, 11), (1, 1), (64, 64)])
def test_small_layer(name: str, sequence: int, length: int) -> None:
    check(make_layer(1), CONFIGS[name], sequence, length)


SHAPES = {
    # hidden, heads, head_dim, ffn
    "ragged": (50, 5, 10, 77),
    "one head": (24, 1, 24, 40),
    "wide heads": (96, 2, 48, 130),
    "narrow": (12, 3, 4, 9),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["tiny", "default", "a8x16", "a16x4", "a32x32"])
def test_shapes_that_divide_nothing(name: str, shape: str) -> None:
    check(make_layer(2, *SHAPES[shape]), CONFIGS[name], 21, 20)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["tiny", "default", "a8x16", "a16x4", "a64x64"])
def test_precisions(name: str, precision: str) -> None:
    layer = make_layer(2, precision=PRECISIONS[precision])
    check(layer, CONFIGS[name], 21, 20)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions_of_awkward_shapes(precision: str) -> None:
    check(make_layer(3, 50, 5, 8, 77, PRECISIONS[precision]), CONFIGS["small"], 19, 7)
    check(make_layer(4, 48, 3, 16, 72, PRECISIONS[precision]), MEMORIES["accumulators"], 17, 17)


MEMORIES = {
    "scratchpad": Config(name="m1", rows=4, columns=4, lanes=2, sp_banks=4, sp_depth=256),
    "accumulators": Config(name="m2", rows=8, columns=8, lanes=2, acc_banks=2, acc_depth=64),
    "rows": Config(name="m3", scale_rows=32, stat_rows=16),
    "all": Config(
        name="m4",
        rows=4,
        columns=8,
        lanes=1,
        sp_banks=4,
        sp_depth=128,
        acc_banks=2,
        acc_depth=16,
        scale_rows=16,
        stat_rows=16,
        queue_depth=1,
        axi_data_width=32,
    ),
}


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("sequence", [5, 19, 40])
def test_small_memories(name: str, sequence: int) -> None:
    """Everything that does not fit is streamed."""
    check(make_layer(4, 48, 3, 16, 72), MEMORIES[name], sequence, sequence - 1)


@pytest.mark.parametrize("length", [0, 1, 31, 32])
def test_one_program_serves_every_mask(length: int) -> None:
    layer = make_layer(6)
    compiled = compile_layer(layer, PRESETS["small"], 32, effort=1)
    x = make_input(7, 32, layer.hidden)
    y, _ = execute(compiled, x, length)
    np.testing.assert_array_equal(y, run_layer(layer, x, length))


@pytest.mark.parametrize(
    ("name", "sequence", "length"),
    [("default", 128, 77), ("default", 32, 32), ("large", 128, 128), ("a16x4", 17, 9)],
)
def test_minilm_shape(name: str, sequence: int, length: int) -> None:
    check(make_layer(3, 384, 12, 32, 1536), CONFIGS[name], sequence, length)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("sequence", [1, 17, 32, 128, 512])
def test_minilm_shape_everywhere(name: str, sequence: int) -> None:
    check(make_layer(3, 384, 12, 32, 1536), CONFIGS[name], sequence, max(1, sequence - 9))


def test_the_widest_ffn() -> None:
    check(make_layer(9, 1024, 16, 64, 4096), PRESETS["default"], 3, 2)


def test_utilization_of_minilm() -> None:
    """The event model's figure for the layer the project is about."""
    compiled = compile_layer(make_layer(3, 384, 12, 32, 1536), PRESETS["default"], 128)
    assert compiled.utilization() > 0.97
    assert asdict(estimate(compiled.program, compiled.config)) == compiled.metadata["estimate"]


def test_weights_are_streamed_in_the_order_they_are_packed() -> None:
    compiled = compile_layer(make_layer(3), PRESETS["default"], 16, effort=1)
    offsets = [
        command.integer("offset")
        for command in compiled.program.body
        if command.opcode == Opcode.LOAD and command["region"] == 1
    ]
    first = list(dict.fromkeys(offsets))
    # Slices of the first head's chunk interleave; behind it every chunk follows the one before.
    behind = [offset for offset in first if offset >= 9 * 48 * 32]
    assert behind == sorted(behind)


def test_programs_are_reproducible() -> None:
    layer = make_layer(8)
    one, two = (compile_layer(layer, PRESETS["small"], 24, effort=2) for _ in range(2))
    assert one.commands == two.commands
    assert one.constants == two.constants


def refuse(layer: QLayer, config: Config, sequence: int, match: str) -> None:
    with pytest.raises(UserError, match=match):
        compile_layer(layer, config, sequence)


def test_refusals() -> None:
    layer = make_layer(1)
    default = PRESETS["default"]
    refuse(layer, default, 0, "sequence = 0")
    refuse(layer, default, 5000, "sequence = 5000")
    refuse(layer, Config(functions=("tanh",)), 8, "activation gelu.*tanh")
    refuse(layer, Config(weight_bits=4), 8, "weights of -1.*weight_bits = 4")
    refuse(layer, Config(rows=4, columns=4, lanes=4, sp_banks=4, sp_depth=64), 19, "256 words")
    refuse(layer, Config(acc_banks=2, acc_depth=16), 2048, "rows of scores")
    refuse(dataclasses.replace(layer, ffn1=layer.ffn2), default, 8, "ffn1")
    refuse(dataclasses.replace(layer, o=layer.q), default, 8, "o: output s8")
    refuse(
        dataclasses.replace(layer, q=dataclasses.replace(layer.q, row_scaled=False)),
        default,
        8,
        "must have the same mode",
    )
    refuse(dataclasses.replace(layer, attention_bits=16), default, 8, "attention of 16 bits")
    four = make_layer(1, 50, 5, 10, 77, PRECISIONS["w4a8"])
    refuse(four, default, 8, "heads of 10 padded to 16")


def test_an_input_of_another_shape_is_refused() -> None:
    compiled = compile_layer(make_layer(1), PRESETS["default"], 8, effort=1)
    with pytest.raises(InputError, match=r"expected an array of shape \(8, 96\)"):
        compiled.pack({"x": np.zeros((7, 96), dtype=np.int16)})
    with pytest.raises(InputError, match="s16"):
        compiled.pack({"x": np.full((8, 96), 40000)})


def test_what_scores_may_have_of_the_accumulators_is_told() -> None:
    with pytest.raises(CompileError, match=r"2000 accumulator words.* has 2048, .* get 1792 at"):
        compile_layer(make_layer(1), PRESETS["tiny"], 4000, effort=1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((4104, 3, 32, 200), "hidden = 4104: must be at most 4096"),
        ((96, 129, 32, 200), "heads x head_dim = 4128: must be at most 4096"),
        ((96, 3, 32, 4097), "ffn = 4097: must be at most 4096"),
    ],
)
def test_layers_wider_than_the_arithmetic_are_refused(
    sizes: tuple[int, int, int, int], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        make_layer(1, *sizes)


def test_accumulators_for_less_than_two_rows_are_refused() -> None:
    config = Config(name="few", rows=8, columns=4, lanes=4, sp_depth=256, acc_banks=2, acc_depth=16)
    precision = with_width(LayerPrecision.uniform(Mode.W16A16), "attention", 8)
    with pytest.raises(CompileError, match=r"rows of scores|too small"):
        compile_layer(make_layer(1, 32, 2, 16, 64, precision), config, 9, effort=1)
