"""The router's metrics port: /metrics, /healthz, /readyz, /signals."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from tandem_runtime.openai.http_port import PortCounts
from tandem_runtime.router.access import Access
from tandem_runtime.router.backend import RouterBackend
from tandem_runtime.router.counters import Counters
from tandem_runtime.router.report import access_metrics, make_metrics, make_signals, port_metrics
from tandem_runtime.router.settings import RouterSettings
from tandem_runtime.telemetry.exposition import CONTENT_TYPE, render
from tandem_runtime.telemetry.http import Answer, Route, text


class Admin:
    """Reads the router's parts, changes nothing. `not_ready` says why it cannot serve, empty when it can."""

    def __init__(
        self,
        settings: RouterSettings,
        backend: RouterBackend,
        counters: Counters,
        in_flight: Callable[[], int],
        not_ready: Callable[[], str],
        connections: PortCounts,
        access: Access | None = None,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._counters = counters
        self._in_flight = in_flight
        self._not_ready = not_ready
        self._connections = connections
        self._access = access

    def routes(self) -> dict[str, Route]:
        """For the metrics port. Ready also without pods: requests are held while they come."""
        return {
            "/healthz": lambda: text(200, "ok"),
            "/readyz": self._tell_ready,
            "/metrics": self._tell_metrics,
            "/signals": self._tell_signals,
        }

    def _tell_ready(self) -> Answer:
        problem = self._not_ready()
        warning = self._access.keys.warning() if self._access is not None else ""
        return text(503 if problem else 200, problem or (f"ok; {warning}" if warning else "ok"))

    def _tell_signals(self) -> Answer:
        now = time.monotonic()
        signals = make_signals(self._settings, self._backend, self._counters, self._in_flight(), now)
        return Answer(200, msgspec.json.encode(signals), "application/json")

    def _tell_metrics(self) -> Answer:
        metrics = [*make_metrics(self._backend, self._counters, self._in_flight()), *port_metrics(self._connections)]
        metrics += access_metrics(self._access) if self._access is not None else []
        return Answer(200, render(metrics), CONTENT_TYPE)
