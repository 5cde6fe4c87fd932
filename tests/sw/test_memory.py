"""The allocator of device memory: blocks never overlap, and what is freed can be had again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.sw.driver import DeviceError, OutOfDeviceMemory
from tilewright.sw.driver.memory import Memory
from tilewright.sw.errors import UserError

PAGE = 4096


def test_first_fit_and_reuse():
    memory = Memory(0x1000, 16 * PAGE)
    a, b, c = (memory.allocate(size) for size in (1, PAGE + 1, 3 * PAGE))
    assert (a, b, c) == (0x1000, 0x2000, 0x4000)
    assert memory.blocks == {a: PAGE, b: 2 * PAGE, c: 3 * PAGE}
    memory.free(b)
    assert memory.allocate(2 * PAGE + 1) == 0x7000, "the gap is too small"
    assert memory.allocate(PAGE) == b, "the lowest gap"
    assert memory.room(c) == 3 * PAGE


def test_neighbours_become_one_gap():
    memory = Memory(0, 8 * PAGE)
    blocks = [memory.allocate(PAGE) for _ in range(8)]
    for index in (1, 5, 3, 7, 0, 2):
        memory.free(blocks[index])
    # 4 and 6 are left.
    assert memory.largest_gap == 4 * PAGE
    assert memory.free_bytes == 6 * PAGE
    assert memory.allocate(4 * PAGE) == 0
    memory.free(blocks[6])
    memory.free(blocks[4])
    assert memory.largest_gap == memory.free_bytes == 4 * PAGE
    memory.free(0)
    assert memory.largest_gap == memory.total == 8 * PAGE


def test_out_of_memory_in_one_line():
    memory = Memory(0, 4 * PAGE)
    memory.allocate(PAGE)
    middle = memory.allocate(PAGE)
    memory.allocate(PAGE)
    memory.free(middle)
    with pytest.raises(OutOfDeviceMemory) as caught:
        memory.allocate(5000)
    assert str(caught.value) == (
        "out of device memory: 5000 bytes wanted, 8192 free, largest gap 4096 of 16384"
    )
    assert isinstance(caught.value, DeviceError)
    assert isinstance(caught.value, UserError)
    assert memory.allocate(PAGE) == middle, "the refusal took nothing"


def test_ends_that_are_not_aligned():
    memory = Memory(100, 3 * PAGE)
    assert memory.total == 2 * PAGE
    assert memory.allocate(2 * PAGE) == PAGE
    assert Memory(100, 200).total == 0
    with pytest.raises(OutOfDeviceMemory, match="largest gap 0 of 0"):
        Memory(100, 200).allocate(0)


def test_bad_blocks():
    memory = Memory(0, PAGE)
    with pytest.raises(ValueError, match="-1 bytes"):
        memory.allocate(-1)
    with pytest.raises(ValueError, match="no block of device memory at 0x0"):
        memory.free(0)
    memory.free(memory.allocate(0))
    with pytest.raises(ValueError, match="no block"):
        memory.free(0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    alignment=st.sampled_from([1, 64, 4096]),
    pages=st.integers(1, 40),
)
def test_against_a_map_of_bytes(seed, alignment, pages):
    rng = np.random.default_rng(seed)
    total = pages * alignment
    memory = Memory(0, total, alignment)
    used = np.zeros(total // alignment, dtype=bool)
    for _ in range(60):
        blocks = memory.blocks
        if blocks and rng.random() < 0.45:
            address = list(blocks)[int(rng.integers(len(blocks)))]
            used[address // alignment : (address + blocks[address]) // alignment] = False
            memory.free(address)
        else:
            size = int(rng.integers(0, total // 3 + 2))
            units = max(-(-size // alignment), 1)
            fits = [i for i in range(len(used) - units + 1) if not used[i : i + units].any()]
            if fits:
                address = memory.allocate(size)
                assert address == fits[0] * alignment, "first fit"
                used[fits[0] : fits[0] + units] = True
            else:
                with pytest.raises(OutOfDeviceMemory):
                    memory.allocate(size)
        assert memory.free_bytes == int((~used).sum()) * alignment
        assert sum(memory.blocks.values()) == int(used.sum()) * alignment
