"""The numbers that the project asks of itself, each against what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.bench.contest.rows import Row, Table


class Target(NamedTuple):
    """`at_least`: larger is better."""

    scenario: str
    what: str
    limit: float
    value: Callable[[Table], float | None]
    at_least: bool = False


class Checked(NamedTuple):
    """A target and what was measured; None: never reached or not measured."""

    target: Target
    value: float | None
    met: bool


def _own(scenario: str, key: str) -> Callable[[Table], float | None]:
    def value(table: Table) -> float | None:
        row: Row = table[scenario]["tandem"]
        found = row[key]
        return None if found is None else float(found)

    return value


def _lost(scenario: str) -> Callable[[Table], float | None]:
    """Attainment that a disturbance of S6 costs."""

    def value(table: Table) -> float | None:
        if "tandem" not in table.get("S6", {}):
            return None
        return float(table["S6"]["tandem"]["attainment"] - table[scenario]["tandem"]["attainment"])

    return value


def _own_target(scenario: str, what: str, key: str, limit: float, at_least: bool = False) -> Target:
    return Target(scenario, what, limit, _own(scenario, key), at_least)


TARGETS: Final = (
    _own_target("S6", "attainment", "attainment", 0.995, True),
    _own_target("S6", "GPU-h over O1", "gpu_h_over_o1", 1.30),
    _own_target("S6", "churn over O1", "churn_over_o1", 2.0),
    _own_target("S6", "reversals per hour", "reversals_per_h", 2.0),
    _own_target("S3", "attainment", "attainment", 0.98, True),
    _own_target("S3", "GPU-h over O1", "gpu_h_over_o1", 1.35),
    _own_target("S1", "attainment", "attainment", 0.87, True),
    _own_target("S1", "recovery s", "recovery_s", 170.0),
    _own_target("S1", "GPU-h over O1", "gpu_h_over_o1", 1.7),
    _own_target("S1-30s", "attainment", "attainment", 0.95, True),
    _own_target("S1-30s", "recovery s", "recovery_s", 60.0),
    _own_target("S1-3s", "attainment", "attainment", 0.995, True),
    _own_target("S1-3s", "recovery s", "recovery_s", 15.0),
    _own_target("S1-3s", "GPU-h over O1", "gpu_h_over_o1", 1.35),
    _own_target("S4", "goodput over O3", "goodput_over_o3", 0.85, True),
    _own_target("S7", "wrong ratio s", "wrong_ratio_s", 90.0),
    _own_target("S7", "attainment", "attainment", 0.97, True),
    _own_target("constant", "reversals per hour", "reversals_per_h", 0.0),
    Target("S6-metricloss", "attainment lost", 0.005, _lost("S6-metricloss")),
    _own_target("S6-outage", "removals while blind", "scale_downs_blind", 0.0),
    Target("S6-modelerror", "attainment lost", 0.01, _lost("S6-modelerror")),
)


def check(table: Table) -> list[Checked]:
    """Of the scenarios that were run."""
    found = []
    for target in TARGETS:
        if "tandem" not in table.get(target.scenario, {}):
            continue
        value = target.value(table)
        met = value is not None and (value >= target.limit if target.at_least else value <= target.limit + 1e-9)
        found.append(Checked(target, value, met))
    return found
