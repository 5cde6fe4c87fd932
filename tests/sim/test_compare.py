"""Comparison names buffer, element and command; images survive a file."""

import numpy as np
import pytest

from tilewright.hw.commands import Opcode
from tilewright.hw.config import preset_config
from tilewright.hw.encoding import Command, Scalar
from tilewright.sim.compare import Matrix, compare
from tilewright.sim.image import Image
from tilewright.sw.program import Program

CONFIG = preset_config("tiny")


def contents():
    rng = np.random.default_rng(1)
    return {1: rng.integers(0, 256, 1000, dtype=np.uint8), 2: np.zeros(10, dtype=np.uint8)}


BUFFERS = {
    "x": Matrix(region=1, offset=16, shape=(5, 7), dtype="int16"),
    # Panels of 4: two of them, the last with one column that does not count.
    "y": Matrix(region=1, offset=200, shape=(3, 7), dtype="int8", panel=4),
    "z": Matrix(region=1, offset=400, shape=(2, 3, 4), dtype="int32"),
}


def test_equal():
    found = compare(contents(), contents(), BUFFERS)
    assert found.equal
    assert str(found) == "equal in every bit"


@pytest.mark.parametrize("name", list(BUFFERS))
def test_one_element_of_each(name):
    buffer = BUFFERS[name]
    expected = contents()
    rng = np.random.default_rng(2)
    for _ in range(10):
        element = tuple(int(rng.integers(size)) for size in buffer.shape)
        got = contents()
        got[1][buffer.locate(element)] ^= 1
        (mismatch,) = compare(expected, got, BUFFERS).mismatches
        assert (mismatch.name, mismatch.element) == (name, element)
        assert mismatch.expected == buffer.read(expected)[element]
        assert mismatch.got == mismatch.expected ^ 1
        assert mismatch.offset == buffer.locate(element)


def test_panels():
    values = np.arange(3 * 7, dtype=np.int8).reshape(3, 7)
    stored = np.concatenate([np.pad(values, ((0, 0), (0, 1)))[:, p : p + 4] for p in (0, 4)])
    buffer = Matrix(region=0, offset=0, shape=(3, 7), dtype="int8", panel=4)
    np.testing.assert_array_equal(buffer.read({0: stored.reshape(-1).view(np.uint8)}), values)


def test_bytes_of_no_buffer_count():
    got = contents()
    got[2][3] = 9
    got[1][200 + 12 + 3] ^= 0xFF  # fills up row 0 of the last panel of y
    found = compare(contents(), got, BUFFERS)
    assert found.counts["region 2"] == (1, 10)
    assert found.counts["region 1"][0] == 1
    assert "region 2[3]: expected 0, got 9 (no STORE writes it" in str(found)


def test_command_and_line():
    program = Program(CONFIG)
    store = {"region": 1, "planes": 2, "plane_stride": 500, "runs": 3, "run_stride": 50}
    program.append(Command(Opcode.STORE, {"length": 10, **store}))
    program.append(Command(Opcode.STORE, {"offset": 416, "length": 10, **store, "runs": Scalar(2)}))
    got = contents()
    got[1][416] += 1
    got[1][550] += 1
    found = compare(
        contents(),
        got,
        BUFFERS,
        program=program.to_bytes(),
        scalars={2: 1},
        rerun="tilewright demo --trace a.fst",
    )
    assert [m.command for m in found.mismatches] == [2, 1]
    text = str(found)
    assert "z[0, 1, 0]" in text
    assert "command 2, unit STORE;" in text
    found = compare(
        contents(),
        got,
        BUFFERS,
        program=program.to_bytes(),
        scalars={2: 1},
        operations=["layer 0 / ffn1", "layer 0 / ffn2"],
        rerun="tilewright demo --trace a.fst",
    )
    text = str(found)
    assert "command 2, unit STORE, of layer 0 / ffn2;" in text
    assert text.endswith("waveform: tilewright demo --trace a.fst")


def test_limit_and_sizes():
    got = contents()
    got[1] = got[1] + 1
    found = compare(contents(), got, limit=3)
    assert found.counts == {"region 1": (1000, 1000)}
    assert len(found.mismatches) == 3
    got[1] = got[1][:-1]
    with pytest.raises(ValueError, match="999 bytes, 1000 expected"):
        compare(contents(), got)
    with pytest.raises(ValueError, match="must have rows and columns"):
        Matrix(region=0, offset=0, shape=(1, 2, 3), dtype="int8", panel=4)


def test_image(tmp_path):
    program = Program(CONFIG).to_bytes()
    image = Image(
        config=CONFIG,
        program=program,
        regions={**contents(), 0: np.arange(100, dtype=np.uint8)},
        expected={2: np.ones(10, dtype=np.uint8)},
        scalars={3: 4},
        buffers=BUFFERS,
    )
    assert image.program_offset == 128
    placed = image.placement()
    assert placed[0] == (image.base, image.base + 128 + len(program))
    memory = image.memory()
    np.testing.assert_array_equal(image.contents(memory)[2], 0)
    path = tmp_path / "image.npz"
    image.save(path)
    again = Image.load(path)
    assert again.config == image.config
    assert again.program == program
    assert again.scalars == {3: 4}
    assert again.buffers == BUFFERS
    assert again.placement() == placed
    np.testing.assert_array_equal(again.memory(), memory)
    assert again.registers() == image.registers()
