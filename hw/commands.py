"""Command layouts and enumerations: defined once for RTL, simulator, assembler and manifest.

A program is a sequence of 64-byte little-endian commands. The first is `BEGIN`, the last `END`.
Bytes 0 … 11 are common to all: opcode, then four wait slots and four post slots for tokens.
`docs/architecture.md` says what each command does.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

COMMAND_BYTES = 64
WAIT_SLOTS = 4
POST_SLOTS = 4
SEMAPHORES = 16
TOKEN_MAX = 63
"""Largest value of a token counter; one more is a fault."""
SCALARS = 16
REGIONS = 8
PROGRAM_REGION = 0
"""Region commands are fetched from."""
COUNT_SCALAR_FLAG = 0x8000
"""A `count` field with this bit set names scalar register (value & 15) instead of an immediate."""
SYM16_MAX = 32639
"""Largest magnitude of an s16 whose balanced bytes are both s8: 256 * 127 + 127."""
GROUP_ROWS = 32
"""Rows of K that share a group scale of 4-bit weights."""
PARAMETER_ROWS = 5
"""Rows of a channel-parameter block, an s16 [5, N] matrix in panel layout: M, sh, B low half,
B high half, multiplier (R, G or g16)."""


class Opcode(enum.IntEnum):
    """What a command does."""

    BEGIN = 0x01
    END = 0x02
    LOAD = 0x10
    STORE = 0x11
    MATMUL = 0x20
    VECTOR = 0x30
    ROW = 0x31


class Unit(enum.IntEnum):
    """Units with a queue, in the order of their queues; `FETCH` names the front end in faults."""

    LOAD = 0
    MATMUL = 1
    VECTOR = 2
    STORE = 3
    FETCH = 4


UNIT_OF_OPCODE = {
    Opcode.LOAD: Unit.LOAD,
    Opcode.STORE: Unit.STORE,
    Opcode.MATMUL: Unit.MATMUL,
    Opcode.VECTOR: Unit.VECTOR,
    Opcode.ROW: Unit.VECTOR,
    Opcode.BEGIN: Unit.FETCH,
    Opcode.END: Unit.FETCH,
}


class Fault(enum.IntEnum):
    """Why a run was stopped."""

    NONE = 0
    ILLEGAL_OPCODE = 1
    ILLEGAL_FIELD = 2
    HASH_MISMATCH = 3
    PROGRAM_LENGTH = 4
    WINDOW = 5
    READ_SLVERR = 6
    READ_DECERR = 7
    WRITE_SLVERR = 8
    WRITE_DECERR = 9
    WATCHDOG = 10
    TOKEN_OVERFLOW = 11


class XMode(enum.IntEnum):
    """How the activation feeder reads a row."""

    SCALED = 0  # s16 rows, x8 = SAT8(RSH(x*m, e + 2)) by the row scale
    S8 = 1  # s8 rows, two a word
    U8 = 2  # u8 rows, two a word
    HIGH = 3  # high balanced byte of s16 rows
    LOW = 4  # low balanced byte of s16 rows


class Source(enum.IntEnum):
    """Where a vector command reads its elements."""

    ACC = 0  # s32 from the accumulators
    SP = 1  # s16 rows from the scratchpad


class Pre(enum.IntEnum):
    """First stage of a lane: a = …, v the source value of row i."""

    NONE = 0  # v
    ROW_SCALE = 1  # RSH(v * F[m], 7), (m, e) of scale row i
    MAX_MINUS = 2  # maximum of row i - v
    CENTER = 3  # imm * v - S1 of row i
    TOP_MINUS = 4  # maximum of row i that a MATMUL kept - v


class Mul(enum.IntEnum):
    """Second stage: t = SAT32(RSH(a * multiplier, shift))."""

    NONE = 0  # t = a
    CHANNEL = 1  # M[c], sh[c] - e with ROW_SCALE, else sh[c] - 8
    IMMEDIATE = 2  # imm, shift
    ROW = 3  # row factor of row i, its exponent + shift (R, n of softmax; r, k of LayerNorm)


class Function(enum.IntEnum):
    """Table stage on w."""

    NONE = 0
    GELU = 1
    SILU = 2
    TANH = 3
    EXP2 = 4  # on base (u, Q10), gives 0 … 255


class Post(enum.IntEnum):
    """Last stage, with c the channel's multiplier and B its bias word."""

    NONE = 0  # w (or the function's value)
    RESIDUAL = 1  # RSH(t + B + RSH(operand * c, shift1), shift2), c u16
    AFFINE = 2  # RSH(w * c + B, shift2), c s16, B s32
    SMOOTH = 3  # RSH(w * c, shift2), c u16


