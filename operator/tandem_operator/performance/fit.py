"""A line through three features whose coefficients are known roughly beforehand and ever better from samples.

Recursive least squares with forgetting, on relative errors; samples that do not belong are refused, not averaged in.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Final

import msgspec

FORGETTING: Final = 0.995
"""Weight of a sample after one more: the last 200 count."""
NIS_GATE: Final = 3.841
"""95 % quantile of chi-squared with one degree: a sample further off than its variance allows is refused."""
REFUSED_IN_A_ROW: Final = 8
"""So many refusals to one side are no outliers but a changed machine: the estimate is opened again."""
COMMON_VARIANCE: Final = 0.20
"""Of all coefficients together, relative: a wrong efficiency makes everything slower or faster alike."""
OWN_VARIANCE: Final = 0.05
"""Of each coefficient for itself. Both together: a standard deviation of 50 %."""
START_NOISE: Final = 0.05**2
LEAST_NOISE: Final = 0.01**2
"""Variance of one sample, relative: no step is timed better than 1 %."""
NOISE_STEP: Final = 0.02
QUANTILE: Final = 0.9
QUANTILE_STEP: Final = 0.3
IMPOSSIBLE_STEP: Final = 0.05
TOO_FAST: Final = 0.95
"""Of the seconds that physics asks for: what clocks may be off."""
SUSPECT_SHARE: Final = 0.2

Vector = tuple[float, float, float]
Row = tuple[float, float, float]
"""Features 2 and 3 (the first is 1) and seconds."""


class Line(msgspec.Struct, frozen=True):
    """What never changes: scale of each coefficient, and bounds in units of the scale."""

    scale: Vector
    start: Vector
    """1 where the prior says something, 0 where it says nothing."""
    least: Vector
    most: Vector


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Where the estimate stands; in units of the line's scale."""

    gain: Vector
    covariance: tuple[float, float, float, float, float, float]
    """11, 12, 13, 22, 23, 33."""
    noise: float = START_NOISE
    p90: float = 1.25
    """Measured over predicted seconds that nine of ten samples stay below."""
    spread: float = 0.1
    """Mean distance of that ratio from 1."""
    samples: int = 0
    refused: int = 0
    refused_in_a_row: int = 0
    """Negative: faster than predicted."""
    impossible: float = 0.0
    """Share of recent samples that were faster than physics."""

    @property
    def is_suspect(self) -> bool:
        """Whether clocks, counters or the hardware class must be wrong."""
        return self.impossible > SUSPECT_SHARE


def begin(line: Line) -> Fit:
    """The prior alone."""
    return Fit(gain=line.start, covariance=_prior_covariance())


def _prior_covariance() -> tuple[float, float, float, float, float, float]:
    own = COMMON_VARIANCE + OWN_VARIANCE
    return (own, COMMON_VARIANCE, COMMON_VARIANCE, own, COMMON_VARIANCE, own)


def predict(line: Line, fit: Fit, second: float, third: float) -> float:
    """Seconds at these features."""
    (g1, g2, g3), (s1, s2, s3) = fit.gain, line.scale
    return g1 * s1 + g2 * s2 * second + g3 * s3 * third


def deviation(line: Line, fit: Fit, second: float, third: float) -> float:
    """Standard deviation of that prediction's mean, seconds: how little is known, not how much single steps differ."""
    p11, p12, p13, p22, p23, p33 = fit.covariance
    a, b, c = line.scale[0], line.scale[1] * second, line.scale[2] * third
    return sqrt(max(0.0, a * a * p11 + b * b * p22 + c * c * p33 + 2 * (a * b * p12 + a * c * p13 + b * c * p23)))


