"""A router's cumulative account of one class, as it tells it on /signals."""

from __future__ import annotations

from tandem_operator.scaling.observation import ClassCounters
from tandem_operator.simulation.flight import Flight


class ClassCounts:
    """Mutable twin of ClassCounters."""

    __slots__ = (
        "arrivals",
        "cached_tokens",
        "completed",
        "failed",
        "met",
        "missed",
        "output_tokens",
        "output_tokens_squared",
        "prompt_tokens",
        "prompt_tokens_squared",
        "shed",
    )

    def __init__(self) -> None:
        self.arrivals = 0
        self.prompt_tokens = 0
        self.prompt_tokens_squared = 0.0
        self.cached_tokens = 0
        self.completed = 0
        self.output_tokens = 0
        self.output_tokens_squared = 0.0
        self.met = 0
        self.missed = 0
        self.shed = 0
        self.failed = 0

    def arrive(self, flight: Flight) -> None:
        """At the door."""
        self.arrivals += 1
        self.prompt_tokens += flight.prompt_tokens
        self.prompt_tokens_squared += flight.prompt_tokens * flight.prompt_tokens

    def finish(self, flight: Flight, met: bool) -> None:
        """With its last token."""
        self.completed += 1
        self.output_tokens += flight.output_tokens
        self.output_tokens_squared += flight.output_tokens * flight.output_tokens
        if met:
            self.met += 1
        else:
            self.missed += 1

    def told(self) -> ClassCounters:
        """As a scraper gets it. Shed and failed requests are misses too."""
        return ClassCounters(
            arrivals=self.arrivals,
            prompt_tokens=self.prompt_tokens,
            prompt_tokens_squared=self.prompt_tokens_squared,
            cached_tokens=self.cached_tokens,
            completed=self.completed,
            output_tokens=self.output_tokens,
            output_tokens_squared=self.output_tokens_squared,
            met=self.met,
            missed=self.missed,
            shed=self.shed,
            failed=self.failed,
        )
