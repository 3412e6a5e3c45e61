"""`tandem-runtime serve` as a person uses it: real processes, emulated executor, the official client."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from tandem_runtime.__main__ import COMMANDS, main
from tandem_runtime.contracts.names import EXIT_BAD_CONFIG, EXIT_BAD_MODEL
from tandem_runtime.router.children import Child, stop_all
from tandem_runtime.router.serve import ServeError, add_arguments, check_ports, make_children, make_plan, wait_connected

SERVE = [sys.executable, "-m", "tandem_runtime", "serve"]
ROUTER = ["--endpoints", "x", "--model-name", "m", "--revision", "r"]
ANSWER_TOKENS = 80


def free_port_base() -> int:
    """A base whose ports are free now; ports for outgoing connections lie above."""
    for base in range(20000 + os.getpid() % 100 * 100, 32000, 100):
        try:
            check_ports(range(base, base + 40))
        except ServeError:
            continue
        return base
    raise AssertionError("no free ports")


def wait_until(holds: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
    """Bounded wait."""
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def descendants(pid: int) -> dict[str, int]:
    """Role or pod name of each child of `serve`, and its pid."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        name = words[words.index("--pod-name") + 1] if "--pod-name" in words else words[3]
        found[name] = int(child)
    return found


def is_alive(pid: int) -> bool:
    """Zombies count as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Served:
    """One running `serve`."""

    def __init__(self, process: subprocess.Popen[str], base: int, directory: Path) -> None:
        self.process, self.base, self.directory = process, base, directory
        self.printed: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            self.printed.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert self.printed[-1].startswith("Ctrl-C"), "".join(self.printed)
        self.children = descendants(process.pid)
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{base}/v1", api_key="none", max_retries=0)

    def ask(self, prompt: str, tokens: int = ANSWER_TOKENS) -> str:
        """Not streamed."""
        answer = self.client.completions.create(model="emulated", prompt=prompt, max_tokens=tokens)
        return answer.choices[0].text

    def stream(self, prompt: str, after: Callable[[], None] = lambda: None) -> str:
        """Streamed; `after` is called after the fifth chunk."""
        pieces = []
        for chunk in self.client.completions.create(
            model="emulated", prompt=prompt, max_tokens=ANSWER_TOKENS, stream=True
        ):
            pieces.append(chunk.choices[0].text)
            if len(pieces) == 5:
                after()
        return "".join(pieces)

    def left_behind(self) -> list[object]:
        """Processes that live and files that are there."""
        alive = [name for name, pid in self.children.items() if is_alive(pid)]
        return [*alive, *self.directory.iterdir()]


@contextmanager
def serving(directory: Path, *arguments: str) -> Iterator[Served]:
    """Ready when entered; ended by SIGTERM when left, if it still runs."""
    base = free_port_base()
    command = [*SERVE, "--executor", "emulated", "--port-base", str(base), *arguments]
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield Served(process, base, directory)
        finally:
            process.terminate()
            try:
                process.wait(15)
            finally:
                process.kill()


def test_it_serves_the_official_client_and_ends_without_a_trace(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        assert re.search(r"ready in \d+\.\d s: http://127", "".join(served.printed))
        assert sorted(served.children) == ["decode-0", "prefill-0", "router"]
        text = served.ask("Tell me")
        assert len(text) == ANSWER_TOKENS
        assert served.stream("Tell me") == text
        with ThreadPoolExecutor(8) as threads:
            prompts = [f"Question {number}" for number in range(16)]
            together = list(threads.map(served.ask, prompts))
        assert together[5] == served.ask(prompts[5])
        chat = served.client.chat.completions.create(
            model="emulated", messages=[{"role": "user", "content": "Hello"}], max_tokens=5
        )
        assert chat.usage is not None
        assert chat.usage.completion_tokens == 5
        with pytest.raises(openai.NotFoundError, match="'emulated'"):
            served.client.completions.create(model="other", prompt="x")
        for name, pid in served.children.items():
            assert "torch" not in Path(f"/proc/{pid}/maps").read_text(), name
            assert rss_bytes(pid) < 80e6, (name, rss_bytes(pid))
        # Ctrl-C while an answer streams: it comes to its end first.
        assert served.stream("Tell me", after=lambda: served.process.send_signal(signal.SIGINT)) == text
        assert served.process.wait(15) == 0
        assert served.left_behind() == []


def test_the_client_that_leaves_frees_the_pods(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        stream = served.client.completions.create(model="emulated", prompt="x", max_tokens=5000, stream=True)
        next(iter(stream))
        assert busy(served.base) == 1
        stream.close()
        wait_until(lambda: busy(served.base) == 0)
        served.process.kill()  # no farewell: the kernel ends the children
        wait_until(lambda: not any(is_alive(pid) for pid in served.children.values()))


async def test_a_decode_pod_killed_mid_stream_costs_time_but_no_token(tmp_path: Path) -> None:
    base = free_port_base()
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--executor", "emulated", "--decode", "2", "--port-base", str(base)])
    plan = make_plan(base, prefill=1, decode=2)
    children = {child.name: child for child in make_children(args, plan, tmp_path)}

    def kill_running() -> Child:
        [name] = [pod["pod"] for pod in signals(base)["pods"] if pod["role"] == "decode" and pod["running"]]
        children[name].signal(signal.SIGKILL)
        return children[name]

    try:
        for child in children.values():
            await child.start()
        await wait_connected(plan, time.monotonic())
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{base}/v1", api_key="none", max_retries=0)
        request: Any = {"model": "emulated", "prompt": "Tell me", "max_tokens": ANSWER_TOKENS}
        async with client:
            whole = (await client.completions.create(**request)).choices[0].text
            for stop in ([], [whole[50:54], whole[30] + "#"]):  # also with text held back for a stop string
                pieces: list[str] = []
                async for chunk in await client.completions.create(**request, stop=stop, stream=True):
                    pieces.append(chunk.choices[0].text)
                    if len(pieces) == 20:
                        killed = await asyncio.to_thread(kill_running)
                assert "".join(pieces) == (whole.partition(stop[0])[0] if stop else whole)
                assert await killed.wait() == 128 + signal.SIGKILL
                await killed.start()
                await wait_connected(plan, time.monotonic())
        assert signals(base)["classes"]["default"]["completed"] == 3
    finally:
        await stop_all(list(children.values()), 5)


def signals(base: int) -> Any:
    """What the router says of itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{base + 1}/signals", timeout=5) as answer:
        return json.load(answer)


