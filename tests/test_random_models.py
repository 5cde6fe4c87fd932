"""Random encoders on random machines: RTL against simulator on all of memory, or refused."""

import contextlib
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.mismatch import assert_same
from tests.models import run_whole
from tilewright.hw.config import Config, preset_config
from tilewright.sw.compiler import CompileError, compile_model
from tilewright.sw.driver.device import Device
from tilewright.sw.quantize.formats import QEmbedding, QModel
from tilewright.sw.quantize.precision import PRODUCTS, LayerPrecision, Mode
from tilewright.sw.quantize.reference import norm, run_layer
from tilewright.sw.quantize.seeded import make_layer

MACHINES = ("tiny", "8x16")
"""Machines of the quick cases: those other tests build too."""


SMALLEST = Config(
    name="smallest",
    rows=4,
    columns=4,
    lanes=1,
    row_engines=1,
    sp_banks=4,
    sp_depth=64,
    acc_banks=2,
    acc_depth=16,
    scale_rows=16,
    stat_rows=16,
    axi_addr_width=32,
    axi_data_width=32,
    queue_depth=1,
)
"""The smallest array and memories that are legal."""
QUICK = 600_000
"""Estimated cycles of a case on a small machine that is quick enough in RTL."""


def machine(name: str) -> Config:
    from tests.hw.test_core import odd

    return odd(name) if "x" in name else preset_config(name)


def random_machine(rng: np.random.Generator, widest: int = 4) -> Config:
    """Any legal array up to 2^`widest` and memories, many of them too small."""

    def power(low: int, high: int) -> int:
        return 1 << int(rng.integers(low, high + 1))

    columns = power(2, widest)
    return Config(
        name="random",
        rows=power(2, widest),
        columns=columns,
        lanes=power(0, columns.bit_length() - 1),
        sp_banks=power(2, 3),
        sp_depth=power(6, 9),
        acc_banks=power(1, 2),
        acc_depth=power(4, 8),
        scale_rows=power(4, 8),
        stat_rows=power(4, 6),
        axi_data_width=power(5, 7),
        axi_outstanding=int(rng.integers(1, 9)),
        axi_max_burst=int(rng.choice([1, 7, 16])),
        queue_depth=int(rng.integers(1, 5)),
    )


@dataclass(frozen=True)
class Case:
    """A model with its inputs."""

    model: QModel
    sequence: int
    lengths: tuple[int, ...]
    z: tuple[np.ndarray, ...]


def random_case(rng: np.random.Generator) -> Case:
    heads = int(rng.integers(1, 5))
    head_dim = int(rng.choice([4, 8, 10, 16, 24, 32]))
    hidden = heads * head_dim
    ffn = int(rng.integers(5, 200))
    sequence = int(rng.integers(1, 25))
    layers = []
    for _ in range(int(rng.integers(1, 3))):
        modes = [list(Mode)[int(rng.integers(len(Mode)))] for _ in PRODUCTS]
        attention = int(rng.choice([8, 16]))
        precision = LayerPrecision(**dict(zip(PRODUCTS, modes, strict=True)), attention=attention)
        seed = int(rng.integers(1 << 30))
        layers.append(make_layer(seed, hidden, heads, head_dim, ffn, precision))
    # A state has the format that the layer which reads it needs.
    for index, following in enumerate(layers[1:]):
        ln2 = replace(layers[index].ln2, out=following.input.width)
        layers[index] = replace(layers[index], ln2=ln2)
    ln = replace(layers[0].ln1, out=layers[0].input.width)
    table = rng.integers(-9000, 9000, (64, hidden)).astype(np.int16)
    embedding = QEmbedding(word=table, position=table, type=table, fraction=13, ln=ln)
    lengths = tuple(int(rng.integers(1, sequence + 1)) for _ in range(int(rng.integers(1, 4))))
    z = tuple(rng.integers(-32768, 32768, (sequence, hidden)).astype(np.int16) for _ in lengths)
    return Case(QModel(embedding=embedding, layers=tuple(layers)), sequence, lengths, z)


def check(config: Config, case: Case, most: float = math.inf) -> bool:
    """Whether the case ran; every byte it wrote is compared, and the valid rows with golden.

    Cases of more than `most` estimated cycles do not run.
    """
    batch = len(case.lengths)
    try:
        executable = compile_model(case.model, config, case.sequence, batch=batch, effort=1)
    except CompileError as error:
        if "\n" in str(error):
            raise
        return False
    if executable.metadata["estimate"]["cycles"] > most:
        return False
    end = [""] if batch == 1 else [str(i) for i in range(batch)]
    inputs = {f"z{e}": z for e, z in zip(end, case.z, strict=True)}
    scalars = {f"length{e}": n for e, n in zip(end, case.lengths, strict=True)}
    with Device("iss", config, check=True) as device:
        expected, wanted = run_whole(device, executable, inputs, scalars)
    for e, z, length in zip(end, case.z, case.lengths, strict=True):
        x = norm(z, case.model.embedding.ln)
        for layer in case.model.layers:
            x = run_layer(layer, x, length)
        np.testing.assert_array_equal(expected[f"y{e}"][:length], x[:length])
    with Device("verilator", config) as device:
        _, found = run_whole(device, executable, inputs, scalars)
    assert_same(executable, wanted, found, scalars)
    return True


@pytest.mark.parametrize("name", MACHINES)
def test_models(name: str) -> None:
    ran = sum(check(machine(name), random_case(np.random.default_rng(seed))) for seed in range(12))
    assert ran >= 6


def legal_machine(rng: np.random.Generator, widest: int = 4) -> Config:
    """The next random machine that is legal."""
    while True:
        with contextlib.suppress(ValueError):
            return random_machine(rng, widest)


def test_the_smallest_machine() -> None:
    rng = np.random.default_rng(55)
    assert sum(check(SMALLEST, random_case(rng), QUICK) for _ in range(24)) >= 3


@pytest.mark.parametrize("seed", range(2))
def test_small_machines(seed: int) -> None:
    rng = np.random.default_rng([seed, 2])
    config = legal_machine(rng, widest=3)
    assert sum(check(config, random_case(rng), QUICK) for _ in range(10)) >= 3


def test_awkward_sizes_in_a_batch() -> None:
    """Nothing is a multiple of anything: three heads of 32, FFN 200, 19 rows, three lengths."""
    layers = tuple(make_layer(seed, 96, 3, 32, 200) for seed in (51, 52))
    rng = np.random.default_rng(53)
    table = rng.integers(-9000, 9000, (64, 96)).astype(np.int16)
    ln = replace(layers[0].ln1, out=layers[0].input.width)
    embedding = QEmbedding(word=table, position=table, type=table, fraction=13, ln=ln)
    z = tuple(rng.integers(-32768, 32768, (19, 96)).astype(np.int16) for _ in range(3))
    model = QModel(embedding=embedding, layers=layers)
    assert check(preset_config("tiny"), Case(model, 19, (19, 7, 1), z))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_machines(seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    config = legal_machine(rng)
    for _ in range(6):
        check(config, random_case(rng))
