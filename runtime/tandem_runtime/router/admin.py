"""The router's metrics port: /metrics, /healthz, /readyz, /signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from tandem_runtime.router.backend import RouterBackend
from tandem_runtime.router.counters import Counters, Histogram
from tandem_runtime.router.settings import RouterSettings
from tandem_runtime.telemetry.exposition import CONTENT_TYPE, Metric, counter, gauge, histogram, render
from tandem_runtime.telemetry.http import Answer, Route, as_json, text

SIGNALS_SCHEMA: Final = 1
DEFAULT_CLASS: Final = "default"
"""Until objectives are configured, every request is of one class."""


class Admin:
    """Reads the router's parts, changes nothing. `not_ready` says why it cannot serve, empty when it can."""

    def __init__(
        self,
        settings: RouterSettings,
        backend: RouterBackend,
        counters: Counters,
        in_flight: Callable[[], int],
        not_ready: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._counters = counters
        self._in_flight = in_flight
        self._not_ready = not_ready

    def routes(self) -> dict[str, Route]:
        """For the metrics port. Ready also without pods: requests are held while they come."""
        return {
            "/healthz": lambda: text(200, "ok"),
            "/readyz": self._tell_ready,
            "/metrics": lambda: Answer(200, render(self.metrics()), CONTENT_TYPE),
            "/signals": lambda: as_json(self.signals()),
        }

    def _tell_ready(self) -> Answer:
        problem = self._not_ready()
        return text(503 if problem else 200, problem or "ok")

    def signals(self) -> dict[str, Any]:
        """Versioned, cumulative since (router_id, incarnation)."""
        counters, queue = self._counters, self._backend.queue
        names = ("arrivals", "prompt_tokens", "output_tokens", "completed", "shed", "failed", "cancelled")
        return {
            "schema": SIGNALS_SCHEMA,
            "router_id": self._settings.router_id,
            "incarnation": self._settings.incarnation,
            "monotonic_s": time.monotonic(),
            "classes": {DEFAULT_CLASS: {name: getattr(counters, name) for name in names}},
            "in_flight": self._in_flight(),
            "queue": {"requests": len(queue), "tokens": queue.tokens},
            "ttft": histogram_fields(counters.ttft),
            "tpot": histogram_fields(counters.tpot),
            "pods": [
                {
                    "pod": pod.pod,
                    "role": pod.role,
                    "revision": pod.revision,
                    "incarnation": pod.incarnation,
                    "ready": pod.ready,
                    "draining": pod.draining,
                    "running": pod.running,
                    "waiting_tokens": pod.waiting_tokens,
                    "kv_used": pod.kv_used_tokens,
                    "kv_total": pod.kv_total_tokens,
                }
                for pod in self._backend.snapshots()
            ],
            "not_connected": [
                {"address": f"{address.host}:{address.port}", "problem": link.problem}
                for address, link in self._backend.links.items()
                if link.hello is None
            ],
        }

    def metrics(self) -> Iterable[Metric]:
        """The same facts for Prometheus."""
        counters, backend = self._counters, self._backend
        answers = [
            ({"status": status, "reason": reason}, float(count)) for (status, reason), count in counters.answers.items()
        ]
        retries = [({"reason": kind}, float(count)) for kind, count in backend.retries.items()]
        serving = [pod.role for pod in backend.snapshots() if pod.serves()]
        pods = [({"role": role}, float(serving.count(role))) for role in ("prefill", "decode", "both")]
        yield Metric("tandem_router_requests_total", "Requests answered, by status and reason", "counter", [*answers])
        yield Metric("tandem_router_retries_total", "Requests carried over to another pod", "counter", [*retries])
        yield Metric("tandem_router_pods", "Connected pods that serve", "gauge", [*pods])
        yield counter("tandem_router_prompt_tokens_total", "Prompt tokens", counters.prompt_tokens)
        yield counter("tandem_router_output_tokens_total", "Output tokens", counters.output_tokens)
        yield gauge("tandem_router_in_flight_requests", "Requests being answered", self._in_flight())
        yield gauge("tandem_router_queue_requests", "Requests that no pod has taken yet", len(backend.queue))
        yield gauge("tandem_router_queue_tokens", "Their prompt tokens", backend.queue.tokens)
        yield histogram_metric("tandem_router_ttft_seconds", "From request read to first token", counters.ttft)
        yield histogram_metric("tandem_router_tpot_seconds", "Per output token after the first", counters.tpot)


def histogram_fields(histogram: Histogram) -> dict[str, Any]:
    """For /signals; the edges are fixed by the contract."""
    return {"counts": histogram.counts, "sum_s": histogram.total}


def histogram_metric(name: str, words: str, values: Histogram) -> Metric:
    """For /metrics."""
    return histogram(name, words, values.edges, values.counts, values.total)
