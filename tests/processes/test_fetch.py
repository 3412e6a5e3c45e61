"""`tandem-runtime fetch` as a process: exit codes, one-line reasons, a kill -9 in the middle, the hub's token."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tandem_runtime.fetch import command

from tests.runtime.fetch.web import model_files, serving

PROGRAM = (
    "import argparse, sys\nfrom tandem_runtime.fetch import command\nparser = argparse.ArgumentParser('fetch')\n"
    "command.add_arguments(parser)\nsys.exit(command.run(parser.parse_args()))"
)


async def start(*arguments: object, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", PROGRAM, *[str(argument) for argument in arguments]),
        env={**os.environ, "HF_TOKEN": "", "no_proxy": "127.0.0.1", **environment},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def run(*arguments: object, **environment: str) -> tuple[int | None, str]:
    process = await start(*arguments, **environment)
    _, error = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, error.decode()


async def wait_for_bytes(path: Path) -> int:
    for _ in range(1200):
        found = size_of(path)
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"nothing came to {path} within 60 s")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def call(*arguments: object) -> int:
    """In this process."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


async def test_a_hub_model_comes_with_the_token_of_the_environment(tmp_path: Path) -> None:
    async with serving(model_files()) as server:
        to = tmp_path / "model"
        code, text = await run("hf://org/repo", "--to", to, HF_ENDPOINT=server.url, HF_TOKEN="hf_x")
        assert (code, server.tokens) == (0, {"Bearer hf_x"}), text
        assert "fetch: complete: 4 files" in text
        code, text = await run("hf://org/repo", "--to", to, "--endpoint", "http://127.0.0.1:9")
        assert (code, text) == (0, f"fetch: {to} holds hf://org/repo@main already\n")


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_fetch_goes_on_in_the_next_process(tmp_path: Path, by: signal.Signals) -> None:
    files = model_files(shard_bytes=4_000_000)
    async with serving(dict(files), stall=True) as server:
        process = await start(f"{server.url}/m/", "--to", tmp_path)
        await wait_for_bytes(tmp_path / ".tandem/parts/model.safetensors.partial")
        process.send_signal(by)
        await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == (-signal.SIGKILL if by == signal.SIGKILL else 143)
        there = await wait_for_bytes(tmp_path / ".tandem/parts/model.safetensors.partial")
        server.stall, server.log = False, []
        code, text = await run(f"{server.url}/m/", "--to", tmp_path)
        assert code == 0, text
        assert ("GET", "/m/model.safetensors", f"bytes={there}-") in server.log
        assert (tmp_path / "model.safetensors").read_bytes() == files["model.safetensors"]


async def test_a_reason_goes_to_the_termination_log_as_one_line(tmp_path: Path) -> None:
    async with serving({}) as server:
        log = tmp_path / "log"
        code, text = await run(f"{server.url}/m/", "--to", tmp_path / "to", "--termination-log", log)
        assert code == 3
        assert text.splitlines()[-1] == "fetch: " + log.read_text().rstrip("\n")
        assert log.read_text().startswith(f"{server.url}/m/config.json answers 404 Not Found")
        assert log.read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s3://a/b", "--to", "x"], "use hf://org/repo"),
        (["hf://a/b"], "needs --to DIR"),
        (["pvc://claim/a"], "needs --mount DIR"),
        (["hf://a/b", "--to", "x", "--parallel", "0"], "--parallel is 0"),
    ],
)
def test_a_wrong_flag_is_no_model_error(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments, "--termination-log", tmp_path / "log") == 2
    assert words in capsys.readouterr().err
    assert words in (tmp_path / "log").read_text()


def test_folders_that_are_there_are_checked_not_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in model_files().items():
        path = tmp_path / "claim" / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder = tmp_path / "claim" / "a"
    assert call(f"file://{folder}", "--to", tmp_path / "to") == 0
    assert capsys.readouterr().err == f"fetch: {folder} holds a whole model\n"
    claim = ("pvc://c/a", "--mount", tmp_path / "claim", "--termination-log", tmp_path / "log")
    assert call(*claim) == 0
    assert not (tmp_path / "to").exists()
    (folder / "model.safetensors").write_bytes(b"\0" * 20)
    assert call(*claim) == 3
    assert "model.safetensors is damaged" in (tmp_path / "log").read_text()
    assert call(*claim, "--only", "tokenizer") == 0
