"""Settings every test process needs before NumPy is imported."""

import os
import signal

# One thread for BLAS: the matrices are small, and threads of several test processes on two cores
# contend so that quantizing MiniLM takes 94 CPU-seconds instead of 6.5.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# A shell's background job ignores Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
