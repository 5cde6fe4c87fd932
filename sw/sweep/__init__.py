"""Sweeps of the design space: what each configuration costs and what it gives."""
