"""What users of other autoscalers ran into, told again here, with what must happen instead."""

from __future__ import annotations

import math

import msgspec
import pytest
from tandem_operator.scaling.couple import gpus_of
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.observation import ClassCounters, Observation

from tests.operator.scaling.story import LARGE, Story, reversals, settings, waiting


def test_two_replicas_that_share_a_constant_load_are_not_taken_apart_and_put_together_again() -> None:
    """dynamo#9294: at 2 replicas each looked idle enough, at 1 it was overloaded: 2, 1, 2, 1 ..."""
    story = Story(seed=3, prefill=2, decode=2, startup_s=60.0, tick_s=5.0)
    story.run(3600, 26.0)
    assert reversals([p for p, _ in story.sizes()]) == 0
    assert reversals([d for _, d in story.sizes()]) == 0
    assert story.targets.prefill == 2


def test_one_long_prompt_does_not_hold_replicas_for_ever() -> None:
    """dynamo#11624: a floor from the latency of one long prompt kept two prefill replicas while nothing came."""
    story = Story(startup_s=60.0).run(300, 2.0).run(2, 0.5, prompt=120_000)
    during = max(p for p, _ in story.run(120, 2.0).sizes())
    story.tick_s = 10.0
    story.run(1500, 0.2)
    assert during <= 2
    assert story.targets == Targets(1, 1)
    held = Story(prefill=2, decode=2, startup_s=60.0).run(300, 2.0).run(2, 0.5, prompt=120_000)
    held.tick_s = 10.0
    held.run(1500, 0.2)
    assert held.targets == Targets(1, 1)


def test_a_burst_that_waits_for_prefill_scales_prefill_although_no_kv_is_used() -> None:
    """llm-d#1500 and dynamo#10528: requests were dropped at 16 % KV use while one prefill replica stayed."""
    story = Story(startup_s=60.0).run(200, 10.0, output=5).run(10, 120.0, output=5, queue=waiting(900, -1.0))
    assert story.targets.prefill >= 5
    assert story.targets.decode <= 2


def test_a_queue_that_can_still_be_saved_grows_prefill_at_the_same_rate_of_arrivals() -> None:
    """dynamo#10528 once more: what waited was not looked at. Pods that start in 3 s are in time for who has 20 s."""
    chosen = settings(msgspec.structs.replace(LARGE, load_s=3.0))
    calm = Story(chosen, prefill=2, decode=2, startup_s=3.0).run(200, 10.0, output=5)
    before = calm.targets
    piled = calm.run(20, 10.0, output=5, queue=waiting(3000, 20.0))
    assert piled.targets.prefill >= before.prefill + 3
    assert piled.targets.decode <= 2


def test_load_that_is_nearly_all_prefill_grows_prefill_alone() -> None:
    """aibrix#1260, llm-d#1211: one metric summed over both pools scaled the wrong one."""
    story = Story(prefill=2, decode=2, startup_s=60.0).run(900, 12.0, prompt=8000, output=20)
    assert story.targets.prefill >= 4
    assert story.targets.decode <= 2
    assert story.decisions[-1].explanation.ratio > 3


def test_under_a_cap_with_large_prefill_and_small_decode_pods_decode_is_not_grown() -> None:
    """dynamo PR#13064: 10 prefill of 8 GPUs and 1 decode of 1 GPU under a cap of 20 became 2 and *4*."""
    chosen = settings(prefill={"gpus": 8}, decode={"gpus": 1}, budget_gpus=20)
    story = Story(chosen, startup_s=60.0).run(300, 150.0, prompt=2000, output=5)
    assert story.decisions[-1].explanation.wanted.prefill >= 10  # type: ignore[union-attr]
    assert story.targets == Targets(2, 1)
    assert "budget 20 GPUs" in story.because


