"""When requests come: a rate over time, and how uneven the gaps are around it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from math import pi, sin
from random import Random
from typing import Protocol


class Rate(Protocol):
    """Requests per second over time."""

    def at(self, t_s: float) -> float:
        """Not negative."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A rate from each time on; 0 before the first."""

    parts: tuple[tuple[float, float], ...]

    def at(self, t_s: float) -> float:
        """Not negative."""
        index = bisect_right(self.parts, (t_s, float("inf"))) - 1
        return self.parts[index][1] if index >= 0 else 0.0


@dataclass(frozen=True, slots=True)
class Lines:
    """Rates at times, straight lines between, flat outside."""

    parts: tuple[tuple[float, float], ...]

    def at(self, t_s: float) -> float:
        """Not negative."""
        index = bisect_right(self.parts, (t_s, float("inf")))
        if index == 0 or index == len(self.parts):
            return self.parts[min(index, len(self.parts) - 1)][1]
        (t0, low), (t1, high) = self.parts[index - 1], self.parts[index]
        return low + (high - low) * (t_s - t0) / (t1 - t0)


@dataclass(frozen=True, slots=True)
class Sine:
    """Between two rates."""

    low: float
    high: float
    period_s: float

    def at(self, t_s: float) -> float:
        """Not negative."""
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * sin(2 * pi * t_s / self.period_s)


@dataclass(frozen=True, slots=True)
class Bursts:
    """A base rate, and `factor` times it for `length_s` in every `every_s`; nothing at all in the last `idle_s`."""

    base: float
    factor: float
    every_s: float
    length_s: float
    idle_s: float = 0.0

    def at(self, t_s: float) -> float:
        """Not negative."""
        phase = t_s % self.every_s
        middle = (self.every_s - self.idle_s) / 2
        if phase >= self.every_s - self.idle_s:
            return 0.0
        return self.base * (self.factor if middle <= phase < middle + self.length_s else 1.0)


def arrivals(rate: Rate, end_s: float, random: Random, cv: float = 1.0) -> Iterator[float]:
    """Times up to `end_s`. `cv` of the gaps in operational time: 1 is Poisson, more is burstier (Gamma gaps)."""
    shape = 1 / (cv * cv)
    due = random.gammavariate(shape, 1 / shape)
    passed, t_s = 0.0, 0.0
    while t_s < end_s:
        step = min(1.0, end_s - t_s)
        here = rate.at(t_s + step / 2)
        while here > 0 and passed + here * step >= due:
            gap = (due - passed) / here
            passed, t_s, step = due, t_s + gap, step - gap
            yield t_s
            due += random.gammavariate(shape, 1 / shape)
        passed += here * step
        t_s += step
