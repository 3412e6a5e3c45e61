"""Mixed traffic on real `both` pods for minutes: no page may leak, no request hang, no memory grow."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp
import msgspec
from tandem_runtime.contracts.coefficients import read_coefficients

from tests.bench.report import MISSED, Report
from tests.bench.soak_parts.clients import Client
from tests.bench.soak_parts.pod import SoakedPod

CLIENTS: Final = 12
"""Of each pod, at the same time."""
CONTEXT_TOKENS: Final = 1024
SMALL_KV_TOKENS: Final = 1280
"""Of the emulated pod: so little that requests wait for pages and lose them."""
SLOPE_SECONDS: Final = 100.0
"""Below that memory has not come to rest, and its slope says nothing."""
MOST_BYTES_PER_MINUTE: Final = 4e6
SETTLE_SECONDS: Final = 30.0


def make_pods(folder: Path) -> list[SoakedPod]:
    """Real weights with much room; an emulated device with little."""
    from tandem_runtime.models.make_model import make_model

    make_model(folder / "model")
    small = msgspec.structs.replace(read_coefficients("laptop"), kv_tokens=SMALL_KV_TOKENS, max_sequences=8)
    (folder / "small.json").write_bytes(msgspec.json.encode(small))
    context = ["--max-context-tokens", str(CONTEXT_TOKENS)]
    return [
        SoakedPod("torch", ["--model", str(folder / "model"), *context], folder),
        SoakedPod(
            "emulated", ["--executor", "emulated", "--coefficients", str(folder / "small.json"), *context], folder
        ),
    ]


async def soak(pods: list[SoakedPod], seconds: float) -> dict[str, list[Client]]:
    """All clients of all pods until the time is up."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    clients = {
        pod.name: [Client(f"http://127.0.0.1:{pod.ports['http']}", n, CONTEXT_TOKENS) for n in range(CLIENTS)]
        for pod in pods
    }
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        work = [asyncio.create_task(c.run(session, until)) for group in clients.values() for c in group]
        while loop.time() < until:
            for pod in pods:
                pod.sample_memory(loop.time())
            await asyncio.sleep(min(1.0, seconds / 20))
        await asyncio.gather(*work)
    return clients


def tell(report: Report, pod: SoakedPod, clients: list[Client], seconds: float) -> list[str]:
    """The figures of one pod; returns what must not have happened."""
    figures = pod.settle(SETTLE_SECONDS)
    outcomes: Counter[str] = sum((client.outcomes for client in clients), Counter())
    problems = [problem for client in clients for problem in client.problems]
    for name in ("answered", "left", "refused", "full"):
        report.add(pod.name, f"{name}_requests", outcomes[name])
    report.add(pod.name, "problems", len(problems), "; ".join(sorted(set(problems))[:2])[:80], at_most=0)
    stuck = figures.get("vllm:num_requests_running", 1) + figures.get("vllm:num_requests_waiting", 1)
    report.add(pod.name, "stuck_requests", stuck, at_most=0)
    report.add(pod.name, "held_pages", figures.get("tandem_engine_used_pages", 1), "when idle", at_most=0)
    report.add(pod.name, "leaked_pages", figures.get("tandem_engine_leaked_pages", 1), at_most=0)
    report.add(pod.name, "preemptions", figures.get("vllm:num_preemptions_total", 0))
    hits, asked = (figures.get(f"vllm:prefix_cache_{name}_total", 0) for name in ("hits", "queries"))
    report.add(pod.name, "prefix_hit_share", hits / max(1, asked))
    slope, limit = pod.slope_bytes_per_minute(), MOST_BYTES_PER_MINUTE if seconds >= SLOPE_SECONDS else None
    report.add(pod.name, "private_memory_bytes", pod.memory_bytes[-1][1], "without the KV pool")
    report.add(pod.name, "growth_per_minute_bytes", slope, "over the last two thirds", at_most=limit)
    return problems


def main(argv: list[str]) -> int:
    """Exit code 3 when something leaked, hung, grew or broke."""
    parser = argparse.ArgumentParser(prog="./tests/run bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, metavar="M", help="how long (default: 30)")
    parser.add_argument("--quick", action="store_true", help="20 seconds")
    options = parser.parse_args(argv)
    seconds = 20.0 if options.quick else 60 * options.minutes
    report = Report("soak")
    report.add("soak", "duration_seconds", seconds, f"{CLIENTS} clients of each pod")
    with TemporaryDirectory() as name:
        pods = make_pods(Path(name))
        try:
            for pod in pods:
                pod.start()
            clients = asyncio.run(soak(pods, seconds))
            problems = [problem for pod in pods for problem in tell(report, pod, clients[pod.name], seconds)]
        finally:
            for pod in pods:
                if hasattr(pod, "process"):
                    pod.end()
    for problem in problems[:20]:
        print(problem)
    report.finish()
    return MISSED if report.as_dict()["missed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
