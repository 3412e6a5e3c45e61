"""Goodput: what a request was promised, what it got, and whether that counts. The one implementation of the rule for
router, simulator and load generator; all times are seconds since the request was fully read.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import StrEnum
from math import inf
from typing import Final

import msgspec

TTFT_EDGES_SECONDS: Final = tuple(0.001 * 1.5**k for k in range(33))
"""1 ms to 10 minutes: the edges of every router are the same, so that histograms can be added."""
TPOT_EDGES_SECONDS: Final = tuple(0.0001 * 1.5**k for k in range(29))
"""0.1 ms to 10 s."""


class SloClass(msgspec.Struct, frozen=True, kw_only=True):
    """Objectives of one class. The default bounds nothing: what completes is met.

    Bound of the first token after a prompt of n tokens: ttft_base_s + n ttft_per_thousand_tokens_s / 1000.
    """

    name: str = "default"
    ttft_base_s: float = inf
    ttft_per_thousand_tokens_s: float = 0.0
    tpot_s: float = inf
    attainment: float = 0.99
    """Share of requests that must be met, 0 to 1."""
    priority: int = 0

    def ttft_bound_s(self, prompt_tokens: int) -> float:
        """For a prompt of that length, cached or not."""
        return self.ttft_base_s + self.ttft_per_thousand_tokens_s * prompt_tokens / 1000


class End(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    SHED = "shed"
    """Turned away for lack of capacity: 429 or 503."""
    FAILED = "failed"
    """An error of ours, or its request timeout passed."""
    CANCELLED = "cancelled"
    """The client left."""
    REFUSED = "refused"
    """Its own fault: malformed, too large, a key over its limit."""


class Verdict(StrEnum):
    """What goodput makes of a request. `out`: it is not counted."""

    MET = "met"
    MISSED = "missed"
    OUT = "out"


class Times(msgspec.Struct, frozen=True):
    """What the client saw. `first_s`, `last_s`: when the first and last token were written, None without any."""

    output_tokens: int = 0
    first_s: float | None = None
    last_s: float | None = None

    @property
    def tpot_s(self) -> float | None:
        """Seconds per output token after the first; None for fewer than two tokens."""
        if self.first_s is None or self.last_s is None or self.output_tokens < 2:
            return None
        return (self.last_s - self.first_s) / (self.output_tokens - 1)


def meets(ttft_s: float, ttft_bound_s: float, tpot_s: float, tpot_bound_s: float) -> bool:
    """Of a completed request; `tpot_s` is 0 for an answer of one token."""
    return ttft_s <= ttft_bound_s and tpot_s <= tpot_bound_s


def judge(slo: SloClass, prompt_tokens: int, end: End, times: Times, ended_s: float) -> Verdict:
    """The rule. `ended_s`: when it ended; a client that leaves before the objective deadline is left out."""
    if end is End.REFUSED:
        return Verdict.OUT
    bound_s = slo.ttft_bound_s(prompt_tokens)
    if end is End.CANCELLED:
        return Verdict.OUT if ended_s < bound_s else Verdict.MISSED
    if end is not End.COMPLETED or times.first_s is None:
        return Verdict.MISSED
    return Verdict.MET if meets(times.first_s, bound_s, times.tpot_s or 0.0, slo.tpot_s) else Verdict.MISSED


def attainment(met: int, counted: int) -> float:
    """Met of counted; 1 when nothing counted."""
    return met / counted if counted else 1.0


class Histogram:
    """`counts[i]` values are at most `edges[i]` and above the edge before; the last count is of all above."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def quantile(self, share: float) -> float | None:
        """Upper edge of the bucket that holds it; None when nothing was counted, infinite above the last edge."""
        rank = share * sum(self.counts)
        if not rank:
            return None
        below = 0
        for edge, count in zip((*self.edges, inf), self.counts, strict=True):
            below += count
            if below >= rank:
                return edge
        return inf


class ClassTotals:
    """Of one class, cumulative: every arrival ends in exactly one of met, missed, shed, failed, cancelled, refused.

    `missed` completed too late; shed and failed ones are misses too. `completed` is met and missed together, but for
    clients that left after their objective had passed: these count as missed without having completed.
    """

    def __init__(self, slo: SloClass) -> None:
        self.slo = slo
        self.arrivals = self.prompt_tokens = self.cached_tokens = self.output_tokens = 0
        self.prompt_tokens_squared = self.output_tokens_squared = 0.0
        self.completed = self.met = self.missed = 0
        self.shed = self.failed = self.cancelled = self.refused = 0
        self.ttft = Histogram(TTFT_EDGES_SECONDS)
        self.tpot = Histogram(TPOT_EDGES_SECONDS)

    def arrive(self, prompt_tokens: int, cached_tokens: int = 0) -> None:
        """At the door, whatever becomes of it."""
        self.arrivals += 1
        self.prompt_tokens += prompt_tokens
        self.prompt_tokens_squared += prompt_tokens * prompt_tokens
        self.cached_tokens += cached_tokens

    def finish(self, prompt_tokens: int, end: End, times: Times, ended_s: float) -> Verdict:
        """Once for each arrival."""
        verdict = judge(self.slo, prompt_tokens, end, times, ended_s)
        if end is End.COMPLETED:
            self.completed += 1
            self.output_tokens += times.output_tokens
            self.output_tokens_squared += times.output_tokens * times.output_tokens
        if verdict is Verdict.MET:
            self.met += 1
        elif end is End.SHED:
            self.shed += 1
        elif end is End.FAILED:
            self.failed += 1
        elif verdict is Verdict.MISSED:
            self.missed += 1
        elif end is End.CANCELLED:
            self.cancelled += 1
        else:
            self.refused += 1
        if times.first_s is not None:
            self.ttft.add(times.first_s)
        if (tpot_s := times.tpot_s) is not None:
            self.tpot.add(tpot_s)
        return verdict

    @property
    def counted(self) -> int:
        """Requests that goodput is about."""
        return self.met + self.missed + self.shed + self.failed

    @property
    def attainment(self) -> float:
        """Met of all that count."""
        return attainment(self.met, self.counted)

    @property
    def completion(self) -> float:
        """Completed of all that ended and did not leave by themselves; told beside attainment."""
        return attainment(self.completed, self.completed + self.shed + self.failed)
