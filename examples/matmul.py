"""One product of integer matrices on the machine, against the golden function.

python examples/matmul.py [--backend iss|verilator]
"""

import argparse

import numpy as np

import tilewright as tw

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("iss", "verilator"), default="iss")
backend = parser.parse_args().backend

# No size is a multiple of the 8×8 array: the driver fills tiles with zeros and cuts them off again.
rng = np.random.default_rng(0)
a = rng.integers(-128, 128, (20, 100)).astype(np.int8)
b = rng.integers(-128, 128, (100, 30)).astype(np.int8)

with tw.Device(backend, tw.preset("small")) as device:
    c = device.matmul(a, b)

# Products of integers have one right answer, hence == and no tolerance.
np.testing.assert_array_equal(c, tw.golden.matmul(a, b))
print(f"{a.shape} · {b.shape} on {backend}: {c.shape} {c.dtype}, first row {c[0, :5]} …")
print("equal to the golden function: every element")
