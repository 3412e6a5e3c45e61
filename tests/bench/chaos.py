"""Real processes under kill -9, SIGSTOP, cut networks, damaged KV frames, dying routers, drains: nothing may be lost.

Nor when pods change their role. `--trials` of each case on emulated pods, and a tenth as many, of all cases, on the
torch executor, deterministic.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench.chaos_parts import trials as cases
from tests.bench.chaos_parts.bank import Bank, draw_asks, emulated_executor, make_bank, torch_executor
from tests.bench.chaos_parts.cables import enter, inside, lay_bridge
from tests.bench.chaos_parts.fleet import Fleet, Network, Plan
from tests.bench.chaos_parts.processes import runtime
from tests.bench.chaos_parts.tally import COUNTS, Tally
from tests.bench.chaos_parts.trials import Case, Trial, run_trial
from tests.bench.chaos_parts.wires import FRAME_FAULTS
from tests.bench.report import MISSED, Report

TORCH_SHARE: Final = 0.1
"""Of the trials: a torch process takes seconds of processor time to start."""
DETECTION_LIMITS: Final = {"kill": 2.0, "freeze": 3.0, "cut": 3.0}
"""Seconds, by the first word of a case's name: what the project asks for."""
HORIZON_SECONDS: Final = (0.8, 1.6)
"""After the requests: they are in prefill that long, and under way that long; when faults of such pods come."""


@dataclass(frozen=True, slots=True)
class Work:
    """One case with a victim of one role."""

    name: str
    case: Case
    role: str


def all_work() -> list[Work]:
    """Every case, those that take long first."""
    roles = ("prefill", "decode")
    return [
        *(Work(f"freeze {role}", cases.freeze, role) for role in roles),
        *(Work(f"cut {role}", cases.cut, role) for role in roles),
        *(Work(f"sigterm {role}", cases.terminate, role) for role in roles),
        Work("sigterm all decode", cases.terminate_all, "decode"),
        *(Work(f"role of {role}", cases.flip, role) for role in roles),
        *(Work(f"kill {role}", cases.kill, role) for role in roles),
        Work("kill router", cases.kill_router, "router"),
        Work("freeze router", cases.freeze_router, "router"),
        Work("sigterm router", cases.terminate_router, "router"),
        *(Work(f"{fault} frames", partial(cases.damage_frames, fault), "prefill") for fault in FRAME_FAULTS),
    ]


class Lane:
    """One fleet that takes trials from a queue until it is empty."""

    def __init__(self, fleet: Fleet, bank: Bank, queue: deque[Work], horizon_seconds: tuple[float, float]) -> None:
        self.tallies: dict[str, Tally] = {}
        self._fleet, self._bank, self._queue, self._horizon_seconds = fleet, bank, queue, horizon_seconds

    async def run(self) -> None:
        """A trial that raises counts as hung, and the fleet is made anew."""
        random = self._fleet.random
        began = time.monotonic()
        try:
            await self._fleet.start()
            print(
                f"... {self._fleet.plan.name} stands after {time.monotonic() - began:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            while self._queue:
                work = self._queue.popleft()
                members = self._fleet.routers if work.role == "router" else self._fleet.role(work.role)
                trial = Trial(self._fleet, self._bank, random, Tally(), self._horizon_seconds)
                try:
                    await run_trial(trial, work.case, random.choice(members))
                except Exception as error:
                    trial.tally.trials += 1
                    trial.tally.counts["hung"] += 1
                    trial.tally.problems.append(f"hung: {type(error).__name__}: {error}")
                    traceback.print_exc()
                    await self._fleet.restart()
                self._tell(work, trial.tally)
                self.tallies.setdefault(work.name, Tally()).add(trial.tally)
        finally:
            await self._fleet.close()

    def _tell(self, work: Work, tally: Tally) -> None:
        tell(f"{self._fleet.plan.name}: {work.name}, {len(self._queue)} trials left")
        for problem in [*tally.problems, *tally.notes]:
            tell(f"{self._fleet.plan.name}: {work.name}: {problem}")


def tell(words: str) -> None:
    """What goes on, for those who wait."""
    print(f"... {words}", file=sys.stderr, flush=True)


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, Tally]:
    """Tallies by case, emulated and torch together."""
    random = Random(args.seed)
    network: Network = "cables" if inside() else "wires"
    if inside():
        lay_bridge()
    names = [work for work in all_work() if args.only in work.name]
    lanes: list[Lane] = []
    if args.executor in ("emulated", "all"):
        executor = emulated_executor(folder)
        bank = await make_bank(executor, folder, draw_asks(random, 24, (150, 600), (50, 80)))
        queue = deque(work for _ in range(args.trials) for work in names)
        for number in range(args.lanes):
            shared = ("--kv-shared-memory", str(folder)) if number % 2 else ()  # every second fleet: both transports
            plan = Plan(f"e{number}", number, (*executor, *shared), network)
            fleet = Fleet(plan, folder / f"e{number}", Random(random.random()))
            lanes.append(Lane(fleet, bank, queue, HORIZON_SECONDS))
    if args.executor in ("torch", "all"):
        executor = torch_executor(folder / "model")
        bank = await make_bank(executor, folder, draw_asks(random, 10, (100, 600), (20, 40)))
        works = [work for _ in range(args.trials) for work in names]
        if args.executor == "all":
            works = random.sample(works, max(1, round(len(works) * TORCH_SHARE)))
        queue = deque(works)
        fleet = Fleet(Plan("torch", args.lanes, executor, network), folder / "torch", Random(random.random()))
        lanes.append(Lane(fleet, bank, queue, HORIZON_SECONDS))
    await asyncio.gather(*(lane.run() for lane in lanes))
    sums: dict[str, Tally] = {work.name: Tally() for work in names}
    for lane in lanes:
        for name, tally in lane.tallies.items():
            sums[name].add(tally)
    return sums


