"""What goes wrong with a model, for people."""

from __future__ import annotations


class ModelError(Exception):
    """The model cannot be loaded or run; the message names the file, the numbers and what to do."""
