"""The exception of graphs."""

from __future__ import annotations

from tilewright.sw.models.errors import ModelError


class GraphError(ModelError):
    """A graph that cannot be used; the message is one line and names the node or tensor."""
