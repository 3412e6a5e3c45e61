"""Thousands of idle connections and clients that do it wrong, beside streams that must not suffer: memory and TTFT.

The router is a process, the pods are emulated. Active streams run alone first, then beside all the others.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import uvloop
from tandem_runtime.openai.http_port import raise_file_limit

from tests.bench.report import MISSED, Report
from tests.bench.router import percentile_ms
from tests.bench.routers.abuse import KINDS, Abuse
from tests.bench.routers.client import Answered, Shape, drive_all
from tests.bench.routers.fleet import Pods, cpu_seconds, free_ports, running

TOKENS_PER_SECOND = 2.0
BYTES_A_CONNECTION = 40_000
"""Of router memory: what an idle one may cost."""
PEAK_BYTES = 1.5e9
SETTLE_SECONDS = 3.0
"""The kernel has connected all of them; the router accepts the last ones a little later."""


def rss_bytes(pid: int, key: str = "VmRSS") -> int:
    """Memory of a process now, or its peak (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@asynccontextmanager
async def abused(report: Report, abuse: Abuse, pid: int, options: argparse.Namespace) -> AsyncIterator[None]:
    """Idle connections first, then all the rest, for as long as the block takes."""
    before = rss_bytes(pid)
    idle = options.idle
    await abuse.open_idle(idle)
    await asyncio.sleep(SETTLE_SECONDS)
    held = rss_bytes(pid) - before
    report.add("idle", "connections", idle)
    report.add("idle", "router_bytes", held)
    report.add("idle", "bytes_a_connection", held / max(1, idle), "", BYTES_A_CONNECTION)
    abuse.start(options.each, options.kinds)
    try:
        yield
    finally:
        await abuse.stop()


def tell(report: Report, section: str, answers: list[Answered], cpu: float) -> None:
    """Streams of one phase."""
    ttft = [answer.ttft_seconds for answer in answers if answer.ttft_seconds is not None]
    reasons = ", ".join(sorted({answer.reason for answer in answers if not answer.complete}))
    report.add(section, "streams", len(answers))
    report.add(section, "failed", sum(not answer.complete for answer in answers), reasons[:60], 0)
    report.add(section, "ttft_p50_ms", percentile_ms(ttft, 0.5), "a step of the pods takes 500 ms")
    report.add(section, "ttft_p99_ms", percentile_ms(ttft, 0.99))
    report.add(section, "router_cpu_seconds", cpu)


async def measure(report: Report, options: argparse.Namespace, port: int, pid: int) -> None:
    """Alone, then beside all the others."""
    shape = Shape(options.streams, 20, TOKENS_PER_SECOND, options.seconds)
    cpu = cpu_seconds(pid)
    tell(report, "alone", await drive_all([port], shape.schedule(Random(1)), 0), cpu_seconds(pid) - cpu)
    report.add("alone", "router_rss_bytes", rss_bytes(pid))
    abuse = Abuse(port)
    async with abused(report, abuse, pid, options):
        cpu = cpu_seconds(pid)
        answers = await drive_all([port], shape.schedule(Random(2)), 100_000)
        tell(report, "beside", answers, cpu_seconds(pid) - cpu)
        still_idle = sum(not writer.transport.is_closing() for writer in abuse.idle)
        report.add("beside", "idle_still_open", still_idle, "idle ones end after 75 s")
    report.add("beside", "router_peak_bytes", rss_bytes(pid, "VmHWM"), "", PEAK_BYTES)
    for kind, count in sorted(abuse.ended.items()):
        report.add("ended", kind, count, "connections, each opened again after 0.5 s")
    await asyncio.sleep(2)
    after = await drive_all([port], Shape(20, 5, TOKENS_PER_SECOND, 2).schedule(Random(3)), 200_000)
    report.add("after", "failed", sum(not answer.complete for answer in after), "", 0)
    report.add("after", "router_rss_bytes", rss_bytes(pid))


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./tests/run bench connections", description=__doc__)
    parser.add_argument("--idle", type=int, default=10_000, help="connections that say nothing (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=1000, help="active ones (default: %(default)s)")
    parser.add_argument("--each", type=int, default=100, help="of each kind of abuse (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of abuse (default: all)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of new streams a phase (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Exit code 3 when a limit was missed."""
    options = parse(argv)
    report = Report("connections")
    raise_file_limit()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pods = Pods(Path(folder), 2, TOKENS_PER_SECOND)
        for index, ports in enumerate(pods.ports):
            ready = f"http://127.0.0.1:{ports[3]}/readyz"
            stack.enter_context(running(pods.command(index), ready, pods.folder / f"pod-{index}.log"))
        port, metrics_port = free_ports(2)
        ready = f"http://127.0.0.1:{metrics_port}/readyz"
        router = stack.enter_context(
            running(pods.router_command(port, metrics_port), ready, pods.folder / "router.log")
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(report, options, port, router.pid))
    report.finish()
    return MISSED if report.as_dict()["missed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
