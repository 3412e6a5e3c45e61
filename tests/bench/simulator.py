"""How long the simulator takes for an hour of a fleet, on one core."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.baselines.static import Static
from tandem_operator.simulation.lengths import CHAT
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenarios import scenario
from tandem_operator.simulation.tandem import Tandem
from tandem_operator.simulation.workload import Synthetic

from tests.bench.contest.compiled import compiled_tree
from tests.bench.report import Report

LIMIT_SECONDS = 30.0
PREFILL, DECODE, RATE = 11, 9, 30.0
ADDITIONS = 5_000_000


def measure(report: Report, name: str, seconds: float, limit: float | None) -> None:
    """An hour of 20 pods at 30 requests per second; CPU seconds, as the machine may be busy with other work."""
    workload = Synthetic(Steps(((0.0, RATE),)), CHAT, seconds)
    made = replace(scenario("constant"), workload=workload, prefill_start=PREFILL, decode_start=DECODE)
    policy = Static(prefill=PREFILL, decode=DECODE) if name == "20 pods" else Tandem()
    started = time.process_time()
    outcome = simulate(made, policy, 0)
    taken = time.process_time() - started
    note = f"{outcome.arrivals} requests in {seconds:g} s of virtual time"
    report.add(name, "hour_seconds", taken * 3600 / seconds, note, at_most=limit)
    report.add(name, "per_request_us", 1e6 * taken / outcome.arrivals)
    report.add(name, "times_faster_than_real", seconds / taken)


def additions_per_second() -> float:
    """What one core does of the simplest there is, so that figures of two machines can be compared."""
    started, total = time.process_time(), 0
    for value in range(ADDITIONS):
        total += value
    return ADDITIONS / (time.process_time() - started)


def again_compiled(argv: list[str]) -> int:
    """The same in a process that finds the compiled modules first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem/compiled"
    tree = compiled_tree(cache, lambda text: print(text, file=sys.stderr))
    if tree is None:
        return 2
    path = os.pathsep.join(one for one in (str(tree), os.environ.get("PYTHONPATH", "")) if one)
    command = (sys.executable, "-m", "tests.bench.simulator", *argv)
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def main(argv: list[str]) -> int:
    """Exit code 1 when a figure is above what is asked for, 2 when it cannot be compiled."""
    parser = argparse.ArgumentParser(prog="./tests/run bench simulator", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten minutes of virtual time instead of an hour")
    parser.add_argument("--compiled", action="store_true", help="through mypyc, as the benchmark autoscaler does it")
    options = parser.parse_args(argv)
    if options.compiled:
        return again_compiled([one for one in argv if one != "--compiled"])
    seconds = 600.0 if options.quick else 3600.0
    report = Report("simulator")
    measure(report, "20 pods", seconds, LIMIT_SECONDS)
    measure(report, "scaled by the law", seconds, None)
    report.add("this machine", "additions_per_second", additions_per_second(), "of Python integers, in a loop")
    report.finish()
    return 1 if report.as_dict()["missed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
