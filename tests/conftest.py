"""Settings every test process needs before NumPy is imported."""

import os

# One thread for BLAS: the matrices are small, and threads of several test processes on two cores
# contend so that quantizing MiniLM takes 94 CPU-seconds instead of 6.5.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
