"""Every formula as a policy: within bounds, pure, replayable, and moving in the direction of its rule."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.observation import Observation
from tandem_operator.scaling.settings import Settings
from tandem_operator.simulation.baselines.catalogue import BASELINES, baseline, settings_of, tuned
from tandem_operator.simulation.baselines.formula import Formula, bound
from tandem_operator.simulation.baselines.static import Static

from tests.operator.simulation.baselines.sights import SETTINGS, sight


def drive(formula: Formula, settings: Settings = SETTINGS, ticks: int = 12, **seen: Any) -> Targets:
    """Targets after some decisions on a load that stays."""
    state = formula.initial(settings)
    targets = Targets(0, 0)
    for tick in range(1, ticks + 1):
        now = tick * formula.period_s
        decision = formula.decide(settings, state, sight(now, **seen), now)
        state, targets = decision.state, decision.targets
    return targets


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_formula_is_pure_and_its_state_survives_json(name: str) -> None:
    formula = baseline(name)
    state = formula.initial(SETTINGS)
    for tick in range(1, 8):
        now = tick * formula.period_s
        seen = sight(now, per_s=20.0, queue=30)
        first = formula.decide(SETTINGS, state, seen, now)
        read = msgspec.json.decode(msgspec.json.encode(state), type=type(state))
        again = formula.decide(SETTINGS, read, msgspec.json.decode(msgspec.json.encode(seen), type=Observation), now)
        assert first == again
        assert msgspec.json.encode(first.state) == msgspec.json.encode(again.state)
        state = first.state


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_formula_stays_within_bounds_whatever_it_sees(name: str) -> None:
    pool = msgspec.structs.replace(SETTINGS.prefill, min_replicas=2, max_replicas=5)
    settings = msgspec.structs.replace(SETTINGS, prefill=pool, decode=pool, budget_gpus=36)
    for seen in ({"per_s": 400.0, "queue": 5000, "kv": 590_000, "running": 256}, {"per_s": 0.0}, {"silent": True}):
        targets = drive(baseline(name), settings, **seen)
        assert 1 <= targets.prefill <= 5
        assert 1 <= targets.decode <= 5
        assert 4 * (targets.prefill + targets.decode) <= 36


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"throughput-regression"}))
def test_a_formula_asks_for_more_under_a_flood(name: str) -> None:
    targets = drive(baseline(name), per_s=200.0, queue=4000, kv=590_000, running=256)
    assert targets.prefill + targets.decode > 4


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_setting_of_a_grid_decides(name: str) -> None:
    for point in settings_of(baseline(name)):
        drive(tuned(baseline(name), point), ticks=2, per_s=20.0)


def test_the_planner_without_a_fast_loop_sizes_both_pools_from_completions() -> None:
    targets = drive(baseline("throughput-regression"), ticks=4, per_s=100.0)
    assert targets.prefill == 7  # 100 requests/s of 0.065 s each, at all of an engine's time
    assert targets.decode >= 2


def test_planners_read_silence_as_no_load() -> None:
    formula = baseline("profiled-rates")
    state = formula.initial(SETTINGS)
    for tick in range(1, 6):
        decision = formula.decide(SETTINGS, state, sight(180.0 * tick, per_s=100.0), 180.0 * tick)
        state = decision.state
    assert decision.targets.prefill > 4
    for tick in range(6, 9):
        decision = formula.decide(SETTINGS, state, sight(180.0 * tick, silent=True), 180.0 * tick)
        state = decision.state
    assert decision.targets.prefill == 1


def test_a_formula_that_may_go_to_zero_does_so_only_when_the_user_allows_it() -> None:
    idle = {"per_s": 0.0, "running": 0, "kv": 0, "ticks": 60}
    allowed = msgspec.structs.replace(SETTINGS, scale_to_zero=True)
    for name in ("queue-length", "concurrency-panic"):
        formula = baseline(name)
        busy = drive(formula, allowed, queue=0, **(idle | {"ticks": 1}))
        assert busy.prefill >= 1
        assert drive(formula, SETTINGS, **idle).prefill == 1


def test_bounds_keep_fixed_sizes_and_one_of_each() -> None:
    fixed = msgspec.structs.replace(SETTINGS, prefill=msgspec.structs.replace(SETTINGS.prefill, replicas=3))
    assert bound(fixed, 9, 0, True) == Targets(3, 1)
    assert bound(msgspec.structs.replace(SETTINGS, scale_to_zero=True), 0, 0, True) == Targets(0, 0)
    assert bound(msgspec.structs.replace(SETTINGS, scale_to_zero=True), 0, 2, True) == Targets(1, 2)
    assert bound(msgspec.structs.replace(SETTINGS, budget_gpus=40), 15, 5, False) == Targets(7, 2)


def test_a_static_size_never_changes() -> None:
    assert drive(Static(prefill=5, decode=3), per_s=500.0, queue=900) == Targets(5, 3)


def test_an_unknown_baseline_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no baseline is named 'best'; there are bounded-ratio"):
        baseline("best")
