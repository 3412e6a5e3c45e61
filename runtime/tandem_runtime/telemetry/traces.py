"""Spans to an OpenTelemetry collector: OTLP over HTTP as JSON, from a thread of its own, set by the usual variables.

Written here and not taken from the SDK, which would double the memory of an emulated pod and its start. Without
OTEL_EXPORTER_OTLP_ENDPOINT nothing is collected. Spans carry numbers and names, never text of prompts or answers.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

from tandem_runtime.contracts.trace import SAMPLED, TraceContext

log = logging.getLogger(__name__)

Value = str | int | float | bool
Send = Callable[[bytes], None]

INTERNAL: Final = 1
SERVER: Final = 2
MOST_WAITING: Final = 4096
"""Spans for a collector that does not answer; then the oldest are lost, and counted."""
BATCH: Final = 512
BATCH_SECONDS: Final = 1.0
SEND_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds are of the monotonic clock. `parent_id` empty: a root."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_seconds: float
    end_seconds: float
    kind: int = INTERNAL
    error: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)


class Tracer:
    """`add` is cheap and never blocks. Without `send` it forgets everything."""

    def __init__(self, send: Send | None, resource: Mapping[str, str], wall_minus_monotonic: float) -> None:
        self.on = send is not None
        self.lost = 0
        """Spans that found no room or no collector."""
        self._send = send
        self._resource = resource
        self._offset = wall_minus_monotonic
        self._waiting: deque[Span] = deque(maxlen=MOST_WAITING)
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def child(
        self,
        context: TraceContext | None,
        name: str,
        start: float,
        end: float,
        attributes: Mapping[str, Value] = MappingProxyType({}),
    ) -> None:
        """A span below that of whoever sent `context`; nothing without a sampled one."""
        if self.on and context is not None and context.flags & SAMPLED:
            own = context.child(os.urandom).span_id
            self.add(Span(name, context.trace_id, own, context.span_id, start, end, attributes=attributes))

    def add(self, span: Span) -> None:
        """Sent within BATCH_SECONDS or so."""
        if not self.on:
            return
        if len(self._waiting) == MOST_WAITING:
            self.lost += 1
        self._waiting.append(span)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
            self._thread.start()
        if len(self._waiting) >= BATCH:
            self._wake.set()

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Sends what waits, as far as the time allows."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not (self._closing and not self._waiting):
            self._wake.wait(BATCH_SECONDS)
            self._wake.clear()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if batch:
                self._deliver(batch)

    def _deliver(self, batch: list[Span]) -> None:
        try:
            assert self._send is not None
            self._send(self.encode(batch))
        except Exception as error:  # a collector that is away costs spans, nothing else
            if not self.lost:
                log.warning("traces cannot be exported: %s: %s", type(error).__name__, error)
            self.lost += len(batch)

    def encode(self, spans: list[Span]) -> bytes:
        """ExportTraceServiceRequest as JSON."""
        scope = {"scope": {"name": "tandem"}, "spans": [self._span(span) for span in spans]}
        resource = {"attributes": [_attribute(name, value) for name, value in self._resource.items()]}
        return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}).encode()

    def _span(self, span: Span) -> dict[str, Any]:
        return {
            "traceId": span.trace_id,
            "spanId": span.span_id,
            "parentSpanId": span.parent_id,
            "name": span.name,
            "kind": span.kind,
            "startTimeUnixNano": str(int((span.start_seconds + self._offset) * 1e9)),
            "endTimeUnixNano": str(int((span.end_seconds + self._offset) * 1e9)),
            "attributes": [_attribute(name, value) for name, value in span.attributes.items()],
            "status": {"code": 2, "message": span.error} if span.error else {},
        }


def _attribute(name: str, value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"key": name, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    return {"key": name, "value": {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}}


def make_tracer(service: str, instance: str, environment: Mapping[str, str] = os.environ) -> Tracer:
    """As OpenTelemetry's variables say: endpoint (of all signals or of traces), headers, service name, off."""
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (f"{base.rstrip('/')}/v1/traces" if base else "")
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    off = off or environment.get("OTEL_TRACES_EXPORTER", "") == "none"
    headers = _pairs(environment.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
    resource = _pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", "")) | {
        "service.name": environment.get("OTEL_SERVICE_NAME") or service,
        "service.instance.id": instance,
    }
    send = _sender(url, headers) if url and not off else None
    return Tracer(send, resource, time.time() - time.monotonic())


def _pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _sender(url: str, headers: Mapping[str, str]) -> Send:
    def send(body: bytes) -> None:
        from urllib.request import Request, urlopen  # only where traces are wanted: it is a third of a small start

        request = Request(url, body, {"Content-Type": "application/json", **headers})
        with urlopen(request, timeout=SEND_SECONDS) as response:
            response.read()

    return send


OFF: Final = Tracer(None, {}, 0.0)
