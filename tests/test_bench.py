"""A benchmark's output can be read by people and by programs: a table, then one line of JSON."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.report import Report, describe_machine, show
from tests.bench.stages.processes import child_memory


def test_the_last_line_is_json_with_every_figure_and_what_was_left_out() -> None:
    report = Report("x", {"cores": 2})
    report.add("a", "ready_seconds", 1.23456789, at_most=1.0)
    report.add("a", "rss_bytes", 5e6, at_most=6e6)
    report.add_ratio("ours against theirs", 1.5, limit_fraction=0.8)
    report.leave_out("pods", "no cluster [here]")
    out = io.StringIO()
    report.finish(Console(file=out, width=120))
    *table, last = out.getvalue().splitlines()
    assert json.loads(last) == {
        "benchmark": "x",
        "machine": {"cores": 2},
        "figures": {"a": {"ready_seconds": 1.23456789, "rss_bytes": 5e6}},
        "ratios": [{"name": "ours against theirs", "ratio": 1.5, "limit_fraction": 0.8}],
        "missed": ["a.ready_seconds"],
        "left_out": [{"what": "pods", "why": "no cluster [here]"}],
    }
    text = "\n".join(table)
    for words in ("1.23 s", "5.0 MB", "1.50x", "80% of the limit", "left out: pods (no cluster [here])"):
        assert words in text


@pytest.mark.parametrize(
    ("key", "value", "want"),
    [("x_seconds", 0.0123, "12.3 ms"), ("x_seconds", 12, "12.00 s"), ("x_bytes", 8e7, "80.0 MB"), ("pods", 3, "3")],
)
def test_figures_are_shown_in_the_unit_of_their_name(key: str, value: float, want: str) -> None:
    assert show(key, value) == want


def test_a_machine_is_described_also_where_proc_says_nothing(tmp_path: Path) -> None:
    assert describe_machine(tmp_path)["memory_gib"] == 0
    assert describe_machine()["cores"] == len(os.sched_getaffinity(0))


def test_memory_is_read_of_the_children_that_have_a_role(tmp_path: Path) -> None:
    (tmp_path / "1/task/1").mkdir(parents=True)
    (tmp_path / "1/task/1/children").write_text("2 3")
    for pid, command in (("2", "python\0-m\0tandem_runtime\0router\0"), ("3", "sleep\0001\0")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_text(command)
        (tmp_path / pid / "status").write_text("Name:\tx\nVmRSS:\t  45 kB\n")
    assert child_memory(1, tmp_path) == {"router": 45 * 1024}
