"""The systolic array, its activation feeder and weight loader."""
