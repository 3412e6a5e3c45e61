"""What a pod that cannot start leaves behind: an exit code and one line."""

from __future__ import annotations

import argparse
import io
import json
import logging
from pathlib import Path

import pytest
from tandem_runtime.contracts.names import EXIT_BAD_MODEL
from tandem_runtime.engine.executor import Executor
from tandem_runtime.server.command import EXIT_ENGINE, _serve, _tell_role
from tandem_runtime.server.settings import ConfigError, ServerSettings, add_arguments, read_settings
from tandem_runtime.telemetry.logs import JsonFormatter
from tandem_runtime.telemetry.traces import Tracer, make_tracer

from tests.runtime.server.pods import running_pod


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PermissionError(13, "Permission denied", "/m/model.safetensors"), EXIT_BAD_MODEL, "/m/model.safetensors"),
        (RuntimeError("device out of memory\nmore lines"), EXIT_ENGINE, "RuntimeError: device out of memory more"),
    ],
)
async def test_whatever_stops_the_start_is_one_line_and_no_port_is_blamed(
    error: Exception,
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(settings: ServerSettings) -> Executor:
        raise error

    monkeypatch.setattr(ServerSettings, "make_executor", fail)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    last_words = tmp_path / "log"
    flags = ["--executor", "emulated", "--bind", "127.0.0.1", "--metrics-port", "0"]
    args = parser.parse_args([*flags, "--termination-log", str(last_words)])
    assert await _serve(read_settings("decode", args)) == code
    [line] = capfd.readouterr().err.splitlines()
    assert words in line
    assert "listen" not in line
    assert words in last_words.read_text()


def service_of(tracer: Tracer) -> str:
    [resource] = json.loads(tracer.encode([]))["resourceSpans"]
    values = {each["key"]: each["value"]["stringValue"] for each in resource["resource"]["attributes"]}
    return str(values["service.name"])


async def test_spans_and_log_lines_carry_the_role_of_their_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    formatter = JsonFormatter("decode", "d0")
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(formatter)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    async with running_pod("decode") as running:
        before = running.pod.requests.tracer = make_tracer("tandem-decode", "d0")
        before.lost = 3
        _tell_role(running.pod, "prefill")
        after = running.pod.requests.tracer
    assert (service_of(before), service_of(after), after.lost) == ("tandem-decode", "tandem-prefill", 3)
    line = formatter.format(logging.LogRecord("x", logging.INFO, "", 0, "words", None, None))
    assert (json.loads(line)["role"], json.loads(line)["pod"]) == ("prefill", "d0")


def test_both_roles_keep_the_prefill_pods_that_they_are_told_of() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--executor", "emulated", "--prefill-peer", "chat-prefill:8002"])
    for role in ("prefill", "decode"):
        assert read_settings(role, args).kv.peers == ("chat-prefill:8002",)
    with pytest.raises(ConfigError, match="--prefill-peer: 'chat-prefill' is not HOST:PORT"):
        read_settings("prefill", parser.parse_args(["--executor", "emulated", "--prefill-peer", "chat-prefill"]))
