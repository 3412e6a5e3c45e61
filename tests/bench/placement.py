"""How well placement predicts, chooses and keeps up: speed against published measurements of vLLM, the choice against
exhaustive search, and a cluster of 1,000 nodes planned anew."""

from __future__ import annotations

import argparse
import sys

from tests.bench.report import MISSED, Report
from tests.bench.stages.choice import measure_choice, measure_replan
from tests.bench.stages.speed import measure_speed


def main(argv: list[str]) -> int:
    """Exit code 1 when a figure is above what is asked for."""
    parser = argparse.ArgumentParser(prog="./tests/run bench placement", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 cases of the choice instead of 500")
    options = parser.parse_args(argv)
    report = Report("placement")
    measure_speed(report)
    measure_choice(report, options.quick)
    measure_replan(report)
    report.finish()
    return MISSED if report.as_dict()["missed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
