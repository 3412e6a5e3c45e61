"""Counts of values between edges, and of names: plain numbers in the hot path, metrics when someone looks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from tandem_runtime.telemetry.exposition import Metric, histograms


class Tally:
    """A histogram that is being filled; `edges` ascend, and each belongs to what lies below it."""

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """`value` came `times` times."""
        self.counts[bisect_left(self.edges, value)] += times
        self.total += value * times

    def metric(self, name: str, words: str, labels: Mapping[str, str]) -> Metric:
        """As it stands now."""
        return histograms(name, words, self.edges, [(labels, self.counts, self.total)])
