"""Stages that need no cluster: seconds to ready and to the first token, memory of local processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from e2e.processes import answers, free_port_base
from e2e.stack import stream_chat, wait_until
from tests.bench.report import Report

EMULATED_READY_SECONDS = 1.0
EMULATED_RSS_BYTES = 80e6
PROMPT = "Tell me about the sea."


@contextmanager
def timed(report: Report, section: str, key: str, note: str = "", at_most: float | None = None) -> Iterator[None]:
    """Adds the seconds that the block takes, when it succeeds."""
    print(f"... {section}: {key.removesuffix('_seconds').replace('_', ' ')}", file=sys.stderr, flush=True)
    started = time.monotonic()
    yield
    report.add(section, key, time.monotonic() - started, note, at_most)


def first_token_seconds(url: str, model: str) -> float:
    """Seconds from the request to its first piece of text; the stream is read to its end."""
    started = time.monotonic()
    pieces = stream_chat(url, model, PROMPT, max_tokens=16)
    next(pieces)
    seconds = time.monotonic() - started
    for _ in pieces:
        pass
    return seconds


def memory_limit(section: str, role: str) -> float | None:
    """What issue and design ask of emulated pods."""
    return EMULATED_RSS_BYTES if section.endswith("emulated") and role in ("prefill", "decode") else None


def measure_processes(report: Report, executor: str) -> None:
    """`tandem-runtime serve`: seconds to ready and to the first token, RSS of every process."""
    section = f"processes, {executor}"
    runtime = str(Path(sys.executable).parent / "tandem-runtime")
    with tempfile.TemporaryDirectory() as folder:
        model = ["--model", folder] if executor == "torch" else []
        if executor == "torch":
            with timed(report, section, "make_model_seconds"):
                subprocess.run([runtime, "make-model", folder], check=True, stdout=subprocess.DEVNULL)
        base = free_port_base()
        url = f"http://127.0.0.1:{base}"
        command = [runtime, "serve", *model, "--executor", executor, "--model-name", "chat", "--port-base", str(base)]
        started = time.monotonic()
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            with timed(report, section, "serve_ready_seconds", "router, prefill and decode"):
                for port in (base + 1, base + 12, base + 22):  # metrics ports of router, prefill and decode
                    wait_until("serve", 120, partial(answers, f"http://127.0.0.1:{port}/readyz", server), 0.02)
            first_token_seconds(url, "chat")
            report.add(section, "start_to_first_answer_seconds", time.monotonic() - started)
            report.add(section, "second_ttft_seconds", first_token_seconds(url, "chat"))
            for role, rss_bytes in child_memory(server.pid).items():
                report.add(section, f"{role}_rss_bytes", rss_bytes, "VmRSS", memory_limit(section, role))
        finally:
            server.terminate()
            server.wait(30)


def measure_emulated_pod(report: Report) -> None:
    """One emulated engine pod alone, from exec to readiness."""
    base = free_port_base()
    ports = [f"--{name}-port={base + number}" for number, name in enumerate(("http", "internal", "kv", "metrics"))]
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder, "token")
        token.write_text("bench")
        command = [str(Path(sys.executable).parent / "tandem-runtime"), "both", "--executor", "emulated", *ports]
        command += ["--coefficients", "laptop", "--bind", "127.0.0.1", "--address", "127.0.0.1", "--pod-name", "bench"]
        command += ["--revision", "bench", "--token-file", str(token), "--model-name", "bench"]
        with timed(report, "processes, emulated", "pod_ready_seconds", "one pod alone", EMULATED_READY_SECONDS):
            pod = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            try:
                wait_until("emulated pod", 60, lambda: answers(f"http://127.0.0.1:{base + 3}/readyz", pod), 0.01)
            except BaseException:
                pod.kill()
                raise
        pod.terminate()
        pod.wait(30)


def child_memory(pid: int, proc: Path = Path("/proc")) -> dict[str, int]:
    """{role: VmRSS in bytes} of the `tandem-runtime ROLE` children of a process."""
    memory: dict[str, int] = {}
    for child in (proc / str(pid) / "task" / str(pid) / "children").read_text().split():
        words = (proc / child / "cmdline").read_bytes().decode().split("\0")
        role = next((word for word in words if word in ("router", "prefill", "decode")), None)
        for line in (proc / child / "status").read_text().splitlines():
            if role and line.startswith("VmRSS:"):
                memory[role] = int(line.split()[1]) * 1024
    return memory
