"""What a pod that cannot start leaves behind: an exit code and one line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from tandem_runtime.contracts.names import EXIT_BAD_MODEL
from tandem_runtime.engine.executor import Executor
from tandem_runtime.server.command import EXIT_ENGINE, _serve
from tandem_runtime.server.settings import ServerSettings, add_arguments, read_settings


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
