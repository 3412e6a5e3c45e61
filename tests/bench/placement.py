"""How well placement predicts: the performance model against published measurements of vLLM."""

from __future__ import annotations

import argparse
import sys

from tests.bench.report import Report
from tests.bench.stages.speed import measure_speed


def main(argv: list[str]) -> int:
    """Exit code 1 when a figure is above what is asked for."""
    argparse.ArgumentParser(prog="./tests/run bench placement", description=__doc__).parse_args(argv)
    report = Report("placement")
    measure_speed(report)
    report.finish()
    return 1 if report.as_dict()["missed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
