"""Settings of a rival's formula searched field by field on the training part, as a careful user of it would."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from tandem_operator.simulation.baselines.catalogue import BASELINES, tuned
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Scenario
from tandem_operator.simulation.scenarios import scenario, training

from tests.bench.contest.rows import GOAL

PARTS: Final = ("S2", "S4")
"""Their first 30% is not reported: a slow wave, and short bursts."""
Point = dict[str, object]
Score = tuple[float, float]
"""Attainment up to the goal, then GPU-hours with the sign turned: larger is better."""


def search(name: str, quick: bool, traces: Path | None, said: Callable[[str], None]) -> Point:
    """The best point found. The order of the queue is searched too: a rival may have our router."""
    formula = BASELINES[name]
    grid = {"discipline": ("fifo", "deadline"), **formula.grid}
    parts = [training(scenario(part, quick, traces)) for part in PARTS]
    best: Point = {}
    best_score = score(name, best, parts)
    said(f"{name} at its defaults: {_written(best_score)}")
    for field, values in grid.items():
        for value in values:
            point = {**best, field: value}
            if value == getattr(tuned(formula, best), field):
                continue
            found = score(name, point, parts)
            said(f"{name} {field}={value}: {_written(found)}")
            if found > best_score:
                best, best_score = point, found
    return best


def score(name: str, point: Point, parts: list[Scenario]) -> Score:
    """Mean attainment over the parts, and their GPU-hours."""
    gc.disable()
    policy = replace(tuned(BASELINES[name], point), name=name)
    outcomes = [simulate(part, policy, 0) for part in parts]
    gc.enable()
    gc.collect()
    return sum(min(one.attainment, GOAL) for one in outcomes) / len(outcomes), -sum(one.gpu_h for one in outcomes)


def _written(found: Score) -> str:
    return f"{found[0]:.2%} (counted up to {GOAL:.0%}), {-found[1]:.1f} GPU-h"
