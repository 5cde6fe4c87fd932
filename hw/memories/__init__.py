"""Scratchpad, accumulators and row table."""
