"""Lengths of prompts and answers: drawn from quantiles, so that a page of numbers stands for a trace."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import erf, sqrt
from random import Random
from typing import Protocol

SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
Quantiles = tuple[int, ...]


class Lengths(Protocol):
    """Prompt and output tokens of one request at a time of the run."""

    def draw(self, random: Random, at_s: float) -> tuple[int, int]:
        """Both at least 1."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Every request the same."""

    prompt_tokens: int
    output_tokens: int

    def draw(self, random: Random, at_s: float) -> tuple[int, int]:
        """Both at least 1."""
        return self.prompt_tokens, self.output_tokens


@dataclass(frozen=True, slots=True)
class Drawn:
    """Quantiles at SHARES, straight lines between; `correlation` is of ranks."""

    prompt: Quantiles
    output: Quantiles
    correlation: float = 0.0

    def draw(self, random: Random, at_s: float) -> tuple[int, int]:
        """Both at least 1."""
        if not self.correlation:
            return _value(self.prompt, random.random()), _value(self.output, random.random())
        first = random.gauss(0.0, 1.0)
        rest = sqrt(1 - self.correlation * self.correlation)
        second = self.correlation * first + rest * random.gauss(0.0, 1.0)
        return _value(self.prompt, _normal_share(first)), _value(self.output, _normal_share(second))


@dataclass(frozen=True, slots=True)
class Shifting:
    """One law of lengths after another; each holds from its time on, the first from 0."""

    parts: tuple[tuple[float, Lengths], ...]

    def draw(self, random: Random, at_s: float) -> tuple[int, int]:
        """Both at least 1."""
        index = bisect_right([start for start, _ in self.parts], at_s) - 1
        return self.parts[max(0, index)][1].draw(random, at_s)


def _value(quantiles: Quantiles, share: float) -> int:
    index = min(len(SHARES) - 2, bisect_right(SHARES, share) - 1)
    low, high = SHARES[index], SHARES[index + 1]
    part = (share - low) / (high - low)
    return max(1, round(quantiles[index] + part * (quantiles[index + 1] - quantiles[index])))


def _normal_share(value: float) -> float:
    return 0.5 * (1 + erf(value / sqrt(2)))


CHAT = Drawn(
    prompt=(2, 29, 181, 207, 387, 403, 703, 1020, 1071, 1130, 1315, 2735, 4083, 4142, 6212, 14050),
    output=(7, 16, 41, 54, 77, 91, 103, 129, 177, 384, 400, 424, 451, 601, 954, 1000),
)
"""Statistics of the Azure 2023 conversation trace: mean 1155 in, 211 out, hardly correlated."""
LONG = Drawn(
    prompt=(13, 16, 22, 30, 88, 912, 4365, 11587, 16289, 19411, 28430, 38615, 49009, 66458, 126000, 126000),
    output=(1, 2, 2, 4, 8, 16, 32, 69, 126, 211, 289, 389, 519, 769, 825, 893),
    correlation=-0.52,
)
"""Statistics of the Mooncake FAST'25 synthetic trace: mean 15 k in, 149 out; cut at a 128 k context."""
SHORT = Drawn(
    prompt=(8, 31, 74, 100, 145, 182, 223, 264, 302, 348, 418, 525, 650, 790, 1104, 2415),
    output=(1, 1, 6, 9, 14, 20, 25, 34, 46, 66, 101, 179, 267, 562, 779, 925),
)
"""Statistics of the AIBrix up-and-down trace: mean 294 in, 73 out."""
