"""A transformer accelerator generated from one Python configuration, and the software for it."""

__version__ = "0.1.0"
