"""How the law moves: up at once or on evidence, down after a hold, to zero only when nothing comes for sure."""

from __future__ import annotations

import msgspec
import pytest
from tandem_operator.scaling.decision import Targets
from tandem_operator.scaling.forecast import is_trusted
from tandem_operator.scaling.observation import Iteration, Observation, PodSignals
from tandem_operator.scaling.queueing import erlang_c, normal_loss, wait_tail
from tandem_operator.scaling.state import Predictor

from tests.operator.scaling.story import LARGE, Story, settings, waiting


def test_five_times_the_load_is_answered_in_one_jump_within_seconds() -> None:
    story = Story(prefill=2, decode=1, seed=1).run(400, 30.0)
    story.run(8, 150.0)
    assert story.targets.prefill >= 6
    assert story.targets.decode >= 4
    assert "at once" in " ".join(decision.explanation.summary for decision in story.decisions[-3:])


def test_pods_that_are_starting_count_so_that_a_jump_does_not_cascade() -> None:
    story = Story(prefill=2, decode=1, seed=1, startup_s=300.0).run(400, 30.0).run(70, 150.0)
    after_a_minute = story.targets
    story.run(120, 150.0)
    assert story.targets.prefill <= after_a_minute.prefill + 1
    assert story.targets.decode <= after_a_minute.decode + 1


def test_one_burst_of_a_second_moves_nothing() -> None:
    story = Story(prefill=2, decode=2, seed=1).run(400, 20.0)
    before = story.targets
    story.run(2, 60.0).run(30, 20.0)
    assert story.targets == before


def test_a_surplus_goes_after_a_hold_that_follows_the_measured_start_up() -> None:
    quick = Story(prefill=6, decode=6, startup_s=30.0)
    slow = Story(prefill=6, decode=6, startup_s=300.0)
    removed = {}
    for story in (quick, slow):
        story.run(120, 150.0)
        story.edit("prefill", story.targets.prefill - 1)
        story.run(320, 150.0)
        start = story.now
        while story.targets.prefill > 4 and story.now < start + 4000:
            story.run(10, 20.0)
        removed[story.startup_s] = story.now - start
    assert removed[30.0] < removed[300.0]
    assert removed[300.0] > 300


def test_late_requests_do_not_size_the_fleet_as_those_that_can_be_saved_do() -> None:
    late = Story(prefill=3, decode=3).run(200, 40.0).run(20, 40.0, queue=waiting(600, -5.0))
    unsplit = settings(law=msgspec.structs.replace(settings().law, split_backlog=False))
    all_alike = Story(unsplit, prefill=3, decode=3).run(200, 40.0).run(20, 40.0, queue=waiting(600, -5.0))
    assert late.targets.prefill <= 3
    assert all_alike.targets.prefill >= late.targets.prefill + 3


def test_zero_is_reached_only_when_every_router_says_that_nothing_came() -> None:
    sleepy = settings(scale_to_zero=True, idle_after_s=120.0)
    story = Story(sleepy).run(60, 1.0).run(100, 0.0)
    assert story.targets == Targets(1, 1)
    story.run(60, 0.0)
    assert story.targets == Targets(0, 0)

    blind = Story(sleepy).run(60, 1.0)
    blind.router_tells = False
    blind.run(600, 0.0)
    assert blind.targets == Targets(1, 1)


def test_a_sleeping_fleet_wakes_both_pools_at_once_and_as_large_as_the_queue_asks() -> None:
    sleepy = settings(scale_to_zero=True, idle_after_s=60.0)
    story = Story(sleepy).run(60, 1.0).run(200, 0.0)
    assert story.targets == Targets(0, 0)
    story.run(2, 0.5, queue=waiting(1, 1.0))
    assert story.targets == Targets(1, 1)
    flash = Story(sleepy).run(60, 1.0).run(200, 0.0).run(6, 120.0, queue=waiting(500, 1.0))
    assert flash.targets.prefill >= 3
    assert flash.targets.decode >= 2


def test_without_leave_to_sleep_one_of_each_stays() -> None:
    assert Story().run(60, 1.0).run(1200, 0.0).targets == Targets(1, 1)


