"""Durations as Go writes them ("120s", "1m30s", "500ms"): what the operator renders."""

from __future__ import annotations

import argparse
import re

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
WHOLE = re.compile(r"(\d+(?:\.\d+)?(?:h|ms|m|s))+")
PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")


def parse_duration(text: str) -> float:
    """Seconds; a plain number counts as seconds. For argparse: raises ArgumentTypeError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not WHOLE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 120s, 1m30s or 500ms")
    return sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))
