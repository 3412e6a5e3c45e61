"""What trials of one case found: verdicts, leaks, and how long detection, recomputation and the client's pause took."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

COUNTS: Final = ("hung", "wrong", "lost", "leaked")
TIMES: Final = ("detection", "recompute", "pause")


@dataclass(slots=True)
class Tally:
    """Seconds. `detection`: from the fault to the first process that says so; `pause`: the longest gap that a client of
    the fault saw; `recompute`: its part after the detection."""

    trials: int = 0
    streams: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TIMES})
    facts: Counter[str] = field(default_factory=Counter)
    """What else is worth counting: faults injected, streams moved ..."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What explains a slow one; told while it runs."""

    def add(self, other: Tally) -> None:
        """Sums up."""
        self.trials += other.trials
        self.streams += other.streams
        self.counts.update(other.counts)
        self.facts.update(other.facts)
        for name in TIMES:
            self.times[name] += other.times[name]
        self.problems += other.problems

    def times_as_dict(self) -> dict[str, float]:
        """Median, 99th percentile and the largest of each time that was seen."""
        return {
            f"{name}_{word}_seconds": percentile(values, share)
            for name, values in self.times.items()
            if values
            for word, share in (("p50", 50), ("p99", 99), ("max", 100))
        }

    def as_dict(self) -> dict[str, float]:
        """For the JSON line."""
        counts = {name: self.counts[name] for name in COUNTS}
        return {"trials": self.trials, "streams": self.streams, **counts, **self.times_as_dict(), **self.facts}

    def span(self, name: str) -> str:
        """Median and largest for people; empty when none was seen."""
        values = self.times[name]
        return f"{percentile(values, 50):.2f}, {percentile(values, 100):.2f} s" if values else ""


def percentile(values: list[float], share: int) -> float:
    """Nearest rank; 100 is the largest."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]
