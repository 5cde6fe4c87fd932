"""Dispatch, tokens, registers, counters and faults."""
