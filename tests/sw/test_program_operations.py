"""OperationNames of programs: every command belongs to one, and files keep them."""

from dataclasses import replace

import pytest

from tilewright.hw.commands import Opcode
from tilewright.hw.config import preset_config
from tilewright.sw.compiler import compile_layer
from tilewright.sw.program import OperationNames, file
from tilewright.sw.program.summary import listing
from tilewright.sw.quantize.seeded import make_layer

CONFIG = preset_config("tiny")


@pytest.fixture(scope="module")
def executable():
    layer = make_layer(1, hidden=24, heads=2, head_dim=8, ffn=40)
    return compile_layer(layer, CONFIG, 13, effort=1)


def test_names_runs_and_macs():
    made = OperationNames.of(["a", "a", "b", "a", "c"], {"b": 5, "a": 7, "d": 1})
    assert made == OperationNames(("a", "b", "c"), (7, 5, 0), ((0, 2), (1, 1), (0, 1), (2, 1)))
    assert len(made) == 5
    assert list(made.commands()) == ["a", "a", "b", "a", "c"]
    assert OperationNames.from_metadata(made.to_metadata()) == made


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"names": ["a"], "macs": [1]},
        {"names": ["a"], "macs": [], "runs": [[0, 1]]},
        {"names": ["a"], "macs": [1], "runs": [[1, 1]]},
        {"names": ["a"], "macs": [1], "runs": [[0, 0]]},
        {"names": ["a"], "macs": [1], "runs": [0]},
        {"names": ["a"], "macs": ["x"], "runs": [[0, 1]]},
    ],
)
def test_metadata_that_is_none(value):
    with pytest.raises(ValueError, match="operations"):
        OperationNames.from_metadata(value)


def test_operations_of_a_layer(executable):
    operations = executable.operations
    heads = [f"head {h} / {n}" for h in (0, 1) for n in ("qkv", "scores", "softmax", "context")]
    tail = ["output", "layernorm1", "ffn1", "ffn2", "layernorm2"]
    assert sorted(operations.names) == sorted([*heads, *tail])
    assert sum(operations.macs) == executable.metadata["macs"]
    commands: dict[str, set[Opcode]] = {name: set() for name in operations.names}
    for command, name in zip(executable.program.body, operations.commands(), strict=True):
        commands[name].add(command.opcode)
    for name, opcodes in commands.items():
        multiplies = name.split(" / ")[-1] not in ("softmax", "layernorm1", "layernorm2")
        assert (Opcode.MATMUL in opcodes) == multiplies, name
        assert (operations.macs[operations.names.index(name)] > 0) == multiplies, name
    assert Opcode.STORE in commands["layernorm2"]


def test_files_keep_them(executable, tmp_path):
    path = file.save(executable, tmp_path / "layer.tilewright")
    assert file.load(path).operations == executable.operations


def test_they_are_checked(executable):
    few = {**executable.metadata, "operations": OperationNames.of(["a"], {}).to_metadata()}
    with pytest.raises(ValueError, match="operations of 1 commands"):
        replace(executable, metadata=few)
    none = replace(executable, metadata={})
    assert none.operations == OperationNames()
    assert "#" not in listing(none)


def test_the_listing_shows_them(executable):
    lines = listing(executable).splitlines()
    assert len(lines) == len(executable.program)
    assert lines[1].endswith("# head 0 / qkv")
    assert lines[-2].endswith("# layernorm2")
    assert "#" not in lines[0] + lines[-1]
