"""Programs for the instruction-set simulator, and operands in its memories."""

import numpy as np
import pytest

from tilewright.hw.commands import Opcode
from tilewright.hw.config import Config
from tilewright.hw.encoding import command, encode
from tilewright.hw.manifest import manifest_hash
from tilewright.sim.iss import MachineFault

CONFIGS = [
    Config(name="wide", rows=8, columns=16, lanes=1, sp_depth=128, functions=("gelu", "tanh")),
    Config(name="tall", rows=16, columns=4, lanes=4, sp_depth=256, functions=("silu",)),
    Config(name="square", rows=4, columns=4, lanes=2, sp_depth=256),
]
EACH_CONFIG = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
EACH_M = pytest.mark.parametrize("m", [1, 2, 17])


def program(config, *items, count=None, digest=None):
    body = list(items)
    begin = command(
        Opcode.BEGIN,
        hash=manifest_hash(config) if digest is None else digest,
        commands=len(body) + 2 if count is None else count,
    )
    return b"".join(encode(item) for item in (begin, *body, command(Opcode.END)))


def run(machine, *items):
    machine.run(program(machine.config, *items))


def fault(machine, data, **more):
    with pytest.raises(MachineFault) as caught:
        machine.run(data, **more)
    assert machine.fault == caught.value.record
    return caught.value.record


def rng_for(*key):
    return np.random.default_rng(list(key))


def place16(machine, address, x):
    """Put an s16 matrix as panels; return the stride."""
    width = machine.config.panel
    rows, columns = x.shape
    for p in range(-(-columns // width)):
        part = x[:, p * width : (p + 1) * width]
        machine.sp16[address + p * rows : address + (p + 1) * rows, : part.shape[1]] = part
    return rows


def place8(machine, address, x):
    width = machine.config.panel
    rows, columns = x.shape
    depth = -(-rows // 2)
    for p in range(-(-columns // width)):
        for i in range(rows):
            part = x[i, p * width : (p + 1) * width].astype(np.uint8)
            word = machine.sp[address + p * depth + i // 2]
            word[i % 2 * width : i % 2 * width + len(part)] = part
    return depth


def fetch16(machine, address, stride, rows, panels):
    return np.concatenate(
        [machine.sp16[address + p * stride : address + p * stride + rows] for p in range(panels)],
        axis=1,
    )


def fetch8(machine, address, stride, rows, panels, dtype):
    width = machine.config.panel
    out = np.zeros((rows, panels * width), dtype=np.uint8)
    for p in range(panels):
        for i in range(rows):
            word = machine.sp[address + p * stride + i // 2]
            out[i, p * width : (p + 1) * width] = word[i % 2 * width : i % 2 * width + width]
    return out.view(dtype)


def place_parameters(machine, address, *, mult=0, sh=0, bias=0, factor=0, columns=0):
    width = machine.config.panel
    rows = np.zeros((5, columns), dtype=np.int64)
    rows[0], rows[1], rows[4] = mult, sh, factor
    rows[2], rows[3] = np.asarray(bias) & 0xFFFF, np.asarray(bias) >> 16
    return place16(machine, address, (rows & 0xFFFF).astype(np.uint16).view(np.int16)), width


def tiles(machine, address, stride, m, count):
    return np.concatenate(
        [machine.acc[address + t * stride : address + t * stride + m] for t in range(count)], axis=1
    )


def place_acc(machine, address, x):
    columns = machine.config.columns
    for t in range(x.shape[1] // columns):
        part = x[:, t * columns : (t + 1) * columns]
        machine.acc[address + t * len(x) : address + (t + 1) * len(x)] = part
    return len(x)
