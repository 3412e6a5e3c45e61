"""Pods that take the other role: drained first, on the same devices, and billed all the time."""

from __future__ import annotations

import pytest
from tandem_operator.simulation.outcome import Outcome
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Startup
from tandem_operator.simulation.workload import Request

from tests.operator.simulation.fleets import Given, Planned, scenario

NOTHING = Given((), 100.0)
SLOW = Startup(node_s=0.0, image_s=0.0, weights_s=50.0, warmup_s=0.0, spread=0.0)


def ready(outcome: Outcome, at: float) -> tuple[int, int]:
    series = outcome.series
    row = series.t_s.index(at)
    return series.prefill_ready[row], series.decode_ready[row]


def test_an_idle_pod_has_the_other_role_after_the_flip_and_no_device_more() -> None:
    made = scenario(NOTHING, (3, 1), startup=SLOW, fleet={"flip_s": 4.0})
    outcome = simulate(made, Planned(((8.0, 1, 3),)), 0)
    assert ready(outcome, 10.0) == (1, 1)
    assert ready(outcome, 15.0) == (1, 3)
    assert outcome.flips == 2
    assert (outcome.scale_ups, outcome.scale_downs, outcome.wasted_startups) == (0, 0, 0)
    assert outcome.gpu_h * 3600 == pytest.approx(4 * 100)


def test_what_no_pod_can_give_is_asked_for_and_what_nobody_needs_goes() -> None:
    made = scenario(NOTHING, (2, 1), startup=SLOW, fleet={"flip_s": 4.0})
    more = simulate(made, Planned(((10.0, 1, 4),)), 0)
    assert (more.flips, more.scale_ups, ready(more, 15.0), ready(more, 60.0)) == (1, 2, (1, 2), (1, 4))
    less = simulate(made, Planned(((10.0, 0, 2),)), 0)
    assert (less.flips, less.scale_downs) == (1, 1)


def test_a_pod_that_serves_takes_the_place_of_one_that_has_yet_to_start() -> None:
    made = scenario(NOTHING, (1, 3), startup=SLOW, fleet={"flip_s": 4.0})
    outcome = simulate(made, Planned(((4.0, 4, 3), (8.0, 4, 1))), 0)
    assert (outcome.flips, outcome.scale_ups, outcome.scale_downs, outcome.wasted_startups) == (2, 3, 2, 2)
    assert ready(outcome, 15.0) == (3, 1), "both are there long before a start-up"
    assert ready(outcome, 60.0) == (4, 1)
    assert max(outcome.series.gpus) == 7


@pytest.mark.parametrize("giver", ["prefill", "decode"])
def test_no_pod_takes_the_place_of_one_that_starts_where_nobody_is_wanted_any_more(giver: str) -> None:
    def pair(first: int, second: int) -> tuple[int, int]:
        return (first, second) if giver == "prefill" else (second, first)

    made = scenario(NOTHING, pair(4, 1), startup=SLOW, fleet={"flip_s": 4.0})
    outcome = simulate(made, Planned(((4.0, *pair(4, 3)), (8.0, *pair(2, 1)))), 0)
    assert (outcome.flips, outcome.scale_ups, outcome.scale_downs, outcome.wasted_startups) == (0, 2, 4, 2)
    partly = simulate(made, Planned(((4.0, *pair(4, 4)), (8.0, *pair(2, 2)))), 0)
    assert (partly.flips, partly.scale_ups, partly.scale_downs, partly.wasted_startups) == (1, 3, 4, 3)
    assert ready(partly, 15.0) == pair(2, 2)


def test_a_pod_with_work_keeps_it_until_it_is_done() -> None:
    requests = tuple(Request(0.0, 100, 1000) for _ in range(2))
    made = scenario(Given(requests, 200.0), (1, 2), startup=SLOW, fleet={"flip_s": 4.0})
    outcome = simulate(made, Planned(((4.0, 2, 1),)), 0)
    assert outcome.completed == 2
    assert outcome.lost_at_grace == 0
    assert outcome.flips == 1
    assert ready(outcome, 5.0)[0] == 1, "it drains first"
    assert ready(outcome, 195.0) == (2, 1)


def test_a_flip_that_is_taken_back_while_the_pod_drains_frees_its_devices() -> None:
    requests = tuple(Request(0.0, 100, 1000) for _ in range(2))
    made = scenario(Given(requests, 200.0), (1, 2), startup=SLOW, fleet={"flip_s": 4.0, "gpus": 3})
    outcome = simulate(made, Planned(((5.0, 2, 1), (7.0, 1, 1), (150.0, 2, 1))), 0)
    assert outcome.completed == 2
    assert max(outcome.series.gpus) == 3
    assert ready(outcome, 145.0) == (1, 1)
    assert ready(outcome, 195.0)[0] == 1, "a pod asked for then takes its start-up"


def test_without_flips_a_pod_has_one_role_for_life() -> None:
    outcome = simulate(scenario(NOTHING, (3, 1), startup=SLOW), Planned(((8.0, 1, 3),)), 0)
    assert (outcome.flips, outcome.scale_ups, outcome.scale_downs) == (0, 2, 2)
