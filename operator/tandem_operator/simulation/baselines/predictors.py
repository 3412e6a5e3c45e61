"""One step ahead from a series of intervals: last value, ARIMA(1,1,0), Kalman filter of level and trend."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Final, Literal

Series = tuple[float, ...]
Predictor = Literal["constant", "arima", "kalman"]
ARIMA_NEEDS: Final = 5
"""Points before which the last value stands in."""
KEPT: Final = 50
"""Points of a series that are remembered."""


def constant(series: Series) -> float:
    """The last value."""
    return series[-1] if series else 0.0


def arima(series: Series) -> float:
    """Differences as an AR(1) fitted by least squares, its coefficient inside (-1, 1)."""
    if len(series) < ARIMA_NEEDS:
        return constant(series)
    steps = [b - a for a, b in itertools.pairwise(series)]
    power = sum(step * step for step in steps[:-1])
    if power <= 0:
        return series[-1]
    phi = sum(a * b for a, b in itertools.pairwise(steps)) / power
    return max(series[-1] + min(max(phi, -0.99), 0.99) * steps[-1], 0.0)


def kalman(series: Series, level_noise: float = 1.0, trend_noise: float = 0.1, noise: float = 10.0) -> float:
    """Local linear trend: level and slope, both walking at random."""
    if not series:
        return 0.0
    level, slope = series[0], 0.0
    a, b, c = noise, 0.0, 1.0  # covariance [[a, b], [b, c]]
    for value in series[1:]:
        level += slope
        a, b, c = a + 2 * b + c + level_noise, b + c, c + trend_noise
        gain_level, gain_slope = a / (a + noise), b / (a + noise)
        miss = value - level
        level, slope = level + gain_level * miss, slope + gain_slope * miss
        a, b, c = (1 - gain_level) * a, (1 - gain_level) * b, c - gain_slope * b
    return max(level + slope, 0.0)


PREDICTORS: Final[dict[Predictor, Callable[[Series], float]]] = {
    "constant": constant,
    "arima": arima,
    "kalman": kalman,
}


def remember(series: Series, value: float) -> Series:
    """What is no number is remembered as no load, as the published code does."""
    return (*series, value if math.isfinite(value) else 0.0)[-KEPT:]