class Out(enum.IntEnum):
    """Format of the output; HIGH, LOW and the 8-bit ones are written two rows a word."""

    NONE = 0
    S16 = 1
    S8 = 2
    U8 = 3
    SYM16 = 4  # s16 within ±32639, whose balanced bytes are s8
    HIGH = 5  # high balanced byte of SYM16
    LOW = 6  # low balanced byte of SYM16
    WRAP16 = 7  # low 16 bits of base: how accumulators leave whole


BYTE_OUTS = (Out.S8, Out.U8, Out.HIGH, Out.LOW)


class Parts(enum.IntEnum):
    """Accumulator regions of one value, the most significant first: v = 256 · v + next."""

    ONE = 0
    TWO = 1  # 16-bit times 8-bit operands: h, l
    THREE = 2  # 16-bit times 16-bit: hh, hl + lh, ll


class WeightFormat(enum.IntEnum):
    """What the stationary operand is in the scratchpad."""

    S8 = 0
    S4 = 1  # 4 bits times the scale of its group of GROUP_ROWS rows and channel


class Stat(enum.IntEnum):
    """Row statistics kept over the columns of a command, besides the magnitude."""

    NONE = 0
    MAX = 1  # maximum of base, 44 bits
    SUM = 2  # sum of the outputs (softmax's denominator)
    MOMENTS = 3  # sum and sum of squares of the outputs (LayerNorm)


class RowOp(enum.IntEnum):
    """What the row unit computes of a row."""

    DIVIDE = 0  # den -> R = floor(2^(n+15) / den), n = bitlen(den); den 0 gives R = 0
    RSQRT = 1  # S1, S2 -> r, k of V = max(N*S2 - S1^2 + eps_q, 1)
    GET = 2  # scratchpad s16 words -> scale rows (largest magnitudes, u16)
    PUT = 3  # scale rows -> scratchpad words


@dataclass(frozen=True)
class Field:
    """A field of a command.

    Attributes
    ----------
    name : str
    offset, width : int
        Bit position in the 512-bit little-endian command, and width.
    signed : bool
    kind : str
        "plain"; "count" (16 bits, may name a scalar register); "sp" / "acc" (a word address that
        must lie in the memory); "scale" / "stat" (a row of the row table); "enum".
    values : type of IntEnum or None
        Legal values of an "enum" field.
    doc : str
    """

    name: str
    offset: int
    width: int
    signed: bool = False
    kind: str = "plain"
    values: type[enum.IntEnum] | None = None
    doc: str = ""


_COMMON_BYTES = 1 + WAIT_SLOTS + POST_SLOTS + 3


