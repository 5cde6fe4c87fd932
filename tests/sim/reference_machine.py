"""The machine of docs/architecture.md once more, element by element in plain Python integers.

Slow, and written from the page alone: no NumPy, none of the golden functions, tables computed
here. The simulator must agree with it.
"""

import math

from tilewright.hw.commands import (
    Function,
    Mul,
    Opcode,
    Out,
    Post,
    Pre,
    RowOp,
    Source,
    Stat,
    WeightFormat,
    XMode,
)
from tilewright.hw.config import Config
from tilewright.hw.encoding import Command


def rsh(x, s):
    return x if s == 0 else (x + (1 << s - 1)) >> s


def sat(x, bits):
    return max(-(1 << bits - 1), min((1 << bits - 1) - 1, x))


def signed(x, bits):
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> bits - 1 else x


def half_up(x):
    return math.floor(x + 0.5)


def lerp(table, i, lo, lg):
    return table(i) + rsh((table(i + 1) - table(i)) * lo, lg)


def row_scale(a):
    """The largest m / 4 * 2^-e with RSH(a m, e + 2) <= 127."""
    pairs = [(m, e) for m in (4, 5, 6, 7) for e in range(10)]
    fits = [(m, e) for m, e in pairs if rsh(a * m, e + 2) <= 127]
    return max(fits, key=lambda pair: pair[0] / 2 ** pair[1])


def exp2(u):
    if not 0 <= u >> 10 <= 31:
        return 0
    f = u & 1023
    value = lerp(lambda i: half_up(65535 * 2 ** (-i / 64)), f >> 4, f & 15, 4)
    return min(rsh(value >> (u >> 10), 8), 255)


def activation(name, w):
    bound = 16384 if name == "SILU" else 8192
    if w >= bound:
        return 1024 if name == "TANH" else w
    if w < -bound:
        return -1024 if name == "TANH" else 0

    def table(i):
        x = (i * 128 - bound) / 1024
        if name == "GELU":
            y = 0.5 * x * (1 + math.erf(x / math.sqrt(2)))
        elif name == "SILU":
            y = x / (1 + math.exp(-x))
        else:
            y = math.tanh(x)
        return math.floor(1024 * y + 0.5)

    offset = w + bound
    return lerp(table, offset >> 7, offset & 127, 7)


def rsqrt(v):
    k = (v.bit_length() - 1) >> 1
    p = (v << 16 - 2 * k) if 2 * k <= 16 else v >> (2 * k - 16)
    return lerp(lambda i: half_up(65536 * math.sqrt(64 / i)), p >> 10, p & 1023, 10), k


