"""The generator: one configuration in, Verilog out."""
