"""Kubernetes quantities: the API server rewrites them ("1000m" becomes "1"), so they are compared as numbers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}
_PATTERN: Final = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]|[KMGTPE]i)?$")


def parse_quantity(text: str | int | float) -> Decimal:
    """Raises ValueError when `text` is no quantity such as 500m, 2, 1.5Gi or 1e3."""
    match = _PATTERN.match(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 16Gi")
    return Decimal(match[1]) * _SUFFIXES[match[2] or ""]


def same_quantity(one: str | int | float, other: str | int | float) -> bool:
    try:
        return parse_quantity(one) == parse_quantity(other)
    except ValueError:
        return False
