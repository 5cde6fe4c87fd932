"""Testbenches of single units and of the core: only the tests run them, a wheel has none."""
