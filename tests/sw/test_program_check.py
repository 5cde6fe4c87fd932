"""Programs as bytes and text, and what the static check refuses."""

import pytest

from tilewright.hw.commands import Function, Mul, Opcode, Out, Post, Pre, RowOp, Source, Stat, XMode
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command, Scalar, command
from tilewright.sw.program import Program, ProgramError, check_program, disassemble, find_problems

CONFIG = Config(rows=8, columns=8, lanes=4, sp_depth=128)
LOAD, STORE, MATMUL, VECTOR, ROW = (
    Opcode.LOAD,
    Opcode.STORE,
    Opcode.MATMUL,
    Opcode.VECTOR,
    Opcode.ROW,
)


def load(sp_addr, words, *, waits=(), posts=(), **more):
    fields = {"region": 1, "length": 16 * words, "runs": 1, "planes": 1, "sp_chunk": 1, **more}
    return Command(LOAD, {"sp_addr": sp_addr, **fields}, waits, posts)


def store(sp_addr, words, *, waits=(), posts=(), **more):
    item = load(sp_addr, words, waits=waits, posts=posts, **{"region": 2, **more})
    return Command(STORE, item.fields, item.waits, item.posts)


def matmul(x, w, acc, *, waits=(), posts=(), **more):
    fields = {"m": 8, "kt": 1, "nt": 1, "mode": XMode.S8, **more}
    return Command(MATMUL, {"x_addr": x, "w_addr": w, "acc_addr": acc, **fields}, waits, posts)


def vector(*, waits=(), posts=(), **more):
    fields = {"m": 8, "panels": 1, "valid": 8, "out": Out.S16, "in_stride": 8, "out_stride": 8}
    return Command(VECTOR, {**fields, **more}, waits, posts)


def problems(*items, scalars=None, regions=None, config=CONFIG):
    program = Program(config, list(items))
    return [str(p) for p in find_problems(program, config, scalars=scalars, regions=regions)]


def test_good_program():
    chain = [
        load(0, 8, posts=[(0, 1)]),
        matmul(0, 4, 0, waits=[(0, 1)], posts=[(1, 1)]),
        vector(out_addr=16, waits=[(1, 1)], posts=[(2, 1)]),
        store(16, 8, waits=[(2, 1)]),
    ]
    assert problems(*chain) == []
    check_program(Program(CONFIG, chain), CONFIG)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_each_dependence_is_needed(missing):
    """Without one of the three tokens there is exactly one pair to name, and both are named."""
    chain = [
        load(0, 8, posts=[(0, 1)]),
        matmul(0, 4, 0, waits=[(0, 1)], posts=[(1, 1)]),
        vector(out_addr=16, waits=[(1, 1)], posts=[(2, 1)]),
        store(16, 8, waits=[(2, 1)]),
    ]
    chain[missing].posts = ()
    chain[missing + 1].waits = ()
    found = problems(*chain)
    assert len(found) >= 1
    assert f"command {missing + 2}: " in found[0]
    assert f"while command {missing + 1} writes it" in found[0]
    assert chain[missing].opcode.name in found[0]
    assert chain[missing + 1].opcode.name in found[0]


def test_order_is_transitive():
    """LOAD - MATMUL - VECTOR orders LOAD before VECTOR, and STORE after all of them."""
    items = [
        load(0, 8, posts=[(0, 1)]),
        matmul(0, 4, 0, waits=[(0, 1)], posts=[(1, 1)]),
        vector(source=Source.SP, in_addr=0, out_addr=0, waits=[(1, 1)], posts=[(2, 1)]),
        store(0, 8, waits=[(2, 1)], posts=[(3, 1)]),
        load(0, 8, waits=[(3, 1)]),
    ]
    assert problems(*items) == []


