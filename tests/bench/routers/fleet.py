"""Pods and routers as processes: started, waited for, their CPU time read, ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
MODEL: Final = "chat"
START_SECONDS: Final = 240.0
"""litellm imports for a minute on a busy machine."""
TICK_SECONDS: Final = 1 / os.sysconf("SC_CLK_TCK")
LIBRARIES: Final = ":".join([f"{ROOT}/runtime", *(path for path in sys.path if path.endswith("site-packages"))])
"""For an interpreter of the same version that is not the environment's own."""


class Pods:
    """Emulated `both` pods; each step takes `1 / tokens_per_second`, however many sequences are in it."""

    def __init__(self, folder: Path, count: int, tokens_per_second: float) -> None:
        self.folder, self.count = folder, count
        self.times = folder / "times"
        self.token = folder / "token"
        self.token.write_text("bench\n")
        self.endpoints = folder / "endpoints.json"
        self._coefficients = folder / "coefficients.json"
        self._coefficients.write_bytes(_coefficients(1 / tokens_per_second))
        self.ports = [free_ports(4) for _ in range(count)]
        pods = [
            {"pod": f"pod-{number}", "address": f"127.0.0.1:{ports[1]}", "role": "both", "revision": "bench"}
            for number, ports in enumerate(self.ports)
        ]
        self.endpoints.write_text(json.dumps({"schema": 1, "pods": pods, "services": []}))

    @property
    def urls(self) -> list[str]:
        """Of their HTTP ports."""
        return [f"http://127.0.0.1:{ports[0]}" for ports in self.ports]

    def command(self, number: int) -> list[str]:
        """Of one pod."""
        names = ("http", "internal", "kv", "metrics")
        ports = [f"--{name}-port={port}" for name, port in zip(names, self.ports[number], strict=True)]
        return [
            *(sys.executable, "-m", "tests.bench.routers.pod", str(self.times), "both", "--executor", "emulated"),
            *("--coefficients", str(self._coefficients), "--pod-name", f"pod-{number}", "--revision", "bench"),
            *("--token-file", str(self.token), "--bind", "127.0.0.1", "--model-name", MODEL, *ports),
        ]

    def router_command(self, port: int, metrics_port: int, python: str = sys.executable) -> list[str]:
        """Ours, in front of them."""
        return [
            *(
                python,
                "-m",
                "tandem_runtime",
                "router",
                "--endpoints",
                str(self.endpoints),
                "--model-name",
                MODEL,
                "--revision",
                "bench",
            ),
            *("--token-file", str(self.token), "--bind", "127.0.0.1"),
            *("--http-port", str(port), "--metrics-port", str(metrics_port)),
        ]

    def inside_seconds(self) -> dict[int, float]:
        """{number of the request: seconds in the pod up to its first token} of all so far."""
        with suppress(FileNotFoundError):
            rows = [line.split() for line in self.times.read_text().splitlines()]
            return {int(number): float(seconds) for number, seconds in rows}
        return {}


def _coefficients(step_seconds: float) -> bytes:
    known = json.loads((ROOT / "runtime/tandem_runtime/contracts/bundled/laptop.json").read_text())
    known["decode"] = {"phi0_s": step_seconds, "phi1_s": 0.0, "phi2_s": 0.0}
    known["prefill"] = {"theta0_s": 0.0005, "theta1_s": 0.0, "theta2_s": 0.0}
    known |= {"kv_tokens": 2_000_000, "max_sequences": 4096}
    return json.dumps(known).encode()


@contextmanager
def running(command: list[str], ready_url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """From its first 200 at `ready_url` to the end of the block. Raises RuntimeError with its last words."""
    with log.open("wb") as output:
        env = os.environ | ({"PYTHONPATH": LIBRARIES} if "tandem_runtime" in command else {})
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(ready_url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[:4]} did not become ready: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def cpu_seconds(pid: int, proc: Path = Path("/proc")) -> float:
    """User and system time of a process, all its threads and its living children."""
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) * TICK_SECONDS
    for task in (proc / str(pid) / "task").iterdir():
        children = (task / "children").read_text().split()
        seconds += sum(cpu_seconds(int(child), proc) for child in children)
    return seconds


def free_ports(count: int) -> list[int]:
    """Held all at once, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports
