"""Pods take their time to come, and cost from the moment that they have devices until they are gone."""

from __future__ import annotations

import pytest
from tandem_operator.simulation.run import simulate
from tandem_operator.simulation.scenario import Startup
from tandem_operator.simulation.workload import Request

from tests.operator.simulation.fleets import Given, Planned, scenario

NOTHING = Given((), 100.0)
STARTUP = Startup(node_s=5.0, image_s=3.0, weights_s=10.0, warmup_s=2.0, spread=0.0)


def test_a_pod_is_billed_from_scheduling_and_ready_when_its_parts_are_over() -> None:
    outcome = simulate(scenario(NOTHING, (0, 0), startup=STARTUP), Planned(((10.0, 1, 0),)), 0)
    assert outcome.gpu_h * 3600 == pytest.approx(100 - 15)
    ready = dict(zip(outcome.series.t_s, outcome.series.prefill_ready, strict=True))
    assert (ready[25.0], ready[30.0]) == (0, 1)
    assert STARTUP.median_s == 20.0


def test_start_ups_are_drawn_around_the_median_and_do_not_depend_on_the_policy() -> None:
    drawn = Startup(0.0, 0.0, 20.0, 0.0, spread=0.3)
    hours = [simulate(scenario(NOTHING, (0, 0), startup=drawn), Planned(((at, 2, 0),)), 4).gpu_h for at in (0.0, 0.0)]
    assert hours[0] == hours[1]


def test_a_cap_on_devices_leaves_the_rest_pending_until_others_are_freed() -> None:
    made = scenario(NOTHING, (2, 0), startup=STARTUP, fleet={"gpus": 3})
    outcome = simulate(made, Planned(((5.0, 4, 0), (50.0, 1, 2))), 0)
    gpus = dict(zip(outcome.series.t_s, outcome.series.gpus, strict=True))
    assert gpus[45.0] == 3
    assert max(outcome.series.gpus) == 3
    assert outcome.series.decode_ready[-1] == 2


def test_pods_let_go_before_they_served_are_wasted_and_go_first() -> None:
    outcome = simulate(scenario(NOTHING, (1, 1), startup=STARTUP), Planned(((5.0, 3, 1), (12.0, 1, 1))), 0)
    assert (outcome.wasted_startups, outcome.scale_downs, outcome.churn) == (2, 2, 4)
    assert outcome.series.prefill_ready[-1] == 1


def test_the_emptiest_pod_drains_and_takes_nothing_more_meanwhile() -> None:
    requests = (Request(0.0, 100, 2000), *(Request(6.0 + index, 100, 10) for index in range(5)))
    outcome = simulate(scenario(Given(requests, 60.0), (1, 2)), Planned(((5.0, 1, 1),)), 0)
    assert outcome.completed == 6
    assert outcome.series.decode_ready[2] == 1
    assert outcome.series.decode_pods[2] == 1, "the empty one went at once"