def test_kth_token():
    """A wait is matched with the post that completes its count, not with the first or the last."""
    first, second, third = (load(8 * i, 8, posts=[(0, 1)]) for i in range(3))
    one = store(0, 8, waits=[(0, 1)])
    assert problems(first, second, third, one, store(8, 8, waits=[(0, 2)])) == []
    early = store(8, 8, waits=[(0, 1)])
    found = problems(first, second, third, early, store(0, 8, waits=[(0, 2)]))
    assert "command 4: reads word 8 " in found[0]
    assert "command 2 writes" in found[0]


def test_write_after_read():
    read = matmul(0, 8, 0)
    assert "writes word 0 " in problems(read, load(0, 4))[0]
    assert "command 1 reads" in problems(read, load(0, 4))[0]
    assert problems(read, load(12, 4)) == []
    # Two readers of different units: the later write must follow both.
    readers = [read, store(0, 4, posts=[(0, 1)])]
    assert "command 1 reads" in problems(*readers, load(0, 4, waits=[(0, 1)]))[0]
    assert problems(read, store(0, 4)) == []


def test_half_words():
    """Rows of s8 in different halves of a word do not meet."""
    even = {"half": 1, "runs": 1, "sp_run": 1}
    assert problems(load(0, 4, **{**even, "length": 8}), vector(out_addr=1)) == []
    packed = vector(out=Out.S8, m=1, out_addr=0)
    assert "word 0" in problems(load(0, 1, half=1, length=8), packed)[0]
    odd = load(0, 1, half=1, length=8, runs=2)
    assert "word 0" in problems(packed, odd)[0]


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([matmul(0, 8, 0), vector(acc_addr=7, m=1, out_addr=99)], "7 of the accumulators"),
        (
            [
                matmul(0, 8, 0, mode=XMode.SCALED, scale=4),
                vector(magnitude=1, scale_out=11, out=0, acc_addr=99),
            ],
            "11 of the scale rows",
        ),
        (
            [
                matmul(0, 8, 0, mode=XMode.SCALED, scale=4),
                command(ROW, op=RowOp.GET, m=9, scale=0, sp_addr=500),
            ],
            "4 of the scale rows",
        ),
        ([load(0, 1, region=3), store(8, 1, region=3)], "byte 0x0 of dram region 3"),
        (
            [load(0, 1), vector(source=Source.ACC, mul=Mul.CHANNEL, par_addr=0, out_addr=9)],
            "word 0",
        ),
    ],
)
def test_spaces(items, text):
    found = problems(*items)
    assert len(found) == 1
    assert text in found[0]


@pytest.mark.parametrize(
    ("flags", "rows"),
    [
        ({"mul": Mul.CHANNEL}, {0, 1}),
        ({"bias": 1}, {2, 3}),
        ({"post": Post.AFFINE}, {2, 3, 4}),
        ({"post": Post.SMOOTH}, {4}),
        ({"post": Post.RESIDUAL, "in_addr": 200}, {4}),
        ({}, set()),
    ],
)
def test_parameter_rows(flags, rows):
    """What a command does not read of a parameter block may be loaded meanwhile."""
    for row in range(5):
        item = vector(par_addr=100, out_addr=9, **flags)
        assert bool(problems(load(100 + row, 1), item)) == (row in rows)


def test_regions_that_overlap():
    items = [load(0, 1, region=3, offset=16), store(8, 1, region=4)]
    apart = {3: (0, 64), 4: (64, 128)}
    assert problems(*items, regions=apart) == []
    assert "byte 0x10 of dram" in problems(*items, regions={3: (0, 64), 4: (16, 128)})[0]
    assert "region 4 is 0x40 to 0x4e" in problems(*items, regions={3: (0, 64), 4: (64, 79)})[0]
    assert "region = 4: no such" in problems(*items, regions={3: (0, 64)})[0]


