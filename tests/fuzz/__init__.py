"""Random machines running random programs: RTL against the instruction-set simulator.

`python -m tests.fuzz` draws machines and programs from seeds; a program may be legal, hold a
fault, meet a bus error or be broken off by a soft reset, and is always followed by a legal run on
the same machine. What differs is shrunk, and the command that repeats it is printed.
"""