def write(report: Report, sums: dict[str, Tally]) -> None:
    """Times by kind of fault; the counts of all together, which must be 0, and of each case for programs."""
    for word in dict.fromkeys(name.split()[0] for name in sums):
        kind = Tally()
        for name, tally in sums.items():
            if name.split()[0] == word:
                kind.add(tally)
        for key, value in kind.times_as_dict().items():
            limit = DETECTION_LIMITS.get(word) if key.startswith("detection") else None
            report.add(word, key, value, at_most=limit)
    for key in COUNTS:
        total = sum(tally.counts[key] for tally in sums.values())
        report.add("all cases", key, total, at_most=0)
        report.tell(key, total)
    report.tell("cases", {name: tally.as_dict() for name, tally in sums.items()})


def print_cases(sums: dict[str, Tally]) -> None:
    """One line for each case."""
    table = Table(title="trials, streams in them, and what went wrong")
    for heading in ("case", "trials", "streams", *COUNTS, "detection p50, max", "pause p50, max", "also"):
        table.add_column(heading, justify="left" if heading in ("case", "also") else "right")
    for name, tally in sums.items():
        counts = [str(tally.counts[key]) for key in COUNTS]
        times = [tally.span(key) for key in ("detection", "pause")]
        also = ", ".join(f"{count} {fact.replace('_', ' ')}" for fact, count in tally.facts.items())
        bad = "red" if tally.problems else None
        table.add_row(name, str(tally.trials), str(tally.streams), *counts, *times, also, style=bad)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def problems_of(sums: dict[str, Tally]) -> Iterator[str]:
    """All of them."""
    for name, tally in sums.items():
        yield from (f"{name}: {problem}" for problem in tally.problems)


def main(arguments: list[str]) -> int:
    """0; 1 when anything hung, was wrong, lost or leaked; 3 when only a time limit was missed."""
    parser = argparse.ArgumentParser(prog="./tests/run bench chaos", description=__doc__)
    parser.add_argument("--trials", type=int, default=5, metavar="N", help="of each case (default: 5)")
    parser.add_argument("--lanes", type=int, default=6, metavar="N", help="emulated fleets side by side (default: 6)")
    parser.add_argument("--executor", choices=("emulated", "torch", "all"), default="all")
    parser.add_argument("--only", default="", metavar="WORDS", help="cases whose name contains this")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--proxy", action="store_true", help="cut networks by proxies in any case")
    args = parser.parse_args(arguments)
    if not args.proxy:
        enter()
    report = Report("chaos")
    started = time.monotonic()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(runtime("make-model", f"{folder}/model"), check=True, stdout=subprocess.DEVNULL)
        sums = asyncio.run(measure(args, Path(folder)))
    write(report, sums)
    network = "veth cables of network namespaces, unplugged" if inside() else "proxies that swallow every byte"
    report.add("run", "took_seconds", time.monotonic() - started, f"load before {load:.1f}; cuts by {network}")
    print_cases(sums)
    report.finish()
    bad = list(problems_of(sums))
    for problem in bad:
        print(problem, file=sys.stderr)
    missed = report.as_dict()["missed"]
    return 1 if bad else MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
