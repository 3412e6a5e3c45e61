"""How much time the waiting requests have, as the histogram of the contract; kept up to date instead of recounted."""

from __future__ import annotations

from bisect import bisect_right
from math import floor, inf
from typing import Final, NamedTuple

from tandem_runtime.contracts.signals import SLACK_EDGES_SECONDS
from tandem_runtime.policy.waiting import Waiting

GRAIN_PER_SECOND: Final = 64
"""Deadlines are known to 1/64 s."""
NO_OBJECTIVE: Final = 1 << 62


class SlackHistogram(NamedTuple):
    """One count more than there are edges."""

    requests: list[int]
    tokens: list[int]


class SlackBook:
    """Counts by deadline. Far-late ones are one count, so a backlog of hours costs no more than one of a minute."""

    def __init__(self) -> None:
        self._counts: dict[int, list[int]] = {}
        self._ancient = [0, 0]
        self._ancient_below = -(1 << 62)

    def add(self, entry: Waiting, sign: int = 1) -> None:
        """`sign` -1 takes it out again."""
        grain = NO_OBJECTIVE if entry.objective_at == inf else floor(entry.objective_at * GRAIN_PER_SECOND)
        counts = self._ancient if grain < self._ancient_below else self._counts.setdefault(grain, [0, 0])
        counts[0] += sign
        counts[1] += sign * entry.tokens
        if not counts[0] and counts is not self._ancient:
            del self._counts[grain]

    def histogram(self, now: float) -> SlackHistogram:
        """By SLACK_EDGES_SECONDS."""
        below = floor((now + SLACK_EDGES_SECONDS[0]) * GRAIN_PER_SECOND)
        if below > self._ancient_below:
            self._ancient_below = below
            for grain in [grain for grain in self._counts if grain < below]:
                requests, tokens = self._counts.pop(grain)
                self._ancient[0] += requests
                self._ancient[1] += tokens
        result = SlackHistogram([0] * (len(SLACK_EDGES_SECONDS) + 1), [0] * (len(SLACK_EDGES_SECONDS) + 1))
        result.requests[0], result.tokens[0] = self._ancient
        for grain, (requests, tokens) in self._counts.items():
            index = bisect_right(SLACK_EDGES_SECONDS, grain / GRAIN_PER_SECOND - now)
            result.requests[index] += requests
            result.tokens[index] += tokens
        return result
