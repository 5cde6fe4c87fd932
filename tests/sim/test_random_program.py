"""Random programs are legal, and the simulator agrees with the plain machine on all of DRAM."""

import numpy as np
import pytest

from tests.sim.reference_machine import Reference
from tilewright.hw.commands import COMMAND_LAYOUTS, Opcode
from tilewright.hw.config import PRESETS, Config
from tilewright.sim.random_program import KINDS, random_program
from tilewright.sw.program import Program, find_problems

ALL = ("gelu", "silu", "tanh")
CONFIGS = {
    config.name: config
    for config in (
        Config(name="square", rows=4, columns=4, lanes=2, sp_depth=256, functions=ALL),
        Config(name="wide", rows=8, columns=16, lanes=1, sp_depth=128, functions=("silu",)),
        Config(name="tall", rows=16, columns=4, lanes=4, sp_depth=256, weight_bits=5),
        # Sixteen tiles to a panel, and a row table shorter than many commands.
        Config(
            name="steep",
            rows=64,
            columns=4,
            lanes=4,
            sp_banks=4,
            sp_depth=512,
            scale_rows=16,
            stat_rows=16,
        ),
    )
}


@pytest.mark.parametrize("corner", [False, True], ids=["random", "corner"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(CONFIGS))
def test_against_plain_machine(name, kind, corner):
    config = CONFIGS[name]
    program = random_program(config, 1, kind=kind, corner=corner, commands=16)
    memory = bytearray(program.memory.tobytes())
    plain = Reference(config, memory, program.regions, program.scalars)
    plain.run(program.commands)
    got = program.run(check=True)
    unequal = np.flatnonzero(got != np.frombuffer(memory, dtype=np.uint8))
    assert unequal.size == 0, f"{program.name}: {unequal.size} bytes, first at {unequal[0]:#x}"
    np.testing.assert_array_equal(got, program.expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*CONFIGS, *PRESETS])
def test_static_check_passes(name, kind):
    config = {**CONFIGS, **PRESETS}[name]
    for seed in range(3):
        program = random_program(config, seed, kind=kind, corner=seed == 2, commands=40)
        scalars = dict(enumerate(program.scalars))
        found = find_problems(program.commands, config, scalars=scalars, regions=program.regions)
        assert not found, f"{program.name}: {found[0]}"


def test_same_seed_same_program():
    config = CONFIGS["wide"]
    one, two = (random_program(config, 5, kind="mixed") for _ in range(2))
    assert one.commands == two.commands
    np.testing.assert_array_equal(one.memory, two.memory)
    other = random_program(config, 6, kind="mixed")
    assert one.commands != other.commands


def test_flag_space_is_covered():
    """Each value of each flag, and each pair of stages, appears in a few programs."""
    config = CONFIGS["square"]
    seen: dict[str, set[int]] = {}
    pairs: set[tuple[int, int, int]] = set()
    for seed in range(30):
        for item in random_program(config, seed, kind="vector", commands=60).commands:
            if item.opcode != Opcode.VECTOR:
                continue
            for field, spec in COMMAND_LAYOUTS[Opcode.VECTOR].items():
                if spec.values is not None or spec.width == 1:
                    seen.setdefault(field, set()).add(item.integer(field))
            stages = (item.integer("pre"), item.integer("mul"), item.integer("post"))
            pairs.add(stages)
    for field, values in seen.items():
        spec = COMMAND_LAYOUTS[Opcode.VECTOR][field]
        assert values == set(range(len(spec.values) if spec.values else 2)), field
    assert len(pairs) == 5 * 4 * 4


def test_dump_shows_accumulators():
    """A changed accumulator, scale row or factor shows in DRAM."""
    config = CONFIGS["square"]
    program = random_program(config, 3, kind="matmul", commands=4)
    last = len(program.commands) - 1
    stores = [i for i, c in enumerate(program.commands) if c.opcode == Opcode.STORE]
    arena = stores[-3]
    for memory_name in ("acc", "scale", "factor", "f1"):
        memory = program.memory.copy()
        machine = program.machine(memory)

        def disturb(index, item, machine=machine, memory_name=memory_name):
            if index == arena:
                getattr(machine, memory_name)[...] ^= 1

        machine.run(offset=program.program_offset, count=last + 1, observe=disturb)
        assert (memory != program.expected).any(), memory_name


def test_bad_arguments():
    config = CONFIGS["square"]
    with pytest.raises(ValueError, match="kind 'x'"):
        random_program(config, 0, kind="x")
    with pytest.raises(ValueError, match="commands = 501"):
        random_program(config, 0, commands=501)
    with pytest.raises(ValueError, match="words = 100"):
        random_program(config, 0, words=100)


def test_bytes_are_a_program():
    config = CONFIGS["tall"]
    random = random_program(config, 0)
    start = random.regions[0][0] + random.program_offset
    data = random.memory[start : start + 64 * len(random.commands)].tobytes()
    assert list(Program.from_bytes(config, data)) == random.commands
