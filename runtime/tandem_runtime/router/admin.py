"""The router's metrics port: /metrics, /healthz, /readyz, /signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tandem_runtime.router.backend import RouterBackend
from tandem_runtime.router.counters import Counters, Histogram
from tandem_runtime.router.settings import RouterSettings

SIGNALS_SCHEMA: Final = 1
DEFAULT_CLASS: Final = "default"
"""Until objectives are configured, every request is of one class."""


class Admin:
    """Reads the router's parts; changes nothing. `not_ready` says why it cannot serve, empty when it can."""

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
        self._registry = CollectorRegistry()
        self._registry.register(RouterCollector(self))

    def application(self) -> web.Application:
        """For the metrics port."""
        app = web.Application()
        app.router.add_get("/healthz", self._tell_health)
        app.router.add_get("/readyz", self._tell_ready)
        app.router.add_get("/metrics", self._tell_metrics)
        app.router.add_get("/signals", self._tell_signals)
        return app

    async def _tell_health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _tell_ready(self, request: web.Request) -> web.Response:
        """Ready also without pods: requests are held while they come."""
        problem = self._not_ready()
        return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

    async def _tell_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), content_type="text/plain")

    async def _tell_signals(self, request: web.Request) -> web.Response:
        return web.json_response(self.signals())

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

    def collect(self) -> Iterable[Metric]:
        """The same facts for Prometheus."""
        counters, backend = self._counters, self._backend
        answers = CounterMetricFamily(
            "tandem_router_requests", "Requests answered, by status and reason", labels=["status", "reason"]
        )
        for (status, reason), count in counters.answers.items():
            answers.add_metric([status, reason], count)
        yield answers
        retries = CounterMetricFamily(
            "tandem_router_retries", "Requests carried over to another pod, by what made them move", labels=["reason"]
        )
        for kind, count in backend.retries.items():
            retries.add_metric([kind], count)
        yield retries
        yield CounterMetricFamily("tandem_router_prompt_tokens", "Prompt tokens", value=counters.prompt_tokens)
        yield CounterMetricFamily("tandem_router_output_tokens", "Output tokens", value=counters.output_tokens)
        yield GaugeMetricFamily("tandem_router_in_flight_requests", "Requests being answered", value=self._in_flight())
        yield GaugeMetricFamily("tandem_router_queue_requests", "Requests no pod has taken", value=len(backend.queue))
        yield GaugeMetricFamily("tandem_router_queue_tokens", "Their prompt tokens", value=backend.queue.tokens)
        pods = GaugeMetricFamily("tandem_router_pods", "Connected pods that serve", labels=["role"])
        for role in ("prefill", "decode", "both"):
            pods.add_metric([role], sum(pod.role == role and pod.serves() for pod in backend.snapshots()))
        yield pods
        yield histogram_metric("tandem_router_ttft_seconds", "Request read to first token", counters.ttft)
        yield histogram_metric("tandem_router_tpot_seconds", "Seconds per output token after the first", counters.tpot)


class RouterCollector(Collector):
    """Prometheus' way to ask."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def collect(self) -> Iterable[Metric]:
        """Called for every scrape."""
        return self._admin.collect()


def histogram_fields(histogram: Histogram) -> dict[str, Any]:
    """For /signals; the edges are fixed by the contract."""
    return {"counts": histogram.counts, "sum_s": histogram.total}


def histogram_metric(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    """Cumulative buckets, as Prometheus wants them."""
    buckets: list[tuple[str, float]] = []
    below = 0
    for edge, count in zip((*histogram.edges, float("inf")), histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if edge == float("inf") else f"{edge:.6g}", below))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)
