"""The exceptions of models and quantization."""

from __future__ import annotations

from tilewright.sw.errors import UserError


class ModelError(UserError):
    """A model, text or archive that cannot be used; the message is one line."""


class UnfitError(ModelError):
    """Weights whose integers would not do what the weights do."""
