"""Time to first token of the same prompts: from one pod that does both, and from pairs over each transport."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median

from tandem_runtime.contracts.pod_protocol import Failed

from tests.bench.handoff_parts.loopback import Loopback
from tests.bench.handoff_parts.shape import KV_BYTES_PER_TOKEN, PROMPT_TOKENS
from tests.processes.pods import PodProcess, end, start_pod
from tests.runtime.server.pods import Router, router, submit

VOCABULARY = 250
"""Every executor here has at least that many ids."""


@dataclass
class Samples:
    """Seconds, by what was measured, in the order of the trials: those of one trial were taken in the same second."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of processors, in all processes that took part: what a busy machine hardly changes."""
    kv_bytes: int = 0

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def added(self, name: str) -> float:
        """Median of the differences to the pod that does both."""
        return median(a - b for a, b in zip(self.seconds[name], self.seconds["both"], strict=True))

    def added_cpu(self, name: str) -> float:
        """Median of the processor time, less that of the pod that does both."""
        return median(self.cpu_seconds[name]) - median(self.cpu_seconds["both"])

    def best_added(self, name: str) -> float:
        return min(self.seconds[name]) - min(self.seconds["both"])


@asynccontextmanager
async def fleet(folder: Path, flags: list[str], transports: list[str]) -> AsyncIterator[dict[str, PodProcess]]:
    """One prefill pod, one decode pod for each transport, one pod that does both."""
    async with AsyncExitStack() as stack:
        pods: dict[str, PodProcess] = {}
        roles = {"both": "both", "prefill": "prefill"} | dict.fromkeys(transports, "decode")
        for name, role in roles.items():
            shared = "auto" if name in ("prefill", "shm") else "off"
            home = folder / name
            home.mkdir(exist_ok=True)
            pods[name] = await start_pod(role, home, *flags, "--kv-shared-memory", shared)
            stack.push_async_callback(end, pods[name])
        for pod in pods.values():
            await pod.wait_ready()
        yield pods


async def first_token_seconds(client: Router, request_id: str, prompt: list[int], prefill: PodProcess | None) -> float:
    """From the request to its first token; the answer is awaited to its end."""
    peer = None if prefill is None else prefill.peer
    started = time.perf_counter()
    client.send(submit(request_id, prompt, 2, peer))
    seconds = 0.0
    while not seconds:
        client.news.clear()
        found = client.of(request_id)
        if found:
            seconds = time.perf_counter() - started
        else:
            await client.news.wait()
    last = await client.ended(request_id)
    if isinstance(last, Failed) or last.usage is None:
        raise RuntimeError(f"the request failed: {last}")
    if peer is not None and last.usage.prefilled_here:
        raise RuntimeError("the prompt was computed by the decode pod: nothing was handed over")
    return seconds


async def measure(folder: Path, flags: list[str], transports: list[str], trials: int, loopback: bool) -> Samples:
    """Everything in turn, `trials` times after one that warms up."""
    samples, chance = Samples(), Random(0)
    limit = Loopback(PROMPT_TOKENS * KV_BYTES_PER_TOKEN) if loopback else None
    try:
        async with fleet(folder, flags, transports) as pods, AsyncExitStack() as stack:
            clients = {
                name: await stack.enter_async_context(router(pods[name].ports["internal"]))
                for name in ("both", *transports)
            }
            for trial in range(trials + 1):
                prompt = [chance.randrange(3, VOCABULARY) for _ in range(PROMPT_TOKENS)]
                for name, client in clients.items():
                    prompt = [*prompt[1:], chance.randrange(3, VOCABULARY)]  # nobody has seen it
                    peer = None if name == "both" else pods["prefill"]
                    pids = [pod.process.pid for pod in (pods[name], *([pods["prefill"]] if peer else []))]
                    before = cpu_seconds(pids)
                    seconds = await first_token_seconds(client, f"{name}-{trial}", prompt, peer)
                    if trial:
                        samples.add(name, seconds)
                        samples.cpu_seconds.setdefault(name, []).append(cpu_seconds(pids) - before)
                if limit is not None and trial:
                    before = cpu_seconds([os.getpid(), limit.pid])
                    samples.add("loopback", limit.seconds())
                    spent = cpu_seconds([os.getpid(), limit.pid]) - before
                    samples.cpu_seconds.setdefault("loopback", []).append(spent)
            for name in transports:
                samples.kv_bytes = int(await pods[name].metric("tandem_kv_rx_bytes_total")) // (trials + 1)
                samples.add(f"{name} probe", await probe_seconds(pods[name], samples.kv_bytes))
    finally:
        if limit is not None:
            limit.close()
    return samples


def cpu_seconds(pids: list[int]) -> float:
    """Of all threads of these processes, to the nanosecond."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def probe_seconds(pod: PodProcess, count: int) -> float:
    """What the bytes would take at the speed that the pod itself has measured."""
    _, text = await pod.get("/metrics")
    line = next((line for line in text.splitlines() if line.startswith("tandem_kv_link_bytes_per_second{")), None)
    return count / float(line.split()[-1]) if line else float("nan")