def busy(base: int) -> int:
    """Requests that run in pods, as the router sees it."""
    return sum(pod["running"] for pod in signals(base)["pods"] if pod["role"] == "decode")


def refused(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a `serve` that does not come to serve."""
    done = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_port_that_is_taken_is_named_before_anything_starts() -> None:
    base = free_port_base()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", base + 20))
        other.listen()
        code, output = refused("--executor", "emulated", "--port-base", str(base))
    assert code == EXIT_BAD_CONFIG
    assert f"port {base + 20} cannot be used" in output
    assert "--port-base" in output


def test_a_bad_model_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    code, output = refused("--model", str(tmp_path / "nothing"))
    assert (code, output.count("\n")) == (EXIT_BAD_CONFIG, 1)
    assert "is not a folder" in output
    code, output = refused("--model", str(tmp_path))
    assert (code, output.count("\n")) == (EXIT_BAD_MODEL, 1)
    assert f"{tmp_path} has no config.json" in output
    (tmp_path / "config.json").write_text("{}")  # now the processes find out: all at about the same time
    code, output = refused("--model", str(tmp_path), "--prefill", "0", "--port-base", str(free_port_base()))
    assert code == EXIT_BAD_MODEL, output
    assert str(tmp_path) in output.splitlines()[-1], output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve"], "--model DIR is missing"),
        (["serve", "--executor", "emulated", "--coefficients", "abacus"], "no coefficients file 'abacus'"),
        (["serve", "--executor", "emulated", "--port-base", "65530"], "--port-base 65530 leaves no room"),
        (["serve", "--executor", "emulated", "--decode", "0"], "--decode"),
        (["router", *ROUTER, "--token-file", "/nowhere"], "/nowhere cannot be read"),
        (["router", *ROUTER, "--token-file", "/dev/null"], "/dev/null is empty"),
        (["router", *ROUTER, "--token-file", "/dev/null", "--http-port", "99999"], "'99999' is not a port"),
        (["make-model", "x", "--seed", "-1"], "--seed"),
        (["fetch", "model"], "is no model URI"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_wrong_flags_are_one_line_that_names_them(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(arguments))
    [line] = "".join(capfd.readouterr()).splitlines()
    assert words in line
    assert ended.value.code == EXIT_BAD_CONFIG


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_explains_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  -"):
            assert re.match(r"  -\S.*?\S   *\S", line) or following.startswith(" " * 20), line


@pytest.mark.parametrize("victim", ["prefill-0", "decode-0"])
def test_a_process_that_dies_is_told_and_started_again_and_no_stream_loses_a_token(tmp_path: Path, victim: str) -> None:
    with serving(tmp_path) as served:
        text = served.ask("Tell me")
        assert served.stream("Tell me", lambda: os.kill(served.children[victim], signal.SIGKILL)) == text
        wait_until(lambda: descendants(served.process.pid).get(victim) not in (None, served.children[victim]))
        served.children = descendants(served.process.pid)
        assert served.ask("Tell me") == text
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(15) == 0
        assert served.process.stdout is not None
        assert f"{victim} ended with code 137; it starts again in 0.2 s" in served.process.stdout.read()
        assert served.left_behind() == []
