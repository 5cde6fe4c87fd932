"""Tests of the package ``sw``."""
