"""The lanes of e2e: every file of cases runs, once."""

from __future__ import annotations

from e2e.lanes import CASES, SIDE_BY_SIDE, alone


def test_every_file_of_cases_is_in_one_lane_and_one_that_nobody_thought_of_runs_alone() -> None:
    sorted_in = [name for names in SIDE_BY_SIDE.values() for name in names]
    there = {path.stem for path in CASES.glob("test_*.py")}
    assert sorted([*sorted_in, *alone()]) == sorted(there)
    assert {"test_nodes", "test_restarts", "test_devices"} <= set(alone()), "they take nodes, operator or devices away"
