"""The best setting of each rival's formula, as `./tests/run bench autoscaler --tune` found it on the training part."""

from __future__ import annotations

from typing import Final

TUNED: Final[dict[str, dict[str, object]]] = {}
"""Fields to replace, by name of the formula."""
