"""One attention head from matmul, softmax, matmul: against the golden functions, and beside fp32.

python examples/attention_head.py [--backend iss|verilator]
"""

import argparse

import numpy as np

import tilewright as tw
from tilewright import golden

TOKENS, HEAD = 12, 32
Q_SCALE, V_SCALE = 2**-5, 2**-5  # what one unit of q, k and of v stands for
SCORE_BITS = 4  # scores are s32, softmax takes s16: so many low bits are rounded away

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("iss", "verilator"), default="iss")
backend = parser.parse_args().backend

rng = np.random.default_rng(1)
q, k, v = rng.integers(-96, 97, (3, TOKENS, HEAD)).astype(np.int8)
scale = Q_SCALE**2 * 2**SCORE_BITS / np.sqrt(HEAD)


def narrow(acc: np.ndarray) -> np.ndarray:
    """Scores as s16."""
    return golden.saturate(golden.rsh(acc, SCORE_BITS), golden.Fmt.S16)


with tw.Device(backend, tw.preset("small")) as device:
    scores = narrow(device.matmul(q, k.T))
    weights = device.softmax(scores, scale)  # u16, 32768 is 1
    # The array reads bytes or s16; 32768 does not fit s16, half of it does.
    halves = golden.rsh(weights, 1).astype(np.int16)
    found = device.matmul(halves, v)

# The same from golden functions: the maximum is taken off, exp2 of the rest, then one division.
# scale · log2(e) in Q10 is Ms / 2^shs, with Ms of 16 bits.
mantissa, exponent = np.frexp(scale * np.log2(np.e) * 1024)
factor = int(mantissa * 2**16 + 0.5), 16 - int(exponent)
x = narrow(golden.matmul(q, k.T))
everywhere = golden.valid_columns(TOKENS, TOKENS, length=TOKENS)
e8 = golden.softmax_exp(x, golden.softmax_max(x, everywhere), everywhere, *factor)
n, reciprocal = golden.reciprocal(golden.softmax_den(e8))
p = golden.rsh(e8 * reciprocal[:, None], n[:, None])
np.testing.assert_array_equal(weights, p)
np.testing.assert_array_equal(found, golden.combine_16x8(*golden.matmul_16x8(golden.rsh(p, 1), v)))

# What the integers stand for, beside the same head in fp32.
qf, kf, vf = (np.float32(Q_SCALE) * q, np.float32(Q_SCALE) * k, np.float32(V_SCALE) * v)
logits = qf @ kf.T / np.sqrt(np.float32(HEAD))
exact = np.exp(logits - logits.max(axis=1, keepdims=True))
exact = exact / exact.sum(axis=1, keepdims=True) @ vf
real = found * (V_SCALE / 2**14)
print(f"head of {TOKENS} tokens × {HEAD} on {backend}: equal to the golden functions")
print(f"token 0, integers: {np.round(real[0, :5], 3)} …")
print(f"token 0, fp32:     {np.round(exact[0, :5], 3)} …")
print(f"largest difference {np.abs(real - exact).max():.4f} of {np.abs(exact).max():.4f}")