def test_frozen_changes_nothing_and_says_so_and_advisory_says_what_it_would_do() -> None:
    frozen = Story(settings(mode="Frozen"), prefill=2, decode=2).run(100, 200.0)
    assert frozen.targets == Targets(2, 2)
    assert "Frozen" in frozen.because
    advisory = Story(settings(mode="Advisory"), prefill=2, decode=2).run(100, 200.0)
    assert advisory.targets.prefill > 6


def test_a_fixed_pool_is_never_touched() -> None:
    story = Story(settings(prefill={"replicas": 3}), prefill=3, decode=2, startup_s=30.0).run(300, 200.0)
    assert story.targets.prefill == 3
    assert story.targets.decode > 4
    assert "prefill is fixed at 3" in story.because


def test_a_ratio_raises_the_pool_that_is_short_of_it() -> None:
    story = Story(settings(min_ratio=2.0), startup_s=30.0).run(300, 100.0)
    assert story.targets.prefill >= 2 * story.targets.decode
    assert "minRatio 2" in story.because


def test_slower_steps_than_believed_grow_the_pool() -> None:
    """The coefficients of the settings are the start; what engines measure is the truth."""

    def slow(observation: Observation) -> Observation:
        steps = tuple(Iteration(0, 0, tokens, 2 * LARGE.prefill_seconds(tokens)) for tokens in (500, 1500, 4000, 8000))
        return msgspec.structs.replace(
            observation,
            pods=tuple(
                msgspec.structs.replace(
                    pod,
                    signals=PodSignals(
                        at=observation.pods_at,
                        incarnation="a",
                        iterations=steps,
                        iterations_total=int(observation.pods_at) * 4,
                    ),
                )
                if pod.role == "prefill" and pod.ready_since is not None
                else pod
                for pod in observation.pods
            ),
        )

    believed = Story(prefill=4, decode=4, startup_s=30.0).run(300, 80.0)
    measured = Story(prefill=4, decode=4, startup_s=30.0)
    measured.garble = slow
    measured.run(300, 80.0)
    service = measured.decisions[-1].explanation.facts["prefill_service_s"]
    assert service == pytest.approx(2 * believed.decisions[-1].explanation.facts["prefill_service_s"], rel=0.1)
    assert measured.targets.prefill > believed.targets.prefill


def test_the_explanation_names_what_binds_with_its_arithmetic_and_what_would_change_it() -> None:
    story = Story(prefill=5, decode=4, seed=2).run(300, 100.0)
    why, (p, d) = story.decisions[-1].explanation, msgspec.structs.astuple(story.targets)
    assert "prefill tail" in why.binding
    assert "P(W>" in why.binding
    assert "requests/s" in why.would_change
    assert why.bottleneck == "None"
    assert why.ratio > 0.5
    assert {(one.prefill, one.decode) for one in why.alternatives} >= {(p - 1, d), (p, d - 1)}


def test_a_narrow_kv_link_is_named_as_the_bottleneck() -> None:
    link = msgspec.structs.replace(LARGE, link=msgspec.structs.replace(LARGE.link, bytes_per_s=1e9))
    story = Story(settings(link), startup_s=60.0).run(30, 20.0)
    assert story.decisions[-1].explanation.bottleneck == "KVLink"
    assert "KV link" in story.decisions[-1].explanation.binding
    assert story.targets.prefill >= 9


def test_a_predictor_that_is_no_better_than_persistence_is_not_listened_to() -> None:
    assert is_trusted(Predictor(20, 0.5), Predictor(20, 1.0))
    assert not is_trusted(Predictor(20, 0.95), Predictor(20, 1.0))
    assert not is_trusted(Predictor(4, 0.1), Predictor(4, 1.0))


def test_queueing_formulas_give_the_values_of_the_textbook() -> None:
    assert erlang_c(1, 0.5) == pytest.approx(0.5)
    assert erlang_c(10, 8.0) == pytest.approx(0.4092, abs=1e-3)
    assert erlang_c(256, 240.0) == pytest.approx(erlang_c(100, 90.0) * 0.88, rel=0.3)
    assert wait_tail(1, 0.5, 1.0, 2.0, 2.0) == pytest.approx(0.5 * 2.718281828**-1.0)
    assert normal_loss(0.0) == pytest.approx(0.39894, abs=1e-4)