class Reference:
    def __init__(self, config: Config, memory: bytearray, regions, scalars):
        self.c = config
        self.W, self.R, self.C = max(config.rows, config.columns), config.rows, config.columns
        self.memory, self.regions, self.scalars = memory, regions, scalars
        self.sp = [bytearray(2 * self.W) for _ in range(config.sp_words)]
        self.acc = [[0] * self.C for _ in range(config.acc_words)]
        self.scale = [0] * config.scale_rows
        self.stat = [[0, 0, 0, 0] for _ in range(config.stat_rows)]
        self.top = [0] * config.stat_rows

    def word(self, address):
        return self.sp[address % self.c.sp_words]

    def get16(self, address, lane):
        return signed(int.from_bytes(self.word(address)[2 * lane : 2 * lane + 2], "little"), 16)

    def put16(self, address, lane, value):
        self.word(address)[2 * lane : 2 * lane + 2] = (value & 0xFFFF).to_bytes(2, "little")

    def panel16(self, address, stride, i, j):
        return self.get16(address + j // self.W * stride + i, j % self.W)

    def panel8(self, address, stride, i, j):
        return self.word(address + j // self.W * stride + i // 2)[i % 2 * self.W + j % self.W]

    def run(self, commands: list[Command]):
        for item in commands:
            f = item.resolve(dict(enumerate(self.scalars)))
            if item.opcode in (Opcode.LOAD, Opcode.STORE):
                self.transfer(f, item.opcode == Opcode.LOAD)
            elif item.opcode == Opcode.MATMUL:
                self.matmul(f)
            elif item.opcode == Opcode.VECTOR:
                self.vector(f)
            elif item.opcode == Opcode.ROW:
                self.row(f)

    def transfer(self, f, load):
        base = self.regions[f["region"]][0] + f["offset"]
        if f["scalar_on"]:
            base += self.scalars[f["scalar"]]
        size = self.W if f["half"] else 2 * self.W
        for k in range(f["planes"]):
            for j in range(f["runs"]):
                run = base + k * f["plane_stride"] + j * f["run_stride"]
                for b in range(-(-f["length"] // size) * size):
                    row = j // 2 if f["half"] else j
                    address = f["sp_addr"] + k * f["sp_plane"] + row * f["sp_run"]
                    word = self.word(address + b // size * f["sp_chunk"])
                    place = b % size + (j % 2 * self.W if f["half"] else 0)
                    if load:
                        word[place] = self.memory[run + b] if b < f["length"] else 0
                    elif b < f["length"]:
                        self.memory[run + b] = word[place]

    def activation(self, f, i, k):
        mode = f["mode"]
        if mode in (XMode.S8, XMode.U8):
            byte = self.panel8(f["x_addr"], f["x_stride"], i, k)
            return signed(byte, 8) if mode == XMode.S8 else byte
        x = self.panel16(f["x_addr"], f["x_stride"], i, k)
        low = signed(x, 8)
        if mode == XMode.LOW:
            return low
        if mode == XMode.HIGH:
            return (x - low) // 256
        m, e = row_scale(self.scale[(f["scale"] + i) % self.c.scale_rows])
        return sat(rsh(x * m, e + 2), 8)

    def matmul(self, f):
        for nt in range(f["nt"]):
            for i in range(f["m"]):
                acc = self.acc[(f["acc_addr"] + nt * f["acc_stride"] + i) % self.c.acc_words]
                xs = [self.activation(f, i, k) for k in range(f["kt"] * self.R)]
                for lane in range(self.C if xs else 0):
                    total = acc[lane] if f["accumulate"] else 0
                    n = nt * self.C + lane
                    for k, x in enumerate(xs):
                        total += x * signed(self.weight(f, k, n), self.c.weight_bits)
                    acc[lane] = signed(total, 32)
                    self.maximum(f, i, n, acc[lane])

    def maximum(self, f, i, n, value):
        row = (f["stat"] + i) % self.c.stat_rows
        if f["row_max"] and n == 0:
            self.top[row] = -(1 << 31)
        if f["row_max"] and n < f["valid"] and (not f["causal"] or n <= f["row0"] + i):
            self.top[row] = max(self.top[row], value)

    def panel4(self, address, stride, i, j):
        byte = self.word(address + j // self.W * stride + i // 4)
        return byte[(i % 4 * self.W + j % self.W) // 2] >> 4 * (j % 2) & 15

    def weight(self, f, k, n):
        if f["transposed"]:
            return self.panel8(f["w_addr"], f["w_stride"], n, k)
        if f["weights"] != WeightFormat.S4:
            return self.panel8(f["w_addr"], f["w_stride"], k, n)
        w4 = self.panel4(f["w_addr"], f["w_stride"], k, n)
        return signed(w4, 4) * self.panel4(f["group_addr"], f["group_stride"], k // 32, n)

    def vector(self, f):
        m, panels, lanes = f["m"], f["panels"], self.c.lanes
        for group in range(panels * self.W // lanes):
            for i in range(m):
                for j in range(group * lanes, (group + 1) * lanes):
                    self.element(f, i, j, start=f["first"] and j == 0)

    def element(self, f, i, j, start):
        p, lane = j // self.W, j % self.W
        stat = self.stat[(f["stat"] + i) % self.c.stat_rows]
        scale_out = (f["scale_out"] + i) % self.c.scale_rows
        if start:
            if f["magnitude"]:
                self.scale[scale_out] = 0
            if f["stat_op"] in (Stat.MAX, Stat.MOMENTS):
                stat[0] = -(1 << 43) if f["stat_op"] == Stat.MAX else 0
            if f["stat_op"] in (Stat.SUM, Stat.MOMENTS):
                stat[1] = 0
        valid = j < f["valid"] and (not f["causal"] or j <= f["row0"] + i)
        base, out = self.value(f, i, j, stat) if valid else (0, 0)
        if f["out"] in (Out.S16, Out.SYM16, Out.WRAP16):
            self.put16(f["out_addr"] + p * f["out_stride"] + i, lane, out)
        elif f["out"] != Out.NONE:
            word = self.word(f["out_addr"] + p * f["out_stride"] + i // 2)
            word[i % 2 * self.W + lane] = out & 0xFF
        if not valid:
            return
        if f["magnitude"]:
            self.scale[scale_out] = max(self.scale[scale_out], abs(out))
        if f["stat_op"] == Stat.MAX:
            stat[0] = max(stat[0], signed(base, 44))
        elif f["stat_op"] == Stat.SUM:
            stat[1] = (stat[1] + out) % (1 << 48)
        elif f["stat_op"] == Stat.MOMENTS:
            stat[0] = signed(stat[0] + out, 44)
            stat[1] = (stat[1] + out * out) % (1 << 48)

    def source(self, f, i, j):
        if f["source"] == Source.SP:
            return self.panel16(f["in_addr"], f["in_stride"], i, j)
        v = 0
        for part in range(f["parts"] + 1):
            tile = f["acc_addr"] + part * f["acc_part"] + j // self.C * f["acc_stride"]
            v = 256 * v + self.acc[(tile + i) % self.c.acc_words][j % self.C]
        return signed(v, 44)

    def value(self, f, i, j, stat):
        def parameter(row):
            address = f["par_addr"] + j // self.W * f["par_stride"] + row
            return self.get16(address, j % self.W) & 0xFFFF

        v = self.source(f, i, j)
        bias = signed(parameter(2) | parameter(3) << 16, 32)
        less = 8
        a = v
        if f["pre"] == Pre.ROW_SCALE:
            mantissa, less = row_scale(self.scale[(f["scale_in"] + i) % self.c.scale_rows])
            a = rsh(signed(v, 32) * half_up(4 / mantissa * 2**15), 7)
        elif f["pre"] == Pre.MAX_MINUS:
            a = stat[0] - v
        elif f["pre"] == Pre.TOP_MINUS:
            a = self.top[(f["stat"] + i) % self.c.stat_rows] - v
        elif f["pre"] == Pre.CENTER:
            a = f["imm"] * signed(v, 32) - stat[0]
        if f["mul"] == Mul.CHANNEL:
            a = rsh(a * parameter(0), (parameter(1) & 63) - less)
        elif f["mul"] == Mul.IMMEDIATE:
            a = rsh(a * f["imm"], f["shift"])
        elif f["mul"] == Mul.ROW:
            a = rsh(a * stat[2], stat[3] + f["shift"])
        t = a if f["mul"] == Mul.NONE else sat(a, 32)
        base = t + bias if f["bias"] else t
        w = sat(rsh(base, 8), 16) if f["bias"] else sat(t, 16)
        g = w
        if f["function"] == Function.EXP2:
            g = exp2(base)
        elif f["function"] != Function.NONE:
            g = activation(Function(f["function"]).name, w)
        c = parameter(4)
        y = g
        if f["post"] == Post.RESIDUAL:
            op = self.panel16(f["in_addr"], f["in_stride"], i, j)
            y = rsh(base + rsh(op * c, f["shift1"]), f["shift2"])
        elif f["post"] == Post.AFFINE:
            y = rsh(g * signed(c, 16) + bias, f["shift2"])
        elif f["post"] == Post.SMOOTH:
            y = rsh(g * c, f["shift2"])
        if f["out"] == Out.U8:
            return base, max(0, min(255, y))
        if f["out"] == Out.WRAP16:
            return base, signed(base, 16)
        if f["out"] in (Out.SYM16, Out.HIGH, Out.LOW):
            y = max(-32639, min(32639, y))
            low = signed(y, 8)
            return base, {Out.SYM16: y, Out.HIGH: (y - low) // 256, Out.LOW: low}[f["out"]]
        return base, sat(y, 8 if f["out"] == Out.S8 else 16)

    def row(self, f):
        for i in range(f["m"]):
            stat = self.stat[(f["stat"] + i) % self.c.stat_rows]
            scale = (f["scale"] + i) % self.c.scale_rows
            address, lane = f["sp_addr"] + i // self.W, i % self.W
            if f["op"] == RowOp.DIVIDE:
                den = stat[1]
                n = den.bit_length()
                stat[2:] = [(1 << n + 15) // den, n] if den else [0, 0]
            elif f["op"] == RowOp.RSQRT:
                s1 = 0 if f["rms"] else stat[0]
                stat[2:] = rsqrt(max(f["n"] * stat[1] - s1 * s1 + f["eps"], 1))
            elif f["op"] == RowOp.GET:
                self.scale[scale] = self.get16(address, lane) & 0xFFFF
            else:
                if lane == 0:
                    self.word(address)[:] = bytes(2 * self.W)
                self.put16(address, lane, self.scale[scale])
