"""Engine pods as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tandem_runtime.contracts.pod_protocol import PrefillPeer

START_SECONDS = 300.0
"""Importing torch on a loaded machine takes that long at worst."""


@dataclass
class PodProcess:
    """One `tandem-runtime prefill|decode|both`."""

    name: str
    process: asyncio.subprocess.Process
    ports: dict[str, int]
    started: float
    ready_seconds: float = 0.0

    @property
    def peer(self) -> PrefillPeer:
        return PrefillPeer(self.name, "127.0.0.1", self.ports["kv"], "")

    async def get(self, path: str) -> tuple[int, str]:
        """Status 0 when nobody listens."""
        url = f"http://127.0.0.1:{self.ports['metrics']}{path}"

        def fetch() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(url, timeout=5) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError:
                return 0, ""

        return await asyncio.to_thread(fetch)

    async def metric(self, name: str) -> float:
        """A metric without labels."""
        _, text = await self.get("/metrics")
        return next(float(line.split()[1]) for line in text.splitlines() if line.split()[0] == name)

    async def wait_ready(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            while (await self.get("/readyz"))[0] != 200:
                assert self.process.returncode is None, f"{self.name} ended with {self.process.returncode}"
                await asyncio.sleep(0.01)
        self.ready_seconds = time.monotonic() - self.started

    async def logs(self) -> list[dict[str, str]]:
        """Everything it said; call after its end."""
        assert self.process.stdout is not None
        return [json.loads(line) for line in (await self.process.stdout.read()).splitlines()]

    def memory_maps(self) -> str:
        """Files that it has loaded, among others."""
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def rss_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def free_ports(*names: str) -> dict[str, int]:
    """Held all at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: held.getsockname()[1] for name, held in zip(names, sockets, strict=True)}
    for held in sockets:
        held.close()
    return ports


async def start_pod(role: str, folder: Path, *flags: str) -> PodProcess:
    """Not ready yet. The token is `secret`."""
    token = folder / "token"
    token.write_text("secret\n")
    ports = free_ports("internal", "kv", "metrics", "http")
    words = ["--pod-name", f"{role}-0", "--revision", "rev1", "--token-file", str(token), "--bind", "127.0.0.1"]
    for name, port in ports.items():
        words += [f"--{name}-port", str(port)]
    words += ["--termination-log", str(folder / f"{role}.termination"), *flags]
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tandem_runtime",
        role,
        *words,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return PodProcess(f"{role}-0", process, ports, started)


@asynccontextmanager
async def pods(
    folder: Path, *flags: str, roles: tuple[str, ...] = ("prefill", "decode")
) -> AsyncIterator[list[PodProcess]]:
    """One ready pod of each role; whatever still runs is killed at the end."""
    async with AsyncExitStack() as stack:
        running = []
        for role in roles:
            pod = await start_pod(role, folder, *flags)
            stack.push_async_callback(end, pod)
            running.append(pod)
        for pod in running:
            await pod.wait_ready()
        yield running


async def end(pod: PodProcess) -> None:
    """Kills it unless it ended."""
    if pod.process.returncode is None:
        pod.process.kill()
    await pod.process.wait()
