"""Every figure of an outcome means what its name says, on runs small enough to be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tandem_operator.scaling.settings import Objective
from tandem_operator.simulation.against import against
from tandem_operator.simulation.arrivals import Steps
from tandem_operator.simulation.lengths import Fixed
from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Metrics
from tandem_operator.simulation.workload import Request, Synthetic

from tests.operator.simulation.fleets import Given, Planned, coefficients, scenario

STEP = Synthetic(Steps(((0.0, 1.0), (100.0, 4.0))), Fixed(4000, 10), 300.0)
"""A prefill pod computes five such prompts in two seconds: the step needs two."""


def test_a_request_is_met_when_both_bounds_hold_and_the_latencies_are_those_of_its_way() -> None:
    requests = (Request(1.0, 10_000, 101), Request(30.0, 30_000, 11), Request(60.0, 100, 1))
    outcome = simulate(scenario(Given(requests, 100.0), ttft_s=2.0), Planned(), 0)
    assert (outcome.completed, outcome.met, outcome.attainment) == (3, 2, pytest.approx(2 / 3))
    assert outcome.ttft_s.p50 == pytest.approx(1.0)
    assert outcome.ttft_s.p99 == pytest.approx(3.0)
    assert outcome.tpot_s.p99 == pytest.approx(0.01)
    assert outcome.token_attainment == pytest.approx(102 / 113)
    strict = simulate(scenario(Given(requests, 100.0), tpot_s=0.009), Planned(), 0)
    assert strict.met == 1, "an answer of one token has no time between tokens"


def test_classes_have_objectives_and_figures_of_their_own_and_the_urgent_goes_first() -> None:
    patient = [Request(1.0 + 0.001 * index, 10_000, 2, "batch") for index in range(12)]
    urgent = [Request(3.0 + 2.0 * index, 10_000, 2, "interactive") for index in range(4)]
    made = scenario(Given(tuple(sorted([*patient, *urgent], key=lambda r: r.arrived_s)), 40.0))
    classes = (
        Objective(name="interactive", ttft_base_s=3.5, tpot_s=1.0, priority=10),
        Objective(name="batch", ttft_base_s=13.0, tpot_s=1.0),
    )
    made = replace(made, settings=msgspec.structs.replace(made.settings, objectives=classes))
    ordered = simulate(made, Planned(), 0)
    assert ordered.completed == 16
    assert ordered.class_attainment["interactive"] == 1.0
    assert 0.5 < ordered.class_attainment["batch"] < 1.0
    plain = simulate(made, Planned(discipline="fifo"), 0)
    assert plain.class_attainment["interactive"] == 0.0


def test_an_objective_may_grow_with_the_length_of_the_prompt() -> None:
    made = scenario(Given((Request(1.0, 30_000, 2),), 20.0), ttft_s=2.0, ttft_solo_factor=1.5)
    assert simulate(made, Planned(), 0).met == 1


def test_what_is_in_flight_at_the_end_counts_only_when_its_time_was_up() -> None:
    made = scenario(Given((Request(90.0, 99_000, 2), Request(99.5, 10_000, 2)), 99.9), (2, 2), ttft_s=2.0)
    outcome = simulate(made, Planned(), 0)
    assert (outcome.arrivals, outcome.in_flight, outcome.attainment, outcome.completion) == (2, 2, 0.0, 0.0)


def test_a_queue_that_is_full_sheds_and_one_that_lasts_too_long_fails() -> None:
    requests = tuple(Request(1.0 + 0.001 * index, 10_000, 2) for index in range(10))
    made = scenario(Given(requests, 30.0), ttft_s=1.5, fleet={"max_waiting": 4, "request_timeout_s": 3.0})
    outcome = simulate(made, Planned(), 0)
    assert outcome.shed > 0
    assert outcome.failed > 0
    assert outcome.shed + outcome.failed + outcome.completed == 10
    assert outcome.met == 1
    assert outcome.attainment == 0.1


def test_recovery_is_counted_from_the_step_to_the_first_minute_that_is_good() -> None:
    kept = simulate(scenario(STEP, (3, 1), steps_s=(100.0,)), Planned(), 0)
    assert kept.recovery_s == (0.0,)
    late = simulate(scenario(STEP, (1, 1), steps_s=(100.0,)), Planned(((130.0, 3, 1),)), 0)
    assert late.recovery_s[0] is not None
    assert 30.0 < late.recovery_s[0] < 80.0
    never = simulate(scenario(STEP, (1, 1), steps_s=(100.0,)), Planned(), 0)
    assert never.recovery_s == (None,)
    cut = simulate(scenario(STEP, (1, 1), steps_s=(100.0, 200.0), end_s=50.0), Planned(), 0)
    assert cut.recovery_s == (None, None), "a step that did not come is not recovered from"


def test_churn_reversals_and_scale_downs_are_of_the_reported_part() -> None:
    plan = ((10.0, 2, 1), (20.0, 1, 1), (50.0, 3, 1), (60.0, 2, 2), (70.0, 2, 1))
    made = scenario(Given((), 100.0), metrics=Metrics(outages=((45.0, 65.0),)), blind_s=((45.0, 65.0),))
    whole = simulate(made, Planned(plan), 0)
    assert (whole.churn, whole.scale_ups, whole.scale_downs, whole.scale_downs_blind) == (7, 4, 3, 1)
    assert whole.reversals_per_h == pytest.approx(4 * 36)
    part = simulate(replace(made, report_from_s=40.0), Planned(plan), 0)
    assert (part.churn, part.scale_ups, part.scale_downs) == (5, 3, 2)
    assert part.seconds == 60.0


def test_the_ratio_is_wrong_while_one_pool_is_short_and_the_other_has_a_pod_to_spare() -> None:
    truth = coefficients(phi=(0.01, 0.001, 0.0), max_sequences=10)
    load = Synthetic(Steps(((0.0, 15.0),)), Fixed(1000, 2), 150.0)
    wrong = simulate(scenario(load, (1, 3), truth=truth), Planned(((60.0, 2, 3),)), 0)
    assert 60.0 <= wrong.wrong_ratio_s <= 90.0
    right = simulate(scenario(load, (2, 1), truth=truth), Planned(), 0)
    assert right.wrong_ratio_s == 0.0


def test_before_the_load_jumps_nobody_is_short_of_what_it_needs_afterwards() -> None:
    truth = coefficients(phi=(0.01, 0.001, 0.0), max_sequences=10)
    load = Synthetic(Steps(((0.0, 8.0), (75.0, 15.0))), Fixed(1000, 2), 150.0)
    told = simulate(scenario(load, (1, 3), truth=truth, steps_s=(75.0,)), Planned(), 0)
    assert told.wrong_ratio_s == pytest.approx(75.0, abs=told.series.step_s)
    untold = simulate(scenario(load, (1, 3), truth=truth), Planned(), 0)
    assert untold.wrong_ratio_s > told.wrong_ratio_s + 5, "a mean over a minute knows half a minute before"


def test_outages_have_an_attainment_of_their_own() -> None:
    requests = (Request(10.0, 1000, 2), Request(50.0, 50_000, 2))
    outcome = simulate(scenario(Given(requests, 100.0), blind_s=((40.0, 60.0),)), Planned(), 0)
    assert (outcome.attainment, outcome.blind_attainment) == (0.5, 0.0)
    assert simulate(scenario(Given(requests, 100.0)), Planned(), 0).blind_attainment is None


def test_beside_an_oracle_one_sees_how_much_more_it_took_and_how_soon_it_was_right() -> None:
    oracle = simulate(scenario(STEP, (1, 1), steps_s=(100.0,)), Planned(((80.0, 3, 1),)), 0)
    slow = simulate(scenario(STEP, (1, 1), steps_s=(100.0,)), Planned(((160.0, 6, 1), (200.0, 3, 1))), 0)
    beside = against(slow, oracle, (100.0,))
    assert beside.settle_s[0] == pytest.approx(100.0, abs=15.0)
    assert beside.overshoot == pytest.approx(0.75)
    assert beside.goodput < 1.0
    assert against(oracle, oracle, (100.0,)).gpu_h == 1.0
    with pytest.raises(ValueError, match="differ"):
        against(slow, msgspec.structs.replace(oracle, scenario="other"))


def test_decisions_are_timed_by_the_clock_that_is_given_and_recorded_as_they_were() -> None:
    ticks = iter(range(10_000))
    records: list[object] = []
    shares: list[float] = []
    outcome: Outcome = simulate(
        scenario(Given((), 20.0)), Planned(), 0, records.append, shares.append, lambda: float(next(ticks))
    )
    assert (outcome.decision_p50_ms, outcome.decision_p99_ms) == (1000.0, 1000.0)
    assert len(records) == 21
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_an_outcome_is_json_and_back() -> None:
    outcome = simulate(scenario(STEP, (2, 1)), Planned(((50.0, 2, 2),)), 0)
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome
    assert len(set(map(len, msgspec.structs.astuple(outcome.series)[1:]))) == 1