class _Layout:
    """Places fields one behind the other, each at a multiple of its own size up to 32 bits."""

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.bit = 8 * _COMMON_BYTES

    def add(self, name: str, width: int, doc: str, **more: object) -> "_Layout":
        if width >= 8:
            align = min(width & -width, 32)
            self.bit = -(-self.bit // align) * align
        self.fields.append(Field(name, self.bit, width, doc=doc, **more))  # type: ignore[arg-type]
        self.bit += width
        if self.bit > 8 * COMMAND_BYTES:
            raise ValueError(f"command layout: {name} ends at bit {self.bit}")
        return self

    def count(self, name: str, doc: str) -> "_Layout":
        return self.add(name, 16, doc, kind="count")

    def done(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}


COMMON: dict[str, Field] = {
    "opcode": Field("opcode", 0, 8, kind="enum", values=Opcode, doc="what the command does"),
    **{
        f"wait{i}": Field(f"wait{i}", 8 + 8 * i, 8, doc="count << 4 | semaphore; 0: no wait")
        for i in range(WAIT_SLOTS)
    },
    **{
        f"post{i}": Field(f"post{i}", 40 + 8 * i, 8, doc="count << 4 | semaphore; 0: no post")
        for i in range(POST_SLOTS)
    },
}

_BEGIN = (
    _Layout()
    .add("hash", 64, "manifest hash; the machine refuses another")
    .add("commands", 32, "commands in the program, BEGIN and END included")
    .done()
)

_END = _Layout().done()


def _transfer() -> dict[str, Field]:
    return (
        _Layout()
        .add("sp_addr", 16, "first scratchpad word", kind="sp")
        .add("region", 3, "address region, base and limit registers")
        .add("half", 1, "0: a chunk is a word; 1: a half-word, half j & 1 of its word (s8 rows)")
        .add("scalar_on", 1, "add scalar register `scalar` (bytes) to the offset")
        .add("scalar", 4, "scalar register")
        .add("offset", 64, "bytes from the region's base")
        .add("length", 32, "bytes of a run, 1 or more, contiguous in DRAM")
        .count("runs", "runs j")
        .count("planes", "outer repetitions k")
        .add("run_stride", 32, "bytes from run to run", signed=True)
        .add("plane_stride", 32, "bytes from plane to plane", signed=True)
        .add("sp_chunk", 16, "words from chunk to chunk of a run")
        .add("sp_run", 16, "words from run to run (half: from pair of runs to pair)")
        .add("sp_plane", 16, "words from plane to plane")
        .done()
    )


_MATMUL = (
    _Layout()
    .count("m", "rows of x, M")
    .count("kt", "tiles along K")
    .count("nt", "tiles along N")
    .add("x_addr", 16, "panels of x", kind="sp")
    .add("x_stride", 16, "words from panel to panel of x")
    .add("w_addr", 16, "panels of the stationary operand", kind="sp")
    .add("w_stride", 16, "words from panel to panel of the stationary operand")
    .add("acc_addr", 16, "accumulator word of tile 0, row 0", kind="acc")
    .add("acc_stride", 16, "accumulator words from tile to tile along N")
    .add("scale", 16, "scale row of x row 0 (mode SCALED)", kind="scale")
    .add("mode", 3, "how rows of x become s9", kind="enum", values=XMode)
    .add("transposed", 1, "the stationary operand's rows are columns of the tile (K of attention)")
    .add("k_outer", 1, "0: K tiles inner, N tiles outer; 1: the other way round")
    .add("accumulate", 1, "add to the accumulators on the first K tile too")
    .add("weights", 1, "format of the stationary operand", kind="enum", values=WeightFormat)
    .add("group_addr", 16, "group scales (weights S4)", kind="sp")
    .add("group_stride", 16, "words from panel to panel of the group scales")
    .count("valid", "with `row_max`: columns j < valid take part")
    .count("row0", "with `causal`: column j of row i takes part if also j <= row0 + i")
    .add("stat", 16, "row of row 0 whose `top` takes the maximum", kind="stat")
    .add("row_max", 1, "keep each row's maximum over the finished sums of the valid columns")
    .add("causal", 1, "causal mask of `row_max`")
    .done()
)

_VECTOR = (
    _Layout()
    .count("m", "rows")
    .count("panels", "panels of W columns")
    .count("valid", "columns j < valid count; the others are written as zero")
    .count("row0", "with `causal`: column j of row i is valid if also j <= row0 + i")
    .add("acc_addr", 16, "accumulator word of tile 0, row 0 (source ACC)", kind="acc")
    .add("acc_stride", 16, "accumulator words from tile to tile of C columns")
    .add("in_addr", 16, "s16 panels: the source (SP) or the residual operand", kind="sp")
    .add("in_stride", 16, "words from panel to panel")
    .add("out_addr", 16, "panels of the output", kind="sp")
    .add("out_stride", 16, "words from panel to panel")
    .add("par_addr", 16, "channel parameters, s16 [5, N] panels", kind="sp")
    .add("par_stride", 16, "words from panel to panel of the parameters")
    .add("scale_in", 16, "scale row of row 0 read by ROW_SCALE", kind="scale")
    .add("scale_out", 16, "scale row of row 0 that takes the output's magnitude", kind="scale")
    .add("stat", 16, "statistics row of row 0", kind="stat")
    .add("imm", 16, "multiplier of IMMEDIATE (u16), N of CENTER")
    .add("shift", 6, "shift of IMMEDIATE and ROW")
    .add("shift1", 6, "shift of the residual's product")
    .add("shift2", 6, "last shift of RESIDUAL, AFFINE, SMOOTH")
    .add("source", 1, "where v comes from", kind="enum", values=Source)
    .add("pre", 3, "first stage", kind="enum", values=Pre)
    .add("mul", 2, "second stage", kind="enum", values=Mul)
    .add("bias", 1, "1: base = t + B[c] and w = SAT16(RSH(base, 8)); 0: base = t, w = SAT16(t)")
    .add("function", 3, "table function on w", kind="enum", values=Function)
    .add("post", 2, "last stage", kind="enum", values=Post)
    .add("out", 3, "output format", kind="enum", values=Out)
    .add("stat_op", 2, "row statistics", kind="enum", values=Stat)
    .add("magnitude", 1, "keep the largest |output| of each row at scale_out")
    .add("first", 1, "statistics and magnitude start anew in this command")
    .add("causal", 1, "causal mask")
    .add("parts", 2, "accumulator regions of a value (source ACC)", kind="enum", values=Parts)
    .add("acc_part", 16, "accumulator words from region to region of a value")
    .done()
)

_ROW = (
    _Layout()
    .count("m", "rows")
    .add("op", 2, "what is done", kind="enum", values=RowOp)
    .add("stat", 16, "statistics row of row 0 (DIVIDE, RSQRT)", kind="stat")
    .add("scale", 16, "scale row of row 0 (GET, PUT)", kind="scale")
    .add("sp_addr", 16, "first scratchpad word (GET, PUT): W values a word", kind="sp")
    .add("n", 16, "N of RSQRT, 1 … 4096")
    .add("rms", 1, "RSQRT of RMSNorm: S1 counts as 0")
    .add("eps", 64, "eps_q of RSQRT, 40 bits")
    .done()
)

COMMAND_LAYOUTS: dict[Opcode, dict[str, Field]] = {
    Opcode.BEGIN: _BEGIN,
    Opcode.END: _END,
    Opcode.LOAD: _transfer(),
    Opcode.STORE: _transfer(),
    Opcode.MATMUL: _MATMUL,
    Opcode.VECTOR: _VECTOR,
    Opcode.ROW: _ROW,
}
"""Fields of each command behind the common ones."""


def all_fields(opcode: Opcode) -> dict[str, Field]:
    """Common fields and the opcode's own."""
    return {**COMMON, **COMMAND_LAYOUTS[opcode]}


def parameter_rows(f: Mapping[str, int]) -> list[int]:
    """Rows of a channel-parameter block that a VECTOR command with these fields fetches."""
    rows: list[int] = []
    if f["mul"] == Mul.CHANNEL:
        rows += [0, 1]
    if f["bias"] or f["post"] == Post.AFFINE:
        rows += [2, 3]
    if f["post"] != Post.NONE:
        rows.append(PARAMETER_ROWS - 1)
    return rows
