"""Continuous, dynamic and static batching on the same traffic: throughput, time to first token, time per token.

The emulated executor runs in virtual time on a device's coefficients, exactly repeatable; the tiny torch model in real.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tandem_runtime.contracts.coefficients import read_coefficients
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.contracts.hashing import prompt_digest
from tandem_runtime.contracts.sampling import Sampling
from tandem_runtime.engine.batching import Batching
from tandem_runtime.engine.emulated_executor import EmulatedExecutor
from tandem_runtime.engine.events import Event, Finished, Output
from tandem_runtime.engine.executor import Capacity, Executor
from tandem_runtime.engine.limits import SchedulerSettings
from tandem_runtime.engine.loop import measure
from tandem_runtime.engine.request import Request
from tandem_runtime.engine.scheduler import Scheduler

from tests.bench.report import MISSED, Report

BATCH = 16
"""Requests that run at the same time at most, whatever the batching."""
PROMISED = "continuous, TPOT promised"
"""The same, with chunks of prompts that keep the objective of whoever decodes."""
WAITS = {Batching.CONTINUOUS: 0.0, Batching.DYNAMIC: 0.05, Batching.STATIC: 2.0}
"""How long an incomplete batch waits for more requests."""


@dataclass(slots=True)
class Arrival:
    """One request of the traffic."""

    at: float
    prompt: list[int]
    output_tokens: int
    first: float = 0.0
    last: float = 0.0
    produced: int = 0

    @property
    def ttft(self) -> float:
        """Seconds."""
        return self.first - self.at

    @property
    def tpot(self) -> float:
        """Seconds; 0 for one token."""
        return (self.last - self.first) / max(1, self.produced - 1)


class Clock:
    """Virtual: sleeping is what moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)

    def __call__(self) -> float:
        return self.now


@dataclass
class Traffic:
    """Poisson arrivals; lengths are of chats: some answers are ten times as long as others."""

    requests: int
    per_second: float
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    vocabulary: int = 200
    seed: int = 1
    arrivals: list[Arrival] = field(default_factory=list)

    def make(self) -> list[Arrival]:
        """The same every time."""
        random, now = Random(self.seed), 0.0
        found = []
        for _ in range(self.requests):
            now += random.expovariate(self.per_second)
            prompt = [random.randrange(3, self.vocabulary) for _ in range(random.randint(*self.prompt_tokens))]
            low, high = self.output_tokens
            found.append(Arrival(now, prompt, int(low * (high / low) ** random.random())))
        return found


