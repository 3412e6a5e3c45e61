"""Processor time of one decision of the scaling law: largest, busy and idle fleet; cores for a thousand fleets."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from random import Random
from typing import Any

import msgspec
from tandem_operator.scaling.decide import decide
from tandem_operator.scaling.law import Law
from tandem_operator.scaling.observation import (
    SLACK_EDGES_S,
    ClassCounters,
    Iteration,
    Observation,
    Pod,
    PodSignals,
    QueueNow,
    Role,
    RouterSignals,
)
from tandem_operator.scaling.settings import Objective, PoolSettings, Settings
from tandem_operator.scaling.state import State
from tandem_runtime.contracts.coefficients import read_coefficients

from tests.bench.report import MISSED, Report

CLASSES = ("interactive", "batch", "agents")
BUSY_FLEETS, IDLE_FLEETS = 100, 900
LIMIT_MS, LIMIT_CORES = 5.0, 1.0


class Fleet:
    """Signals of a fleet that serves `rate` requests/s, look after look: all that a decision reads."""

    def __init__(self, prefill: int, decode: int, routers: int, rate: float, seed: int = 1) -> None:
        self._pods = [("prefill", i) for i in range(prefill)] + [("decode", i) for i in range(decode)]
        self._routers, self._rate, self._random = routers, rate, Random(seed)
        self._counts = [dict.fromkeys(CLASSES, ClassCounters()) for _ in range(routers)]
        self._looks = 0

    def look(self, now: float, seconds: float) -> Observation:
        """What is seen at `now`, `seconds` after the last look."""
        self._looks += 1
        routers = tuple(self._router(index, now, seconds) for index in range(self._routers))
        pods = tuple(self._pod("prefill" if role == "prefill" else "decode", index, now) for role, index in self._pods)
        return Observation(routers=routers, routers_expected=self._routers, pods=pods, pods_at=now)

    def _router(self, index: int, now: float, seconds: float) -> RouterSignals:
        counts = self._counts[index]
        for name in CLASSES:
            mean = self._rate * seconds / self._routers / len(CLASSES)
            count = max(round(self._random.gauss(mean, mean**0.5)), 0)
            old, prompt, output = counts[name], self._random.randint(500, 1500), self._random.randint(100, 300)
            counts[name] = ClassCounters(
                arrivals=old.arrivals + count,
                prompt_tokens=old.prompt_tokens + count * prompt,
                prompt_tokens_squared=old.prompt_tokens_squared + 2.0 * count * prompt**2,
                cached_tokens=old.cached_tokens + count * prompt // 5,
                completed=old.completed + count,
                output_tokens=old.output_tokens + count * output,
                output_tokens_squared=old.output_tokens_squared + 2.0 * count * output**2,
                met=old.met + count,
            )
        waiting = tuple(self._random.randint(0, 3) for _ in range(len(SLACK_EDGES_S) + 1))
        queue = QueueNow(requests=sum(waiting), tokens=sum(waiting) * 1000, slack_requests=waiting)
        return RouterSignals(router=f"r{index}", incarnation="a", at=now, classes=dict(counts), queue=queue)

    def _pod(self, role: Role, index: int, now: float) -> Pod:
        running = self._random.randint(0, 200) if role == "decode" and self._rate else 0
        steps = tuple(self._iteration(role) for _ in range(32)) if self._rate else ()
        signals = PodSignals(
            at=now,
            incarnation="a",
            running=running,
            kv_used_tokens=running * 1100,
            kv_total_tokens=400_000,
            max_sequences=256,
            iterations=steps,
            iterations_total=32 * self._looks,
        )
        return Pod(name=f"{role}-{index}", role=role, created=0.0, scheduled=1.0, ready_since=50.0, signals=signals)

    def _iteration(self, role: Role) -> Iteration:
        if role == "prefill":
            tokens = self._random.randint(500, 8000)
            return Iteration(0, 0, tokens, (0.004 + 3.6e-5 * tokens) * self._random.gauss(1, 0.03))
        running = self._random.randint(50, 250)
        seconds = (0.0078 + 2e-5 * running + 5.6e-8 * running * 1100) * self._random.gauss(1, 0.03)
        return Iteration(running, running * 1100, 0, seconds)


def settings() -> Settings:
    """64 of each at most, a budget that binds, three classes."""
    pool = PoolSettings(coefficients=read_coefficients("h100-sxm"), max_replicas=64)
    objectives = tuple(Objective(name=name, ttft_base_s=2.0 + 8 * index) for index, name in enumerate(CLASSES))
    return Settings(prefill=pool, decode=pool, objectives=objectives, budget_gpus=100)


def measure(fleet: Fleet, period_s: float, looks: int) -> tuple[list[float], float, int]:
    """Seconds of each decision, mean seconds to encode what must be kept of one, bytes of the state."""
    chosen, state, now, taken, encoding = settings(), State(), 1000.0, [], 0.0
    size = 0
    for look in range(looks + WARM_UP):
        now += period_s
        observation = fleet.look(now, period_s)
        started = time.thread_time()
        decision = decide(chosen, state, observation, now)
        ended = time.thread_time()
        state = decision.state
        size = len(msgspec.json.encode((state, decision.targets, decision.explanation)))
        if look >= WARM_UP:
            taken.append(ended - started)
            encoding += time.thread_time() - ended
    return taken, encoding / looks, size


WARM_UP = 50
"""Looks until all windows are full."""


class DecideReport(Report):
    """The figures that the project asks for stand at the top of the JSON object too."""

    headline: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {**super().as_dict(), **self.headline}


def main(argv: list[str]) -> int:
    """Exit code 1 when a figure is above what is asked for."""
    parser = argparse.ArgumentParser(prog="./tests/run bench decide", description=__doc__)
    parser.add_argument("--looks", type=int, default=300, help="decisions that are timed, of each fleet")
    options = parser.parse_args(argv)
    law, report = Law(), DecideReport("decide")
    p50: dict[str, float] = {}
    keep: dict[str, float] = {}
    fleets = {
        "64x64": Fleet(64, 64, 3, 4000.0),
        "busy": Fleet(8, 6, 1, 120.0),
        "idle": Fleet(1, 1, 1, 0.0),
    }
    for name, fleet in fleets.items():
        taken, keep[name], size = measure(fleet, law.idle_s if name == "idle" else law.busy_s, options.looks)
        p50[name] = statistics.median(taken)
        limit = LIMIT_MS if name == "64x64" else None
        report.add(name, f"decide_{name}_p50_ms", 1000 * p50[name], at_most=limit)
        report.add(name, f"decide_{name}_p99_ms", 1000 * statistics.quantiles(taken, n=100)[98])
        report.add(name, "encode_ms", 1000 * keep[name], "state, targets and explanation as JSON")
        report.add(name, "state_bytes", size)
    cores = BUSY_FLEETS / law.busy_s * (p50["busy"] + keep["busy"])
    cores += IDLE_FLEETS / law.idle_s * (p50["idle"] + keep["idle"])
    note = f"{BUSY_FLEETS} busy fleets every {law.busy_s:g} s, {IDLE_FLEETS} idle ones every {law.idle_s:g} s"
    report.add("a thousand fleets", "cores_for_1000", cores, note, at_most=LIMIT_CORES)
    report.headline = {"decide_64x64_p50_ms": 1000 * p50["64x64"], "cores_for_1000": cores}
    report.finish()
    return MISSED if report.as_dict()["missed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
