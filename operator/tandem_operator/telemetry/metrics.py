"""Metrics of the loop, named as controller-runtime names its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds: a look that writes nothing takes some 20 ms, one that waits for a slow API server seconds."""


class Metrics:
    """Counts runs; reads queue and leadership when it is asked."""

    def __init__(self, depth: Callable[[], float], oldest: Callable[[], float], leads: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._runs = Counter(
            "tandem_operator_reconcile_total", "Looks at deployments by result.", ["result"], registry=self.registry
        )
        self._seconds = Histogram(
            "tandem_operator_reconcile_seconds", "Duration of a look.", buckets=BUCKETS, registry=self.registry
        )
        self._reviews = Counter(
            "tandem_operator_admission_total",
            "Reviews at admission by result: allowed, warned, refused, malformed, error.",
            ["result"],
            registry=self.registry,
        )
        self._review_seconds = Histogram(
            "tandem_operator_admission_seconds",
            "Duration of a review.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        for name, text, read in (
            ("tandem_operator_queue_depth", "Deployments that wait to be looked at.", depth),
            ("tandem_operator_queue_oldest_seconds", "Age of what waits or runs the longest.", oldest),
            ("tandem_operator_leader", "1 while this instance holds the Lease.", leads),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def observe(self, result: str, seconds: float) -> None:
        self._runs.labels(result).inc()
        self._seconds.observe(seconds)

    def review(self, result: str, seconds: float) -> None:
        """One at admission."""
        self._reviews.labels(result).inc()
        self._review_seconds.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
