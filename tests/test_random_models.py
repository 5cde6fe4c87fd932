"""Random encoders on random machines: RTL against simulator on all of memory, or refused."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hw.config import Config, preset_config
from sw.compiler import CompileError, compile_model
from sw.driver.device import Device
from sw.quantize.formats import QEmbedding, QModel
from sw.quantize.precision import PRODUCTS, LayerPrecision, Mode
from sw.quantize.reference import norm, run_layer
from sw.quantize.seeded import make_layer
from tests.models import run_whole

MACHINES = ("tiny", "8x16")
"""Machines of the quick cases: those other tests build too."""


def machine(name: str) -> Config:
    from tests.hw.test_core import odd

    return odd(name) if "x" in name else preset_config(name)


def random_machine(rng: np.random.Generator) -> Config:
    """Any legal array and memories, many of them too small."""

    def power(low: int, high: int) -> int:
        return 1 << int(rng.integers(low, high + 1))

    columns = power(2, 4)
    return Config(
        name="random",
        rows=power(2, 4),
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


def check(config: Config, case: Case) -> bool:
    """Whether the case ran; every byte it wrote is compared, and the valid rows with golden."""
    batch = len(case.lengths)
    try:
        executable = compile_model(case.model, config, case.sequence, batch=batch, effort=1)
    except CompileError as error:
        if "\n" in str(error):
            raise
        return False
    end = [""] if batch == 1 else [str(i) for i in range(batch)]
    inputs = {f"z{e}": z for e, z in zip(end, case.z, strict=True)}
    scalars = {f"length{e}": n for e, n in zip(end, case.lengths, strict=True)}
    with Device.open("iss", config, check=True) as device:
        expected, wanted = run_whole(device, executable, inputs, scalars)
    for e, z, length in zip(end, case.z, case.lengths, strict=True):
        x = norm(z, case.model.embedding.ln)
        for layer in case.model.layers:
            x = run_layer(layer, x, length)
        np.testing.assert_array_equal(expected[f"y{e}"][:length], x[:length])
    with Device.open("verilator", config) as device:
        _, found = run_whole(device, executable, inputs, scalars)
    for region, content in wanted.items():
        np.testing.assert_array_equal(found[region], content, err_msg=f"region {region}")
    return True


@pytest.mark.parametrize("name", MACHINES)
def test_models(name: str) -> None:
    ran = sum(check(machine(name), random_case(np.random.default_rng(seed))) for seed in range(12))
    assert ran >= 6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_machines(seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    while True:
        try:
            config = random_machine(rng)
        except ValueError:
            continue
        break
    for _ in range(6):
        check(config, random_case(rng))
