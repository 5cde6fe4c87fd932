"""Stand-alone operations on arrays, each a program of its own: one file an operation."""
