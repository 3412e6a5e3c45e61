"""A real `both` pod that is soaked: started, asked for its figures, ended."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.processes.pods import free_ports

START_SECONDS: Final = 300.0
PRIVATE: Final = "RssAnon"
"""Memory of its own: the KV pool is shared memory, taken page by page as it is touched, and bounded by its size."""


@dataclass
class SoakedPod:
    """One process. Its output goes nowhere: a pipe that nobody reads would stop it."""

    name: str
    flags: list[str]
    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: free_ports("internal", "kv", "metrics", "http"))
    memory_bytes: list[tuple[float, float]] = field(default_factory=list)

    def start(self) -> None:
        """Returns when it is ready."""
        words = [sys.executable, "-m", "tandem_runtime", "both", "--model-name", "soak", "--bind", "127.0.0.1"]
        for port, number in self.ports.items():
            words += [f"--{port}-port", str(number)]
        words += ["--pod-name", self.name, "--termination-log", str(self.folder / f"{self.name}.log"), *self.flags]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while self.get("/readyz")[0] != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not become ready: exit code {self.process.poll()}")
            time.sleep(0.05)

    def get(self, path: str) -> tuple[int, str]:
        """Of the metrics port; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def metrics(self) -> dict[str, float]:
        """Summed over labels."""
        found: dict[str, float] = {}
        for line in self.get("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, value = line.partition("{")[0].split()[0], float(line.split()[-1])
                found[name] = found.get(name, 0.0) + value
        return found

    def sample_memory(self, at: float) -> None:
        """Adds what it holds now, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in status if line.startswith(PRIVATE))
        self.memory_bytes.append((at, kib * 1024.0))

    def slope_bytes_per_minute(self, from_share: float = 1 / 3) -> float:
        """Least squares over the samples after the first third, in which caches and allocators fill."""
        samples = self.memory_bytes[int(len(self.memory_bytes) * from_share) :]
        mean_at = sum(at for at, _ in samples) / len(samples)
        mean = sum(value for _, value in samples) / len(samples)
        spread = sum((at - mean_at) ** 2 for at, _ in samples)
        return 60 * sum((at - mean_at) * (value - mean) for at, value in samples) / spread if spread else 0.0

    def settle(self, seconds: float) -> dict[str, float]:
        """Metrics once nothing is inside and the books were looked at since, or when the time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            figures = self.metrics()
            if figures.get("tandem_engine_used_pages") == 0 and figures.get("vllm:num_requests_waiting") == 0:
                time.sleep(1.5)
                return self.metrics()
            time.sleep(0.2)
        return self.metrics()

    def end(self) -> None:
        """By SIGTERM, then by force."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