@pytest.mark.parametrize(
    ("items", "index", "text"),
    [
        ([load(0, 1, waits=[(0, 1)])], 1, "waits for 1 of semaphore 0"),
        ([load(0, 1, posts=[(0, 1)]), store(8, 1, waits=[(0, 2)])], 2, "leave 1 there"),
        ([load(0, 1, posts=[(5, 3)])], 2, "semaphore 5 holds 3 at the end"),
        (
            [load(0, 1, posts=[(0, 1)]), store(8, 1, posts=[(0, 1)]), vector(waits=[(0, 2)])],
            2,
            "STORE posts semaphore 0, which LOAD posts",
        ),
        (
            [
                load(0, 1, posts=[(0, 2)]),
                store(8, 1, waits=[(0, 1)]),
                vector(out_addr=20, waits=[(0, 1)]),
            ],
            3,
            "VECTOR waits on semaphore 0, on which STORE waits",
        ),
    ],
)
def test_tokens(items, index, text):
    found = problems(*items)
    assert any(p.startswith(f"command {index}: ") and text in p for p in found), found


def test_counter_bound():
    posts = [load(0, 1, posts=[(0, 15)]) for _ in range(5)]
    waits = [store(8, 1, waits=[(0, 15)]) for _ in range(5)]
    assert any("semaphore 0 can reach 75" in p for p in problems(*posts, *waits))
    # In serial order one at a time; but nothing keeps LOAD from running ahead.
    mixed = [item for pair in zip(posts, waits, strict=True) for item in pair]
    assert any("can reach 75" in p for p in problems(*mixed))
    # With an answer to each post it cannot.
    answered = []
    for i in range(5):
        answered += [
            load(0, 1, posts=[(0, 15)], waits=[(1, 1)] if i else []),
            store(8, 1, waits=[(0, 15)], posts=[(1, 1)] if i < 4 else []),
        ]
    assert problems(*answered) == []


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (load(1020, 5), "touches scratchpad 1024: the last is 1023"),
        (matmul(0, 1021, 0), "touches scratchpad 1024"),
        (matmul(0, 8, 2041), "touches accumulators 2048"),
        (vector(acc_addr=2047, m=2), "touches accumulators 2048"),
        (vector(stat=255, stat_op=Stat.SUM, m=2), "touches stat rows 256"),
        (vector(scale_out=1023, magnitude=1, m=2), "touches scale rows 1024"),
        (vector(out_addr=1017), "touches scratchpad 1024"),
        (vector(post=Post.SMOOTH, par_addr=1020, out_addr=0), "touches scratchpad 1024"),
        (command(ROW, op=RowOp.PUT, m=9, sp_addr=1023), "touches scratchpad 1024"),
        (load(1024, 1), "sp_addr = 1024"),
        (load(0, 1, run_stride=-16, runs=2, sp_run=1), "touches byte -16"),
        (load(0, 1, runs=30000, planes=30000), "more than the scratchpad holds"),
        (store(0, 1, offset=1 << 63), "below 2^62"),
        (vector(shift=62), "shift = 62"),
        (vector(shift1=63), "shift1 = 63"),
        (vector(shift2=62), "shift2 = 62"),
        (vector(function=Function.SILU), "the lanes hold gelu"),
        (vector(pre=Pre.CENTER, imm=4097), "imm = 4097"),
        (vector(pre=Pre.MAX_MINUS, stat_op=Stat.MAX), "reads f1"),
        (vector(pre=Pre.CENTER, stat_op=Stat.MOMENTS), "reads f1"),
        (vector(pre=Pre.ROW_SCALE, magnitude=1, scale_in=3, scale_out=10), "scale_out = 10"),
        (vector(source=Source.SP, in_addr=0, out_addr=1), "not element over element"),
        (vector(source=Source.SP, out=Out.S8), "not element over element"),
        (vector(post=Post.RESIDUAL, in_addr=0, out_addr=4, par_addr=99), "not element over"),
        (vector(mul=Mul.CHANNEL, par_addr=7, out_addr=0), "overlaps its parameters"),
        (vector(panels=2, out_stride=7), "writes some of the scratchpad twice"),
        (matmul(0, 16, 0, nt=2, acc_stride=7, w_stride=8), "writes some of the accumulators twice"),
        (load(0, 1, runs=2), "writes some of the scratchpad twice"),
        (store(0, 1, runs=2, run_stride=15, sp_run=1), "writes some of the dram region 2 twice"),
        (command(ROW, op=RowOp.RSQRT, m=1, n=0), "n = 0"),
        (command(ROW, op=RowOp.RSQRT, m=1, n=4097), "n = 4097"),
        (command(ROW, op=RowOp.RSQRT, m=1, n=1, eps=1 << 40), "eps"),
        (command(MATMUL, m=40000), "m = 40000"),
    ],
)
def test_single_commands(item, text):
    found = problems(item)
    assert found, "nothing found"
    assert all(p.startswith("command 1: ") for p in found)
    assert any(text in p for p in found), found


