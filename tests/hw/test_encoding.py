"""Commands survive the way through bytes, and what does not fit is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.hw.commands import (
    COMMAND_BYTES,
    COMMAND_LAYOUTS,
    Fault,
    Field,
    Function,
    Opcode,
    Post,
    Stat,
    XMode,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import (
    Command,
    DecodeError,
    Scalar,
    Value,
    command,
    decode,
    encode,
    illegal_field,
)


def values(spec: Field) -> st.SearchStrategy:
    if spec.values is not None:
        return st.sampled_from([int(v) for v in spec.values])
    if spec.kind == "count":
        return st.integers(0, 32767) | st.builds(Scalar, st.integers(0, 15))
    if spec.signed:
        return st.integers(-(1 << spec.width - 1), (1 << spec.width - 1) - 1)
    return st.integers(0, (1 << spec.width) - 1)


TOKENS = st.lists(
    st.tuples(st.integers(0, 15), st.integers(1, 15)), max_size=4, unique_by=lambda t: t[0]
)


@st.composite
def commands(draw):
    opcode = draw(st.sampled_from(list(Opcode)))
    fields = {name: draw(values(spec)) for name, spec in COMMAND_LAYOUTS[opcode].items()}
    return Command(opcode, fields, tuple(draw(TOKENS)), tuple(draw(TOKENS)))


@given(commands())
def test_round_trip(item):
    data = encode(item)
    assert len(data) == COMMAND_BYTES
    assert decode(data) == item
    assert encode(decode(data)) == data


@given(commands(), st.data())
def test_each_field_owns_its_bits(item, data):
    names = list(COMMAND_LAYOUTS[item.opcode])
    if not names:
        return
    name = data.draw(st.sampled_from(names))
    spec = COMMAND_LAYOUTS[item.opcode][name]
    before = int.from_bytes(encode(item), "little")
    item[name] = data.draw(values(spec))
    changed = before ^ int.from_bytes(encode(item), "little")
    assert changed & ~(((1 << spec.width) - 1) << spec.offset) == 0


@pytest.mark.parametrize("opcode", list(Opcode))
def test_bounds(opcode):
    good: list[Value]
    bad: list[Value]
    for name, spec in COMMAND_LAYOUTS[opcode].items():
        if spec.values is not None:
            good, bad = [0, len(spec.values) - 1], [-1, len(spec.values)]
        elif spec.kind == "count":
            good, bad = [0, 32767, Scalar(15)], [-1, 32768]
        elif spec.signed:
            top = 1 << spec.width - 1
            good, bad = [-top, top - 1], [-top - 1, top]
        else:
            good, bad = [0, (1 << spec.width) - 1], [-1, 1 << spec.width]
            bad.append(Scalar(0))
        for value in good:
            assert decode(encode(Command(opcode, {name: value})))[name] == value
        for value in bad:
            with pytest.raises(ValueError, match=f"{opcode.name} {name} = "):
                encode(Command(opcode, {name: value}))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([(16, 1)], "semaphore 16"),
        ([(-1, 1)], "semaphore -1"),
        ([(0, 0)], "count 0"),
        ([(0, 16)], "count 16"),
        ([(3, 1), (3, 2)], "appears twice"),
        ([(i, 1) for i in range(5)], "5 tokens: must be at most 4"),
    ],
)
def test_bad_slots(tokens, message):
    for side in ("waits", "posts"):
        with pytest.raises(ValueError, match=message):
            encode(
                Command(Opcode.LOAD, waits=tokens)
                if side == "waits"
                else Command(Opcode.LOAD, posts=tokens)
            )


def test_unknown_field_and_register():
    with pytest.raises(ValueError, match="END has no field 'm'"):
        command(Opcode.END, m=1)
    with pytest.raises(KeyError, match="no field"):
        command(Opcode.LOAD)["m"] = 1
    with pytest.raises(ValueError, match="scalar register 16"):
        Scalar(16)


def test_decode_as_the_machine_reads():
    data = bytearray(encode(command(Opcode.MATMUL, m=5)))
    spec = COMMAND_LAYOUTS[Opcode.MATMUL]["m"]
    data[spec.offset // 8 + 1] = 0xFF  # bit 15 and ignored bits
    assert decode(bytes(data))["m"] == Scalar(5)
    data[1] = 0x07  # a wait slot of count 0
    data[63] = 0xFF  # no field covers it
    assert decode(bytes(data)).waits == ()
    with pytest.raises(ValueError, match="63 bytes"):
        decode(bytes(63))


def test_decode_faults():
    with pytest.raises(DecodeError, match="0x77") as caught:
        decode(bytes([0x77]) + bytes(63))
    assert caught.value.fault == Fault.ILLEGAL_OPCODE
    word = int.from_bytes(encode(command(Opcode.MATMUL, mode=XMode.LOW)), "little")
    word |= 7 << COMMAND_LAYOUTS[Opcode.MATMUL]["mode"].offset
    with pytest.raises(DecodeError, match="mode = 7") as caught:
        decode(word.to_bytes(COMMAND_BYTES, "little"))
    assert caught.value.fault == Fault.ILLEGAL_FIELD


def test_illegal_field():
    config = Config(functions=("gelu",))
    assert illegal_field(command(Opcode.VECTOR, function=Function.GELU), config) is None
    assert illegal_field(command(Opcode.VECTOR, function=Function.EXP2), config) is None
    text = illegal_field(command(Opcode.VECTOR, function=Function.TANH), config)
    assert text is not None
    assert "tanh" in text
    text = illegal_field(command(Opcode.VECTOR, bias=1, post=Post.AFFINE), config)
    assert text is not None
    assert "bias = 1" in text
    for opcode, name, bound in (
        (Opcode.LOAD, "sp_addr", config.sp_words),
        (Opcode.MATMUL, "acc_addr", config.acc_words),
        (Opcode.MATMUL, "scale", config.scale_rows),
        (Opcode.VECTOR, "stat", config.stat_rows),
    ):
        assert illegal_field(Command(opcode, {name: bound - 1}), config) is None
        text = illegal_field(Command(opcode, {name: bound}), config)
        assert text is not None
        assert f"{name} = {bound}" in text


def test_enumerations_are_plain_integers():
    item = command(Opcode.VECTOR, stat_op=Stat.SUM, causal=True)
    assert type(item["stat_op"]) is int
    assert item == decode(encode(item))
    with pytest.raises(ValueError, match="an immediate"):
        command(Opcode.ROW, m=Scalar(1)).integer("m")
    assert command(Opcode.ROW, m=Scalar(1)).resolve({1: 0x10003})["m"] == 3
    with pytest.raises(ValueError, match="s1"):
        command(Opcode.ROW, m=Scalar(1)).resolve({})
