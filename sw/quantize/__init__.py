"""Quantization: fp32 encoders to the integers of docs/numerics.md."""