@pytest.mark.parametrize(
    "item",
    [
        load(1020, 4),
        matmul(0, 1020, 2040),
        vector(stat=255, stat_op=Stat.SUM, m=1),
        vector(out_addr=1016, out=Out.S16),
        vector(out_addr=1020, out=Out.S8),
        vector(source=Source.SP, in_addr=40, out_addr=40),
        vector(source=Source.SP, in_addr=40, out_addr=40, panels=1, in_stride=3),
        vector(shift=61, shift1=61, shift2=61),
        command(ROW, op=RowOp.PUT, m=16, sp_addr=1022),
        command(MATMUL, m=0, kt=30000, nt=30000),
    ],
)
def test_last_words_are_legal(item):
    assert problems(item) == []


def test_scalars():
    item = load(0, 1, runs=Scalar(2), sp_run=1)
    assert "runs = s2" in problems(item)[0]
    assert problems(item, scalars={2: 1024}) == []
    assert "touches scratchpad 1024" in problems(item, scalars={2: 1025})[0]
    moved = load(0, 1, scalar_on=1, scalar=3)
    assert "scalar = s3" in problems(moved)[0]
    other = store(8, 1, region=1)
    assert "byte 0x8" in problems(moved, other, scalars={3: 8})[0]
    assert problems(moved, other, scalars={3: 16}) == []
    # Nothing that is touched depends on these.
    assert problems(vector(valid=Scalar(0), row0=Scalar(1))) == []
    with pytest.raises(ValueError, match="register 16"):
        problems(item, scalars={16: 0})


def test_frame():
    config = CONFIG
    items = list(Program(config, [load(0, 1)]))
    assert find_problems(items, config) == []
    assert "is not BEGIN" in str(find_problems(items[1:], config)[0])
    assert "is the last and not END" in str(find_problems(items[:-1], config)[-1])
    assert "early END" in str(find_problems([*items, items[-1]], config)[1])
    assert "second BEGIN" in str(find_problems([items[0], *items], config)[1])
    items[0]["hash"] = 1
    items[0]["commands"] = 9
    items[2].waits = load(0, 1, waits=[(0, 1)]).waits
    texts = [str(p) for p in find_problems(items, config)]
    assert any("hash = 0x1" in t for t in texts)
    assert any("commands = 9: 3 are" in t for t in texts)
    assert any("END takes and posts no tokens" in t for t in texts)
    with pytest.raises(ProgramError, match=r"command 0: .* more") as caught:
        check_program(items, config)
    assert len(caught.value.problems) == 3


