"""Non-negative least squares for a handful of coefficients: times are sums of causes, none of which is negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SWEEPS: Final = 4000
"""Coordinate descent over at most eight coefficients: some ten milliseconds."""
ROUNDS: Final = 12
"""Of re-weighting, by which the mean of absolute errors is made small instead of that of squares."""
LEAST_ERROR: Final = 0.01
"""Relative; errors below it get no more weight."""
TOLERANCE: Final = 1e-10


def fit_relative(rows: Sequence[Sequence[float]], values: Sequence[float]) -> tuple[float, ...]:
    """Coefficients >= 0 with a small mean of |prediction / value - 1|. Rows are equally long, values above 0."""
    if not rows or len(rows) != len(values):
        raise ValueError(f"{len(rows)} rows and {len(values)} values: there must be as many of both, and at least one")
    if min(values) <= 0:
        raise ValueError(f"values must be above 0, the least is {min(values)}")
    relative = [[feature / value for feature in row] for row, value in zip(rows, values, strict=True)]
    weights = [1.0] * len(rows)
    coefficients: tuple[float, ...] = ()
    for _ in range(ROUNDS):
        coefficients = non_negative(relative, weights, coefficients)
        errors = (abs(_dot(row, coefficients) - 1.0) for row in relative)
        weights = [1.0 / max(error, LEAST_ERROR) for error in errors]
    return coefficients


def non_negative(
    rows: Sequence[Sequence[float]], weights: Sequence[float], start: Sequence[float] = ()
) -> tuple[float, ...]:
    """Coefficients >= 0 that minimise the weighted squares of (prediction - 1); `start`: where to begin."""
    count = len(rows[0])
    scale = [sum(w * row[i] * row[i] for row, w in zip(rows, weights, strict=True)) ** 0.5 for i in range(count)]
    used = [i for i in range(count) if scale[i] > 0]
    gram = [
        [sum(w * row[i] * row[j] for row, w in zip(rows, weights, strict=True)) / scale[i] / scale[j] for j in used]
        for i in used
    ]
    aim = [sum(w * row[i] for row, w in zip(rows, weights, strict=True)) / scale[i] for i in used]
    values = [start[i] * scale[i] if start else 0.0 for i in used]
    for _ in range(SWEEPS):
        moved = 0.0
        for i, line in enumerate(gram):
            new = max(0.0, values[i] + aim[i] - _dot(line, values))
            moved = max(moved, abs(new - values[i]))
            values[i] = new
        if moved < TOLERANCE * max(values):
            break
    found = dict(zip(used, values, strict=True))
    return tuple(found[i] / scale[i] if i in found else 0.0 for i in range(count))


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