def learn(line: Line, fit: Fit, rows: Iterable[Row]) -> Fit:
    """The fit after these rows. Rows that are not finite and positive change nothing.

    Written out in scalars: some hundred rows are learnt on every decision, which may take 5 ms in all.
    """
    (s1, s2, s3), (l1, l2, l3), (m1, m2, m3) = line.scale, line.least, line.most
    g1, g2, g3 = fit.gain
    p11, p12, p13, p22, p23, p33 = fit.covariance
    noise, p90, spread, samples = fit.noise, fit.p90, fit.spread, fit.samples
    refused, run, impossible = fit.refused, fit.refused_in_a_row, fit.impossible
    widest = COMMON_VARIANCE + OWN_VARIANCE
    for second, third, seconds in rows:
        a, b, c = s1, s2 * second, s3 * third
        predicted = g1 * a + g2 * b + g3 * c
        if not (0.0 < seconds < 3600.0 and 0.0 < predicted < 3600.0):
            continue
        samples += 1
        if seconds < TOO_FAST * (l1 * a + l2 * b + l3 * c):
            impossible += IMPOSSIBLE_STEP * (1.0 - impossible)
            continue
        impossible -= IMPOSSIBLE_STEP * impossible
        if impossible > SUSPECT_SHARE:
            continue
        ratio = seconds / predicted
        spread += NOISE_STEP * (min(abs(ratio - 1.0), 1.0) - spread)
        p90 = max(1.0, p90 + QUANTILE_STEP * (spread + 0.005) * (QUANTILE if ratio > p90 else QUANTILE - 1.0))
        a, b, c = a / predicted, b / predicted, c / predicted
        error = ratio - 1.0
        h1 = p11 * a + p12 * b + p13 * c
        h2 = p12 * a + p22 * b + p23 * c
        h3 = p13 * a + p23 * b + p33 * c
        known = a * h1 + b * h2 + c * h3
        total = known + noise
        if error * error > NIS_GATE * total:
            refused += 1
            noise += NOISE_STEP * (NIS_GATE * total - known - noise)
            run = (run + 1 if run > 0 else 1) if error > 0 else (run - 1 if run < 0 else -1)
            if abs(run) < REFUSED_IN_A_ROW:
                continue
            p11, p12, p13, p22, p23, p33 = (p * max(1.0, 4.0 * error * error) for p in _prior_covariance())
            noise = START_NOISE
            h1 = p11 * a + p12 * b + p13 * c
            h2 = p12 * a + p22 * b + p23 * c
            h3 = p13 * a + p23 * b + p33 * c
            known = a * h1 + b * h2 + c * h3
            total = known + noise
        else:
            noise += NOISE_STEP * (max(error * error - known, LEAST_NOISE) - noise)
        run = 0
        step = error / total
        g1, g2, g3 = g1 + h1 * step, g2 + h2 * step, g3 + h3 * step
        p11, p12, p13 = (
            (p11 - h1 * h1 / total) / FORGETTING,
            (p12 - h1 * h2 / total) / FORGETTING,
            (p13 - h1 * h3 / total) / FORGETTING,
        )
        p22, p23, p33 = (
            (p22 - h2 * h2 / total) / FORGETTING,
            (p23 - h2 * h3 / total) / FORGETTING,
            (p33 - h3 * h3 / total) / FORGETTING,
        )
        if p11 > widest or p22 > widest or p33 > widest:  # what samples say nothing about is forgotten no further
            d1, d2, d3 = (sqrt(widest / p) if p > widest else 1.0 for p in (p11, p22, p33))
            p11, p12, p13 = p11 * d1 * d1, p12 * d1 * d2, p13 * d1 * d3
            p22, p23, p33 = p22 * d2 * d2, p23 * d2 * d3, p33 * d3 * d3
        if g1 < l1 or g2 < l2 or g3 < l3 or g1 > m1 or g2 > m2 or g3 > m3:
            g1, g2, g3 = _bounded(line, (g1, g2, g3), (p11, p12, p13, p22, p23, p33))
    return Fit(
        gain=(g1, g2, g3),
        covariance=(p11, p12, p13, p22, p23, p33),
        noise=noise,
        p90=p90,
        spread=spread,
        samples=samples,
        refused=refused,
        refused_in_a_row=run,
        impossible=impossible,
    )


def _bounded(line: Line, gain: Vector, covariance: tuple[float, float, float, float, float, float]) -> Vector:
    """Coefficients back within bounds: what one gives up the others take on, as the covariance says."""
    p11, p12, p13, p22, p23, p33 = covariance
    matrix = ((p11, p12, p13), (p12, p22, p23), (p13, p23, p33))
    values = list(gain)
    for i, row in enumerate(matrix):
        bound = min(max(values[i], line.least[i]), line.most[i])
        if bound != values[i] and row[i] > 0:
            share = (bound - values[i]) / row[i]
            values = [value + covaries * share for value, covaries in zip(values, row, strict=True)]
    first, second, third = (
        min(max(value, least), most) for value, least, most in zip(values, line.least, line.most, strict=True)
    )
    return (first, second, third)
