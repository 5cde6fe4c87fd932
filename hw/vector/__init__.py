"""The vector data-flow unit."""
