"""Health, metrics and logs of the operator."""

from __future__ import annotations

import json
import logging
import sys

from aiohttp.test_utils import TestClient, TestServer
from tandem_operator.telemetry.logs import JsonFormatter
from tandem_operator.telemetry.metrics import Metrics
from tandem_operator.telemetry.server import make_app


async def test_health_readiness_and_metrics_are_served() -> None:
    reason, reached = "", False
    metrics = Metrics(lambda: 3, lambda: 1.5, lambda: 1)
    metrics.observe("success", 0.02)
    app = make_app(lambda: reason, lambda: reached, metrics.text)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 503
        reason, reached = "a deployment has waited for 999 s", True
        answer = await client.get("/healthz")
        assert (answer.status, await answer.text()) == (503, reason)
        assert (await client.get("/readyz")).status == 200
        text = await (await client.get("/metrics")).text()
    assert 'tandem_operator_reconcile_total{result="success"} 1.0' in text
    assert "tandem_operator_queue_depth 3.0" in text
    assert "tandem_operator_leader 1.0" in text


def test_a_log_line_is_one_json_object_with_key_and_error() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("tandem", logging.ERROR, "f", 1, "failed %d\ntimes", (2,), sys.exc_info())
    record.key = ("team", "chat")
    line = JsonFormatter().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["key"], parsed["message"]) == ("error", "team/chat", "failed 2\ntimes")
    assert "ValueError: why" in parsed["error"]
