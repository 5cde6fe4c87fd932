"""The internal graph: typed operations, their fp32 meaning, encoders from and to it, importers."""
