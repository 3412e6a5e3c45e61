"""Spans on their way to a collector: OTLP as JSON over HTTP, and nothing at all without one."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tandem_runtime.contracts.trace import TraceContext
from tandem_runtime.telemetry.traces import MOST_WAITING, OFF, Span, Tracer, make_tracer

CONTEXT = TraceContext("ab" * 16, "cd" * 8)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, dict[str, str], Any]]]]:
    """Its URL, and (path, headers, body) of what came."""
    received: list[tuple[str, dict[str, str], Any]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Silent."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


def test_a_span_arrives_at_the_collector_as_opentelemetry_writes_it(
    collector: tuple[str, list[tuple[str, dict[str, str], Any]]],
) -> None:
    url, received = collector
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{url}/",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=blue%20one",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.namespace.name=prod",
    }
    tracer = make_tracer("tandem-decode", "pod-0", variables)
    now = time.monotonic()
    tracer.child(CONTEXT, "decode", now - 1.5, now, {"output_tokens": 7, "end": "stop", "share": 0.5, "remote": True})
    tracer.close()
    [(path, headers, body)] = received
    assert (path, headers["x-team"], headers["content-type"]) == ("/v1/traces", "blue one", "application/json")
    [resource] = body["resourceSpans"]
    named = {entry["key"]: entry["value"]["stringValue"] for entry in resource["resource"]["attributes"]}
    assert named == {
        "service.name": "tandem-decode",
        "service.instance.id": "pod-0",
        "k8s.namespace.name": "prod",
    }
    [span] = resource["scopeSpans"][0]["spans"]
    assert (span["name"], span["traceId"], span["parentSpanId"]) == ("decode", CONTEXT.trace_id, CONTEXT.span_id)
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == pytest.approx(1.5e9, abs=1e6)
    assert abs(int(span["endTimeUnixNano"]) / 1e9 - time.time()) < 60
    assert {each["key"]: each["value"] for each in span["attributes"]} == {
        "output_tokens": {"intValue": "7"},
        "end": {"stringValue": "stop"},
        "share": {"doubleValue": 0.5},
        "remote": {"boolValue": True},
    }


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_a_collector_nothing_is_kept_and_no_thread_runs(variables: dict[str, str]) -> None:
    tracer = make_tracer("tandem-router", "r", variables)
    tracer.child(CONTEXT, "decode", 0.0, 1.0)
    tracer.close()
    assert not tracer.on
    assert not any(thread.name == "traces" for thread in threading.enumerate())


def test_a_trace_that_the_client_does_not_sample_is_not_exported() -> None:
    sent: list[bytes] = []
    tracer = Tracer(sent.append, {}, 0.0)
    tracer.child(TraceContext("ab" * 16, "cd" * 8, flags=0), "decode", 0.0, 1.0)
    tracer.child(None, "decode", 0.0, 1.0)
    tracer.close()
    assert sent == []


def test_a_collector_that_is_away_costs_spans_and_nothing_else() -> None:
    def send(body: bytes) -> None:
        raise ConnectionRefusedError(111, "nobody listens")

    tracer = Tracer(send, {}, 0.0)
    for _ in range(3):
        tracer.child(CONTEXT, "decode", 0.0, 1.0)
    tracer.close()
    assert tracer.lost == 3


def test_spans_that_wait_are_bounded() -> None:
    gate = threading.Event()
    tracer = Tracer(lambda body: gate.wait(5) or None, {}, 0.0)
    for _ in range(2 * MOST_WAITING):
        tracer.add(Span("decode", "ab" * 16, "cd" * 8, "", 0.0, 1.0))
    assert MOST_WAITING // 2 < tracer.lost <= MOST_WAITING
    gate.set()
    tracer.close()
    OFF.child(CONTEXT, "decode", 0.0, 1.0)
