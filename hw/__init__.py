"""The generator: one configuration in, Verilog out."""

__version__ = "0.1.0"
