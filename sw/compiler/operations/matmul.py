"""Products of integer matrices, exact.

The array multiplies bytes and accumulates in s32. A 16-bit operand is sent as its balanced bytes
(x = 256·h + l); partial products of equal weight have accumulators of their own, which the vector
unit combines. A value leaves in pieces of 16 bits, WRAP16 of RSH(v, 0), RSH(v, 16) and, of 16-bit
operands, RSH(v, 32).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.hw.commands import Mul, Opcode, Out, Parts, XMode
from tilewright.hw.config import Config
from tilewright.sw.arguments import choice, integer
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.operations.builder import (
    INPUT,
    OUTPUT,
    PARAMETERS,
    ROWS_MAX,
    Builder,
    blocks,
)
from tilewright.sw.compiler.tile import PASS_MIN
from tilewright.sw.program import Executable
from tilewright.sw.program.executable import Buffer
from tilewright.sw.rounding import ceil_div

K_MAX = 32768
"""Longest K of bytes: sums of at most 255·128·K fit s32."""
K_MAX_WIDE = 4096
"""Longest K of 16-bit operands on both sides: sums fit the 44 bits of a combined value."""

Part = tuple[tuple[XMode, str], ...]
"""The products (how rows of a are fed, buffer of b) that add up in one accumulator region."""

_HIGH, _LOW = "b high", "b low"


def longest(a: str, b: str) -> int:
    """Largest K for formats of a and b."""
    return K_MAX_WIDE if (a, b) == ("s16", "s16") else K_MAX


def parts(a: str, b: str) -> tuple[Part, ...]:
    """Partial products by accumulator region, the most significant first.

    Parameters
    ----------
    a : str
        "s8", "u8" or "s16".
    b : str
        "s8" or "s16" (as buffers "b high" and "b low").
    """
    byte = XMode.U8 if a == "u8" else XMode.S8
    if a != "s16":
        if b != "s16":
            return (((byte, "b"),),)
        return ((byte, _HIGH),), ((byte, _LOW),)
    if b != "s16":
        return ((XMode.HIGH, "b"),), ((XMode.LOW, "b"),)
    return (
        ((XMode.HIGH, _HIGH),),
        ((XMode.HIGH, _LOW), (XMode.LOW, _HIGH)),
        ((XMode.LOW, _LOW),),
    )


@dataclass(frozen=True)
class _Tiling:
    """Rows, panels of N and panels of K that are worked on at a time."""

    rows: int
    n: int
    k: int


@dataclass(frozen=True, kw_only=True)
class _Product:
    """Sizes of a product on a configuration."""

    config: Config
    m: int
    k: int
    n: int
    wide: bool
    planes: int
    regions: int
    products: int

    @property
    def k_panels(self) -> int:
        return ceil_div(self.k, self.config.panel)

    @property
    def n_panels(self) -> int:
        return ceil_div(self.n, self.config.panel)

    @property
    def k_words(self) -> int:
        """Words of a panel of K rows of b."""
        return self.config.panel // 2

    @property
    def panel_tiles(self) -> int:
        return self.config.panel // self.config.columns

    def row_words(self, rows: int) -> int:
        """Words of a panel of rows of a."""
        return rows if self.wide else ceil_div(rows, 2)

    # The scratchpad's banks: a quarter for a, two for b, one for outputs; two slots in each.

    @property
    def a_slot(self) -> int:
        return self.config.sp_words // 8

    @property
    def b_slot(self) -> int:
        return self.config.sp_words // 4

    @property
    def out_slot(self) -> int:
        return self.config.sp_words // 8

    def acc_words(self, rows: int, n: int) -> int:
        """Accumulator words of a block of outputs, all regions."""
        return self.regions * rows * n * self.panel_tiles

    def _tilings(self, acc: int) -> Iterator[_Tiling]:
        rows = {min(self.m, 1 << bit) for bit in range(15)} | {min(self.m, ROWS_MAX)}
        for high in sorted(rows):
            high = blocks(self.m, high)[0][1]
            if high % 2 and high < self.m and not self.wide:
                # Two rows of bytes share a word.
                continue
            most = min(
                acc // self.acc_words(high, 1),
                self.out_slot // high,
                self.n_panels,
                ROWS_MAX // self.config.panel,
            )
            for wide in {most >> bit for bit in range(most.bit_length())}:
                deep = min(
                    self.a_slot // self.row_words(high),
                    self.b_slot // (self.planes * wide * self.k_words),
                    self.k_panels,
                )
                if deep:
                    yield _Tiling(high, wide, deep)

    def _cost(self, tiling: _Tiling) -> tuple[float, int]:
        """Cycles: the array's, and those of the bus where it takes longer; then transfers."""
        config = self.config
        row_blocks, columns = ceil_div(self.m, tiling.rows), ceil_div(self.n_panels, tiling.n)
        chunks = ceil_div(self.k_panels, tiling.k)
        passes = self.products * ceil_div(self.k, config.rows) * self.n_panels * self.panel_tiles
        array = row_blocks * passes * max(tiling.rows, config.rows, PASS_MIN)
        word = config.word_bytes
        a = columns * self.row_words(self.m) * self.k_panels * word
        b = row_blocks * self.planes * self.n_panels * self.k_panels * self.k_words * word
        return max(array, (a + b) / config.axi_bytes), row_blocks * columns * chunks

    def tiling(self) -> _Tiling:
        """The cheapest tiling that fits.

        Raises
        ------
        CompileError
            If not even one row fits.
        """
        whole = self.config.acc_words
        # Half the accumulators where possible: one block is drained while the next is summed up.
        for acc in (whole // 2, whole):
            found = list(self._tilings(acc))
            if found:
                return min(found, key=lambda t: (*self._cost(t), -t.rows, -t.n, -t.k))
        raise CompileError(
            f"{self.config.title}: one row of a product takes {self.acc_words(1, 1)} accumulator "
            f"words of {whole}, and {self.planes * self.k_words} words of weights of {self.b_slot}"
        )


class _Slots:
    """Two places for operands; what is still there is not loaded again."""

    def __init__(self, start: int, size: int) -> None:
        self._places: list[tuple[int, object]] = [(start, None), (start + size, None)]

    def find(self, key: object) -> tuple[int, bool]:
        """Address for a block, and whether it is there already."""
        for index, (address, held) in enumerate(self._places):
            if held == key:
                # The other one is the older.
                self._places.append(self._places.pop(index))
                return address, True
        address, _ = self._places.pop(0)
        self._places.append((address, key))
        return address, False


def compile_matmul(config: Config, m: int, k: int, n: int, *, a: str, b: str) -> Executable:
    """Program of ``a @ b``.

    Parameters
    ----------
    config : Config
    m, k, n : int
        a is [m, k], b is [k, n]; 1 or more, k at most `longest(a, b)`.
    a, b : str
        Formats, as of `parts`.

    Returns
    -------
    Executable
        Inputs "a" and "b" (16 bits: "b high", "b low"), output "y" [m, n]: s32, or s64 where an
        operand has 16 bits.

    Raises
    ------
    InputError
        If a size or a format cannot be.
    CompileError
        If k is out of range, or one row is more than the memories hold.
    """
    for name, value in (("m", m), ("k", k), ("n", n)):
        integer(f"matmul: {name}", value, 1)
    choice("format of a", a, ("s8", "u8", "s16"))
    choice("format of b", b, ("s8", "s16"))
    if k > longest(a, b):
        raise CompileError(f"matmul: k = {k}: must be at most {longest(a, b)} of {a} and {b}")
    if b == "s16" and config.weight_bits < 8:
        raise CompileError(f"matmul: 16-bit b needs weight_bits 8, it is {config.weight_bits}")
    regions = parts(a, b)
    planes = sorted({plane for part in regions for _, plane in part})
    product = _Product(
        config=config,
        m=m,
        k=k,
        n=n,
        wide=a == "s16",
        planes=len(planes),
        regions=len(regions),
        products=sum(len(part) for part in regions),
    )
    builder = Builder(config)
    source = builder.buffer("a", INPUT, f"{a} panels", (m, k), "input")
    weights = {
        plane: builder.buffer(plane, PARAMETERS, "s8 weights", (k, n), "input") for plane in planes
    }
    form = "s32 pieces" if len(regions) == 1 else "s64 pieces"
    target = builder.buffer("y", OUTPUT, form, (m, n), "output")
    _Emitter(builder, product, regions, source, weights, target).emit()
    return builder.executable("matmul", m=m, k=k, n=n, a=a, b=b, macs=m * k * n)


class _Emitter:
    """Emits the blocks of a product."""

    def __init__(
        self,
        builder: Builder,
        product: _Product,
        regions: tuple[Part, ...],
        source: Buffer,
        weights: dict[str, Buffer],
        target: Buffer,
    ) -> None:
        self.builder = builder
        self.product = product
        self.regions = regions
        self.source = source
        self.weights = weights
        self.target = target
        self.tiling = product.tiling()
        quarter = builder.config.sp_words // 4
        self.a_slots = _Slots(0, product.a_slot)
        self.b_slots = _Slots(quarter, product.b_slot)
        self.out_start = 3 * quarter
        self.turn = 0

    def emit(self) -> None:
        """Blocks of N outer, of rows inner: b is the larger where a layer's weights are."""
        product, tiling = self.product, self.tiling
        acc_words = self.builder.config.acc_words
        double = 2 * product.acc_words(tiling.rows, tiling.n) <= acc_words
        number = 0
        for n0 in range(0, product.n_panels, tiling.n):
            n1 = min(n0 + tiling.n, product.n_panels)
            for rows in blocks(product.m, tiling.rows):
                acc = acc_words // 2 * (number % 2) if double else 0
                number += 1
                self._multiply(rows, (n0, n1), acc)
                self._drain(rows, (n0, n1), acc)

    def _multiply(self, rows: tuple[int, int], span: tuple[int, int], acc: int) -> None:
        product, config = self.product, self.builder.config
        count = rows[1] - rows[0]
        size = product.acc_words(count, span[1] - span[0]) // product.regions
        for k0 in range(0, product.k_panels, self.tiling.k):
            depth = min(self.tiling.k, product.k_panels - k0)
            x = self._a(rows, k0, depth)
            w, pitch = self._b(span, k0, depth)
            length = min(depth * config.panel, product.k - k0 * config.panel)
            for index, part in enumerate(self.regions):
                for turn, (mode, plane) in enumerate(part):
                    self.builder.emit(
                        Opcode.MATMUL,
                        m=count,
                        kt=ceil_div(length, config.rows),
                        nt=(span[1] - span[0]) * product.panel_tiles,
                        x_addr=x,
                        x_stride=product.row_words(count),
                        w_addr=w[plane],
                        w_stride=pitch,
                        acc_addr=acc + index * size,
                        acc_stride=count,
                        mode=mode,
                        accumulate=int(k0 > 0 or turn > 0),
                    )

    def _a(self, rows: tuple[int, int], k0: int, depth: int) -> int:
        """A block of a in the scratchpad."""
        address, there = self.a_slots.find((rows, k0))
        if not there:
            product = self.product
            words = product.row_words(rows[1] - rows[0])
            pitch = product.row_words(product.m)
            self.builder.move(
                Opcode.LOAD,
                self.source,
                first=k0 * pitch + product.row_words(rows[0]),
                words=words,
                pitch=pitch,
                panels=depth,
                sp=address,
                sp_pitch=words,
            )
        return address

    def _b(self, span: tuple[int, int], k0: int, depth: int) -> tuple[dict[str, int], int]:
        """Blocks of b in the scratchpad, by buffer, and their words from panel to panel."""
        product = self.product
        words = depth * product.k_words
        pitch = product.k_panels * product.k_words
        start, there = self.b_slots.find((span, k0))
        addresses = {}
        for index, (plane, buffer) in enumerate(self.weights.items()):
            addresses[plane] = start + index * (span[1] - span[0]) * words
            if not there:
                self.builder.move(
                    Opcode.LOAD,
                    buffer,
                    first=span[0] * pitch + k0 * product.k_words,
                    words=words,
                    pitch=pitch,
                    panels=span[1] - span[0],
                    sp=addresses[plane],
                    sp_pitch=words,
                )
        return addresses, words

    def _drain(self, rows: tuple[int, int], span: tuple[int, int], acc: int) -> None:
        """Every piece of a block of accumulators."""
        product, config = self.product, self.builder.config
        count, panels = rows[1] - rows[0], span[1] - span[0]
        piece = product.n_panels * product.m
        for number in range(2 if product.regions == 1 else 3):
            address = self.out_start + self.turn % 2 * product.out_slot
            self.turn += 1
            self.builder.emit(
                Opcode.VECTOR,
                m=count,
                panels=panels,
                valid=panels * config.panel,
                acc_addr=acc,
                acc_stride=count,
                out_addr=address,
                out_stride=count,
                acc_part=product.acc_words(count, panels) // product.regions,
                parts=Parts(product.regions - 1),
                imm=1,
                shift=16 * number,
                mul=Mul.IMMEDIATE if number else Mul.NONE,
                out=Out.WRAP16,
            )
            self.builder.move(
                Opcode.STORE,
                self.target,
                first=number * piece + span[0] * product.m + rows[0],
                words=count,
                pitch=product.m,
                panels=panels,
                sp=address,
                sp_pitch=count,
            )
