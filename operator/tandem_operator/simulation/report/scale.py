"""From values to places on paper: round ticks, linear or logarithmic, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis: `low` to `high` in values, `start` to `end` on paper."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Place of a value; what is outside lands on the edge."""
        low, high = self._low_high()
        position = math.log10(max(value, 1e-12)) if self.log else value
        share = (position - low) / (high - low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the axis."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        step = round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        count = int((self.high - first * step) / step + 1e-9) + 1
        return [(first + index) * step for index in range(count)]

    def _low_high(self) -> tuple[float, float]:
        return (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)


def round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-12)))
    for factor in (1.0, 2.0, 5.0):
        if factor * power >= rough * (1 - 1e-9):
            return factor * power
    return 10.0 * power


def linear(
    values: Sequence[float], start: float, end: float, low: float | None = 0.0, high: float | None = None
) -> Scale:
    """Spans the values; `low` and `high` are kept when given."""
    bottom = min(values, default=0.0) if low is None else low
    top = max(values, default=1.0) if high is None else high
    if top <= bottom:
        bottom, top = (bottom, bottom + 1.0) if high is None else (top - 1.0, top)
    step = round_step((top - bottom) / 5)
    if high is None:
        top = math.ceil(top / step - 1e-9) * step
    if low is None:
        bottom = math.floor(bottom / step + 1e-9) * step
    return Scale(bottom, top, start, end)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """Whole powers of ten around the positive values."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive)) + 1e-9), math.ceil(math.log10(max(positive)) - 1e-9)
    return Scale(10.0**low, 10.0 ** max(high, low + 1), start, end, log=True)


def written(value: float) -> str:
    """Short and exact enough to read off an axis."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1e6:.3g}M" if size >= 1e6 else f"{value / 1e3:.3g}k"
    return f"{value:.4g}" if size >= 1e-3 else f"{value:.0e}"