def serve(
    executor: Executor,
    capacity: Capacity,
    arrivals: list[Arrival],
    settings: SchedulerSettings,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> float:
    """Runs all arrivals to their end; returns the seconds it took. As the engine's thread does, without the thread."""
    events: list[Event] = []
    scheduler = Scheduler(capacity, settings, events.append)
    started, todo = clock(), list(arrivals)
    base, left = started, len(arrivals)
    while left:
        now = clock()
        while todo and base + todo[0].at <= now:
            arrival = todo.pop(0)
            handle = len(arrivals) - len(todo)
            sampling = Sampling(arrival.output_tokens, ignore_eos=True)
            digest = prompt_digest(arrival.prompt)
            scheduler.add(Request(handle, list(arrival.prompt), len(arrival.prompt), sampling, now + 1e6, digest), now)
        work = scheduler.plan(now)
        if not work:
            ahead = min(scheduler.next_deadline(), base + todo[0].at if todo else float("inf"))
            sleep(max(1e-4, ahead - now))
            continue
        result = executor.execute(scheduler.steps(work))
        step = measure(work, result.seconds)
        scheduler.estimate.learn(step.n, step.kv_tokens, step.prefill_tokens, step.prefill_attended, step.seconds)
        scheduler.apply(work, result, clock())
        now = clock() - base
        for event in events:
            arrival = arrivals[event.handle - 1]
            if isinstance(event, Output):
                arrival.produced += len(event.ids)
                arrival.last = now
                arrival.first = arrival.first or now
            left -= isinstance(event, Finished)
        events.clear()
    assert scheduler.leaked_pages() == 0
    return clock() - started


def percentile(values: list[float], share: float) -> float:
    """By rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def tell(report: Report, section: str, arrivals: list[Arrival], seconds: float, slo: SloClass) -> dict[str, float]:
    """The figures of one run."""
    met = sum(a.ttft <= slo.ttft_bound_s(len(a.prompt)) and a.tpot <= slo.tpot_s for a in arrivals)
    figures = {
        "output_tokens_per_s": sum(a.produced for a in arrivals) / seconds,
        "ttft_p50_seconds": percentile([a.ttft for a in arrivals], 0.5),
        "ttft_p99_seconds": percentile([a.ttft for a in arrivals], 0.99),
        "tpot_p50_seconds": percentile([a.tpot for a in arrivals], 0.5),
        "tpot_p99_seconds": percentile([a.tpot for a in arrivals], 0.99),
        "tpot_kept_share": sum(a.tpot <= slo.tpot_s for a in arrivals) / len(arrivals),
        "met_share": met / len(arrivals),
    }
    for key, value in figures.items():
        note = f"TPOT <= {slo.tpot_s:g} s" if key.endswith("_share") else ""
        report.add(section, key, value, note)
    return figures


def settings_of(step_tokens: int, tpot_s: float) -> dict[str, SchedulerSettings]:
    """One scheduler, four settings."""
    found = {
        str(batching): SchedulerSettings(
            step_tokens, batching=batching, batch_requests=BATCH, batch_wait_seconds=WAITS[batching]
        )
        for batching in Batching
    }
    return found | {PROMISED: SchedulerSettings(step_tokens, tpot_seconds=tpot_s)}


def run_emulated(report: Report, name: str, label: str, traffic: Traffic, slo: SloClass) -> None:
    """One device, in virtual time."""
    found = {}
    for way, settings in settings_of(2048, slo.tpot_s).items():
        clock = Clock()
        executor = EmulatedExecutor(read_coefficients(name), sleep=clock.sleep, clock=clock)
        arrivals = traffic.make()
        capacity = replace(executor.load(), max_sequences=BATCH)
        seconds = serve(executor, capacity, arrivals, settings, clock, clock.sleep)
        found[way] = tell(report, f"{name} {label}, {way}", arrivals, seconds, slo)
    add_ratios(report, f"{name} {label}", found)


def run_torch(report: Report, folder: Path, requests: int, rounds: int) -> None:
    """The sample model in real time, all settings interleaved; the best round of each."""
    from tandem_runtime.engine.torch_executor import TorchExecutor

    executor = TorchExecutor(folder)
    capacity = replace(executor.load(), max_sequences=BATCH)
    traffic = Traffic(requests, 40.0, (16, 200), (8, 96))
    slo = SloClass(ttft_base_s=0.5, tpot_s=0.05)
    best: dict[str, tuple[float, list[Arrival]]] = {}
    for _ in range(rounds):
        for way, settings in settings_of(512, slo.tpot_s).items():
            arrivals = traffic.make()
            seconds = serve(executor, capacity, arrivals, settings, time.monotonic, time.sleep)
            if way not in best or seconds < best[way][0]:
                best[way] = (seconds, arrivals)
    executor.close()
    found = {way: tell(report, f"tiny torch {way}", arrivals, took, slo) for way, (took, arrivals) in best.items()}
    add_ratios(report, "tiny_torch", found)


def add_ratios(report: Report, name: str, found: dict[str, dict[str, float]]) -> None:
    """Continuous against the others; larger is better."""
    ours = found[str(Batching.CONTINUOUS)]
    for other in (str(Batching.DYNAMIC), str(Batching.STATIC)):
        theirs = found[other]
        report.add_ratio(
            f"{name}: throughput over {other}", ours["output_tokens_per_s"] / theirs["output_tokens_per_s"]
        )
        report.add_ratio(f"{name}: TTFT p99 under {other}", theirs["ttft_p99_seconds"] / ours["ttft_p99_seconds"])
    report.add_ratio(f"{name}: TPOT p99 with a promise", ours["tpot_p99_seconds"] / found[PROMISED]["tpot_p99_seconds"])


def main(argv: list[str]) -> int:
    """Exit code 3 when continuous batching is not ahead."""
    parser = argparse.ArgumentParser(prog="./tests/run bench batching", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, without torch")
    options = parser.parse_args(argv)
    report = Report("batching")
    requests = 120 if options.quick else 300
    chat, long = ((100, 2000), (20, 400)), ((2000, 8000), (50, 400))
    for name, label, per_second, lengths, tpot_s in (
        ("laptop", "10/s", 10.0, chat, 0.008),
        ("laptop", "at once", 1000.0, chat, 0.008),
        ("h100-sxm", "4/s", 4.0, chat, 0.016),
        ("h100-sxm", "long prompts, 1/s", 1.0, long, 0.016),
        ("h100-sxm", "at once", 1000.0, chat, 0.016),
    ):
        slo = SloClass(ttft_base_s=1.0, ttft_per_thousand_tokens_s=0.2, tpot_s=tpot_s)
        run_emulated(report, name, label, Traffic(requests, per_second, *lengths), slo)
    if options.quick:
        report.leave_out("the tiny torch model", "--quick")
    else:
        from tandem_runtime.models.make_model import make_model

        with TemporaryDirectory() as folder:
            make_model(Path(folder))
            run_torch(report, Path(folder), 80, rounds=2)
    report.finish()
    behind = [r["name"] for r in report.as_dict()["ratios"] if r["ratio"] < 1.0]
    return MISSED if behind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
