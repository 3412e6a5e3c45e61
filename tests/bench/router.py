"""What a router adds to the first token, and how many chunks it moves per second of CPU: ours and its peers.

The same emulated `both` pods behind each, the same open-loop streams, one router at a time in turns. CPU is that of
the router's process; TTFT is what the way there and back takes: the pods' own share is taken off, request by request.
What a router adds to a percentile is that percentile less the one without a router: load generator, pods and router
share the cores, so the direct way has a tail too, which no router adds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import uvloop

from tests.bench.report import MISSED, Report
from tests.bench.routers.client import SETTLED_SECONDS, Shape, Window, drive_all, drive_window
from tests.bench.routers.fleet import Pods, cpu_seconds, free_ports, running
from tests.bench.routers.peers import PEERS, Peer, PeerMissing, install, version

OURS = "tandem"
DIRECT = "direct"
TTFT_LIMIT_MS = 5.0
PYTHON = os.environ.get("TANDEM_BENCH_PYTHON", sys.executable)
"""Of our router: interpreters differ by a third with how they were built, and images carry an optimised one."""
OVER_RUST, OVER_PYTHON = 1.5, 3.0


@dataclass
class Tally:
    """Of one way to the pods, over all rounds."""

    cpu_seconds: float = 0.0
    tokens: int = 0
    due_tokens: float = 0.0
    failed: int = 0
    reasons: set[str] = field(default_factory=set)
    ttft: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    """TTFT less the time in the pod."""

    def add(self, window: Window, inside: dict[int, float]) -> None:
        """One round."""
        answers = window.answers
        self.cpu_seconds += window.cpu_seconds
        self.tokens += window.tokens
        self.failed += sum(not answer.complete for answer in answers)
        self.reasons |= {answer.reason for answer in answers if not answer.complete}
        for answer in answers:
            if answer.ttft_seconds is not None and answer.number in inside:
                self.ttft.append(answer.ttft_seconds)
                self.outside.append(answer.ttft_seconds - inside[answer.number])

    @property
    def chunks_per_core_s(self) -> float:
        """Each token is one chunk."""
        return self.tokens / self.cpu_seconds if self.cpu_seconds else 0.0


@contextmanager
def way_to(name: str, pods: Pods) -> Iterator[tuple[list[int], int | None]]:
    """Ports, and pid of the router in between, if any."""
    port, metrics_port = free_ports(2)
    if name == DIRECT:
        yield [ports[0] for ports in pods.ports], None
        return
    if name == OURS:
        command, ready = pods.router_command(port, metrics_port, PYTHON), f"http://127.0.0.1:{metrics_port}/readyz"
    else:
        command = PEERS[name].command(install(PEERS[name]), pods.folder, port, metrics_port, pods.urls)
        ready = f"http://127.0.0.1:{port}/v1/models"
    with running(command, ready, pods.folder / f"{name}.log") as process:
        yield [port], process.pid


def measure(name: str, pods: Pods, shape: Shape, tally: Tally, number: int) -> int:
    """One round of one way; returns the next free request number."""
    schedule = shape.schedule(Random(number))
    with way_to(name, pods) as (ports, pid), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        warm = Shape(4, 20, shape.tokens_per_second, 1.0).schedule(Random(1))
        runner.run(drive_all(ports, warm, number))
        number += len(warm)
        seconds = shape.seconds - SETTLED_SECONDS
        window = runner.run(drive_window(ports, schedule, number, seconds, lambda: cpu_seconds(pid) if pid else 0.0))
    tally.add(window, pods.inside_seconds())
    tally.due_tokens += shape.streams * shape.tokens_per_second * seconds
    return number + len(schedule)


def percentile_ms(values: list[float], share: float) -> float:
    """0 of nothing."""
    return 1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def tell(report: Report, tallies: dict[str, Tally]) -> None:
    """Figures of each way, and the ratios."""
    direct = tallies[DIRECT].outside
    for name, tally in tallies.items():
        limit = TTFT_LIMIT_MS if name == OURS else None
        for share, most in ((0.5, None), (0.99, limit)):
            outside, label = percentile_ms(tally.outside, share), f"p{100 * share:.0f}"
            if name != DIRECT:
                added = outside - percentile_ms(direct, share)
                report.add(name, f"added_ttft_{label}_ms", added, f"of {len(tally.outside)} requests", most)
            report.add(name, f"outside_ttft_{label}_ms", outside, "on the way there and back")
        share = tally.tokens / tally.due_tokens if tally.due_tokens else 0.0
        report.add(name, "served_share", share, "of the tokens that were due; below 0.95 the machine is overloaded")
        report.add(name, "ttft_p50_ms", percentile_ms(tally.ttft, 0.5), "with the pod's own share")
        report.add(name, "ttft_p99_ms", percentile_ms(tally.ttft, 0.99))
        if name != DIRECT:
            note = f"{tally.tokens} chunks in {tally.cpu_seconds:.2f} s of CPU"
            report.add(name, "chunks_per_core_s", tally.chunks_per_core_s, note)
        said = ", ".join(sorted(tally.reasons))[:60]
        report.add(name, "failed", tally.failed, said, 0 if name in (OURS, DIRECT) else None)
    report.tell("missed_ratios", [*compare(report, tallies)])


def compare(report: Report, tallies: dict[str, Tally]) -> Iterator[str]:
    """Adds the ratios; what falls short of its limit is told."""
    ours = tallies[OURS]
    for name, tally in tallies.items():
        if name not in PEERS or not tally.tokens:
            continue
        at_least = OVER_RUST if PEERS[name].kind == "Rust" else OVER_PYTHON
        more = ours.chunks_per_core_s / tally.chunks_per_core_s
        sooner = percentile_ms(tally.outside, 0.99) / percentile_ms(ours.outside, 0.99)
        for what, ratio, limit in (("chunks_per_core_s", more, at_least), ("outside_ttft_p99", sooner, 1.0)):
            report.add_ratio(f"{what} over {name} ({PEERS[name].kind}), at least {limit:g}", ratio)
            if ratio < limit:
                yield f"{what} over {name}: {ratio:.2f}, at least {limit:g}"


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./tests/run bench router", description=__doc__)
    parser.add_argument("--streams", type=int, default=200, help="open at a time (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=400, help="of one answer (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="tokens per second of a stream (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of one round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="in turns over all routers (default: %(default)s)")
    parser.add_argument("--pods", type=int, default=2, help="emulated pods (default: %(default)s)")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), help="to compare")
    return parser.parse_args(argv)


def usable(peers: list[str], report: Report) -> list[Peer]:
    """Those that can be installed; the others are reported."""
    found = []
    for name in peers:
        try:
            print(f"... {name} {version(PEERS[name], install(PEERS[name]))}", file=sys.stderr, flush=True)
            found.append(PEERS[name])
        except PeerMissing as error:
            report.leave_out(name, str(error))
    return found


def main(argv: list[str]) -> int:
    """Exit code 3 when a limit was missed."""
    options = parse(argv)
    report = Report("router")
    names = [DIRECT, OURS, *[peer.name for peer in usable(options.peers, report)]]
    shape = Shape(options.streams, options.tokens, options.rate, options.seconds)
    tallies = {name: Tally() for name in names}
    number = 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pods = Pods(Path(folder), options.pods, options.rate)
        for index, ports in enumerate(pods.ports):
            ready = f"http://127.0.0.1:{ports[3]}/readyz"
            stack.enter_context(running(pods.command(index), ready, pods.folder / f"pod-{index}.log"))
        for round_number in range(options.rounds):
            for name in names:
                print(f"... round {round_number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
                try:
                    number = measure(name, pods, shape, tallies[name], number)
                except RuntimeError as error:
                    if name in (OURS, DIRECT):
                        raise
                    report.leave_out(f"{name}, round {round_number + 1}", str(error)[:500])
    tell(report, tallies)
    report.finish()
    told = report.as_dict()
    return MISSED if told["missed"] or told["missed_ratios"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
