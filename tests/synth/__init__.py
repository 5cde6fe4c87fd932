"""Tests of the package ``synth``."""
