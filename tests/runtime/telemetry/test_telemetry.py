"""What probes, Prometheus and log readers get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tandem_runtime.telemetry.exposition import Metric, counter, gauge, render
from tandem_runtime.telemetry.http import Answer, MetricsServer, as_json, text
from tandem_runtime.telemetry.logs import JsonFormatter


def fail() -> Answer:
    raise ZeroDivisionError("no pods")


ROUTES = {"/healthz": lambda: text(200, "ok"), "/signals": lambda: as_json({"n": 1}), "/broken": fail}


async def test_probes_get_their_answer_and_everything_else_a_clear_status() -> None:
    server = MetricsServer(ROUTES)
    port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        for method, path, status, words in [
            ("GET", "/healthz", 200, "ok"),
            ("GET", "/healthz?verbose", 200, "ok"),
            ("GET", "/nothing", 404, "/signals"),
            ("POST", "/healthz", 405, "GET"),
            ("GET", "/broken", 503, "no pods"),
        ]:
            async with session.request(method, path) as response:
                assert response.status == status
                assert words in await response.text()
        async with session.get("/signals") as response:
            assert await response.json() == {"n": 1}
    server.stop()


@pytest.mark.parametrize("garbage", [b"\x00" * 100 + b"\r\n\r\n", b"\r\n\r\n", b"x" * 200_000, b"GET"])
async def test_garbage_on_the_metrics_port_harms_nobody(garbage: bytes) -> None:
    server = MetricsServer(ROUTES)
    port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(garbage)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, session.get("/healthz") as response:
        assert response.status == 200
    server.stop()


def test_a_process_that_ends_while_a_probe_is_half_read_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    async def end_with_an_open_connection() -> asyncio.StreamWriter:
        port = await MetricsServer(ROUTES).start("127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        return writer

    asyncio.run(end_with_an_open_connection())
    assert not caplog.records, "the last words of a failed pod are its reason"


def test_prometheus_reads_what_is_written() -> None:
    awkward = 'a "quoted" \\ line\nbreak'
    body = render(
        [
            gauge("vllm:num_requests_running", "Running", 3),
            counter("tandem_kv_tx_bytes_total", "Bytes", 12345678901),
            Metric("tandem_engine_failed_total", "Failed", "counter", [({"reason": awkward}, 2.5)]),
        ]
    ).decode()
    samples = {s.name: (s.labels, s.value) for family in text_string_to_metric_families(body) for s in family.samples}
    assert samples == {
        "vllm:num_requests_running": ({}, 3),
        "tandem_kv_tx_bytes_total": ({}, 12345678901),
        "tandem_engine_failed_total": ({"reason": awkward}, 2.5),
    }


def test_a_log_line_is_one_json_object_with_the_exception_inside() -> None:
    formatter = JsonFormatter("decode", "d-0")
    try:
        fail()
    except ZeroDivisionError:
        import sys

        record = logging.LogRecord("x", logging.ERROR, "f", 1, "two\nlines %s", ("here",), sys.exc_info())
    line = formatter.format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"], entry["role"], entry["pod"]) == (
        "error",
        "two\nlines here",
        "decode",
        "d-0",
    )
    assert "no pods" in entry["exception"]