def test_bytes_and_back():
    program = Program(CONFIG, [load(0, 4, posts=[(1, 2)]), store(0, 4, waits=[(1, 2)])])
    data = program.to_bytes()
    assert len(data) == 64 * len(program) == 256
    again = Program.from_bytes(CONFIG, data)
    assert again == program
    assert again.to_bytes() == data
    with pytest.raises(ValueError, match="hash"):
        Program.from_bytes(Config(), data)
    with pytest.raises(ValueError, match="65 bytes"):
        Program.from_bytes(CONFIG, data[:65])
    with pytest.raises(ValueError, match="command 2 of 3 is STORE"):
        Program.from_bytes(CONFIG, data[:192])
    with pytest.raises(ValueError, match="command 1: opcode 0x99"):
        Program.from_bytes(CONFIG, data[:64] + b"\x99" + data[65:])
    with pytest.raises(ValueError, match="BEGIN commands = 4: there are 3"):
        Program.from_bytes(CONFIG, data[:128] + data[192:])
    program.append(load(0, 1, length=-1))
    with pytest.raises(ValueError, match="command 3: LOAD length = -1"):
        program.to_bytes()


def test_listing():
    program = Program(CONFIG)
    program.extend(
        [
            load(3, 1, waits=[(2, 1)], posts=[(1, 2)], runs=Scalar(4)),
            matmul(0, 1, 2, k_outer=1),
            command(ROW, op=RowOp.RSQRT, m=1, n=8, eps=255),
        ]
    )
    lines = disassemble(program).splitlines()
    assert len(lines) == 5
    assert "BEGIN" in lines[0]
    assert "commands=5" in lines[0]
    assert lines[1].split()[:4] == ["1", "LOAD", "LOAD", "sp_addr=3"]
    assert "runs=s4" in lines[1]
    assert lines[1].endswith("-2 +1*2")
    assert "mode=S8 k_outer" in lines[2]
    assert "op=RSQRT" in lines[3]
    assert "eps=0xff" in lines[3]
    assert disassemble([]) == ""


def test_speed():
    """1500 commands of a double-buffered loop in well below a few seconds."""
    config = Config()
    items: list[Command] = []
    steps = 375
    for i in range(steps):
        buffer = 2048 * (i % 2)
        acc = 512 * (i % 2)
        spare = i >= 2
        items += [
            command(
                LOAD,
                sp_addr=buffer,
                region=1,
                offset=i * 4096,
                length=64,
                runs=64,
                planes=4,
                run_stride=1536,
                plane_stride=64,
                sp_chunk=64,
                sp_run=1,
                sp_plane=128,
                waits=[(1, 1)] if spare else [],
                posts=[(0, 1)],
            ),
            command(
                MATMUL,
                m=32,
                kt=8,
                nt=12,
                x_addr=buffer,
                x_stride=32,
                w_addr=buffer + 256,
                w_stride=16,
                acc_addr=acc,
                acc_stride=32,
                mode=XMode.SCALED,
                waits=[(0, 1)] + ([(3, 1)] if spare else []),
                posts=[(2, 1)] + ([(1, 1)] if i + 2 < steps else []),
            ),
            command(
                VECTOR,
                m=32,
                panels=12,
                valid=192,
                acc_addr=acc,
                acc_stride=32,
                par_addr=12000,
                par_stride=5,
                mul=Mul.CHANNEL,
                bias=1,
                out=Out.S16,
                out_addr=8192 + buffer,
                out_stride=32,
                waits=[(2, 1)] + ([(5, 1)] if spare else []),
                posts=[(4, 1)] + ([(3, 1)] if i + 2 < steps else []),
            ),
            command(
                STORE,
                sp_addr=8192 + buffer,
                region=2,
                offset=i * 32 * 384,
                length=384,
                runs=32,
                planes=1,
                run_stride=384,
                sp_chunk=32,
                sp_run=1,
                waits=[(4, 1)],
                posts=[(5, 1)] if i + 2 < steps else [],
            ),
        ]
    program = Program(config, items)
    assert find_problems(program, config) == []
    # The same with one token less is found.
    items[0].posts, items[1].waits = (), items[1].waits[1:]
    assert any("word 0 of the scratchpad" in str(p) for p in find_problems(program, config))