def test_a_budget_holds_from_the_first_plan_on() -> None:
    """dynamo#8583: 50 GPUs were planned for a budget of 32, and the planner waited for pods that could not come."""
    chosen = settings(prefill={"gpus": 4}, decode={"gpus": 4}, budget_gpus=32)
    story = Story(chosen, startup_s=60.0).run(300, 400.0)
    assert all(gpus_of(chosen, p, d) <= 32 for p, d in story.sizes())
    assert gpus_of(chosen, *story.sizes()[-1]) == 32


def test_a_budget_below_one_of_each_runs_nothing_rather_than_everything() -> None:
    """dynamo#11220: the guard was off when the budget read as 0."""
    chosen = settings(prefill={"gpus": 4}, decode={"gpus": 4}, budget_gpus=0)
    story = Story(chosen).run(60, 50.0)
    assert story.targets == Targets(0, 0)
    assert "nothing runs" in story.because


def test_pods_that_the_cluster_cannot_place_are_not_asked_for() -> None:
    """dynamo#8583 again: 3 pods stayed pending and nothing else was decided any more."""

    def full(observation: Observation) -> Observation:
        return msgspec.structs.replace(observation, gpus_grantable=5 - len(observation.pods))

    story = Story(prefill=2, decode=2)
    story.garble = full
    story.run(120, 400.0)
    assert gpus_of(story.settings, *story.sizes()[-1]) <= 5 + story.sizes()[-1].count(0)
    assert "cluster supply" in story.because


def test_a_target_is_a_number_of_pods_however_many_there_are() -> None:
    """aibrix#2780: a scaler of a role multiplied its answer by the replicas that there were already."""
    few = Story(prefill=1, decode=1, startup_s=20.0).run(600, 100.0)
    many = Story(prefill=9, decode=9, startup_s=20.0).run(600, 100.0)
    assert few.decisions[-1].explanation.wanted == many.decisions[-1].explanation.wanted
    assert few.targets.prefill <= 6  # 100 prompts/s keep 3.8 pods busy
    assert few.targets.decode <= 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_a_counter_that_is_no_number_is_neither_load_nor_the_end_of_it(value: float) -> None:
    """Dynamo recorded NaN as zero load and scaled down."""
    story = Story(seed=1, prefill=5, decode=4, startup_s=60.0, keep_records=True).run(400, 80.0)
    before = story.targets

    def lie(observation: Observation) -> Observation:
        (router,) = observation.routers
        counts = {
            name: msgspec.structs.replace(told, arrivals=-1 if value == -1 else value, prompt_tokens_squared=value)
            for name, told in router.classes.items()
        }
        pods = tuple(
            msgspec.structs.replace(pod, signals=msgspec.structs.replace(pod.signals, at=value))
            if pod.signals is not None
            else pod
            for pod in observation.pods
        )
        return msgspec.structs.replace(
            observation, routers=(msgspec.structs.replace(router, classes=counts),), pods=pods
        )

    story.garble = lie
    story.tick_s = 10.0
    story.run(900, 80.0)
    assert story.targets == before
    for record in story.records[-3:]:
        assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)).targets == before


def test_somebody_who_edits_replicas_does_not_move_the_law() -> None:
    """dynamo#4420, llm-d#806: a manual edit left the planner stuck, or its target drifted away from what runs."""
    story = Story(prefill=5, decode=4, startup_s=60.0).run(400, 80.0)
    before = story.targets
    for size in (1, 12, 3, 8):
        story.edit("prefill", size)
        story.run(20, 80.0)
        assert story.targets == before


def test_a_router_that_starts_anew_is_no_drop_of_load_and_no_burst() -> None:
    """Counters begin at zero again; the difference must not be read as minus a million requests, nor as plus."""
    story = Story(prefill=5, decode=4, startup_s=60.0).run(400, 80.0)
    before = story.targets
    story.counts = {"interactive": ClassCounters()}

    def anew(observation: Observation) -> Observation:
        (router,) = observation.routers
        return msgspec.structs.replace(observation, routers=(msgspec.structs.replace(router, incarnation="b"),))

    story.garble = anew
    story.run(600, 80.0)
    assert {(p, d) for p, d in story.sizes()[-300:]} == {(before.prefill, before.decode)}
